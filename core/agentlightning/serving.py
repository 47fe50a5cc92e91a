"""A trained model for an agent that nobody changes: served behind the OpenAI API, with the prompts of its run.

What loads and serves weights is a plugin (`agentlightning.hookspecs.register_servers`); here is its contract, what a
run left behind to be served, and the face that blocking code has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from agentlightning.defaults import DIRECTORY
from agentlightning.errors import ConfigError
from agentlightning.plugins import plugins
from agentlightning.records import AnyResource, Policy, Prompt, Record
from agentlightning.store.base import RunRecord
from agentlightning.threads import run_on_process_loop

SERVER = "torch"
"""The server where nothing names another."""
KEY = "none"
"""Any key will do; a client cannot be made without one."""
UNTRAINED = ("lora",)
"""Options of a model that only training has a use for."""


class ModelServer(ABC):
    """Serves a model behind the OpenAI API on this machine, chat completions, responses and completions.

    ``model`` and ``engine`` are the sections of that name in an algorithm's config (`ConfigError` where one is wrong).
    ``prompts`` take the place of the system prompt of every request that they are for; with ``any_name`` a request may
    name any model. A wish how the model is to write that cannot be met is passed over, as in training.
    """

    @abstractmethod
    def __init__(
        self,
        model: Mapping[str, Any],
        engine: Mapping[str, Any],
        *,
        prompts: Sequence[Prompt] = (),
        any_name: bool = False,
    ) -> None: ...

    @abstractmethod
    async def start(self) -> Policy:
        """Loads the model, and serves it from now on. Raises `PolicyError` where it cannot."""

    @abstractmethod
    async def aclose(self) -> None:
        """Ends serving. Safe to call twice."""


def model_server(name: str = SERVER) -> type[ModelServer]:
    """The server that plugins registered under a name. Raises `PluginError` that says what to install."""
    found: type[ModelServer] = plugins().find("servers", name)
    return found


def model_folder(run: RunRecord) -> Path:
    """The folder of the model that a run trained. Raises `ConfigError` where it left none."""
    folder = Path(str(run.config.get("directory") or DIRECTORY)) / run.id / "model"
    if "model" not in run.results or not folder.is_dir():
        raise ConfigError(f"run {run.id} ({run.algorithm}, {run.status}) left no model: there is no folder {folder}")
    return folder


class Servable(Record, kw_only=True):
    """What a run left behind, or a folder: the model and how it was served, and the prompts that its agents had.

    ``passed_over`` says which resources of the run a request does not tell enough to apply, and why.
    """

    model: dict[str, Any]
    engine: dict[str, Any] = {}
    prompts: list[Prompt] = []
    passed_over: list[str] = []

    @classmethod
    def of_folder(cls, folder: Path) -> Servable:
        """A model's folder. Raises `ConfigError` where there is none."""
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}")
        return cls(model={"path": str(folder)})

    @classmethod
    def of_run(cls, config: Mapping[str, Any], folder: Path, resources: Sequence[AnyResource]) -> Servable:
        """The model in ``folder``, which a run of ``config`` trained, and the ``resources`` that it published last.

        A request does not say which agent makes it: a prompt applies where it is for all, or names the text that it
        replaces.
        """
        algorithm = config.get("algorithm") or {}
        prompts = [resource for resource in resources if isinstance(resource, Prompt)]
        model = {key: value for key, value in (algorithm.get("model") or {}).items() if key not in UNTRAINED}
        engine = {key: value for key, value in (algorithm.get("engine") or {}).items() if key not in ("host", "port")}
        return cls(
            model={**model, "path": str(folder)},
            engine=engine,
            prompts=[prompt for prompt in prompts if _applies(prompt)],
            passed_over=[
                f"{prompt.name}: it is for {', '.join(prompt.agents)}, and a request does not say which agent makes it"
                for prompt in prompts
                if not _applies(prompt)
            ],
        )


def _applies(prompt: Prompt) -> bool:
    return "*" in prompt.agents or prompt.replaces is not None


class ServedModel:
    """A model that answers at ``base_url`` until it is stopped. Works in a notebook, and as a context manager::

        with result.serve() as served:
            client = OpenAI(base_url=served.base_url, api_key="none")

    ``name`` None answers whatever model a request names. ``port`` 0 takes any free one.
    """

    def __init__(self, servable: Servable, *, name: str | None = None, port: int = 0) -> None:
        engine = {**servable.engine, "port": port, **({} if name is None else {"name": name})}
        server = model_server()
        self._server = server(servable.model, engine, prompts=servable.prompts, any_name=name is None)
        self.policy = run_on_process_loop(self._server.start())

    @property
    def base_url(self) -> str:
        """Where the API is, up to and with ``/v1``."""
        return self.policy.base_url

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send an agent's OpenAI client here."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": KEY}

    def stop(self) -> None:
        """Ends serving. Safe to call twice."""
        run_on_process_loop(self._server.aclose())

    def __enter__(self) -> ServedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ServedModel at {self.base_url}>"
