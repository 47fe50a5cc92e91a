"""A trained model for an agent that nobody changes: served behind the OpenAI API, with the prompts of its run.

What loads and serves weights is a plugin (`agentlightning.hookspecs.register_servers`); here is its contract, what a
run left behind to be served, and the face that blocking code has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar

import msgspec

from agentlightning.config import changed_keys, decode_section, refuse_without_effect
from agentlightning.defaults import DIRECTORY
from agentlightning.errors import ConfigError
from agentlightning.plugins import plugins
from agentlightning.records import AnyResource, ModelChoice, ModelRouter, Policy, Prompt, Record
from agentlightning.store.base import RunRecord
from agentlightning.system_prompts import swap
from agentlightning.threads import run_on_process_loop

TORCH = "torch"
"""The server of weights that this machine holds, where nothing names another."""
FORWARDING = "forwarding"
"""The server that sends requests on to the endpoint of a model that was chosen."""
KEY = "none"
"""Any key will do; a client cannot be made without one."""
UNTRAINED = ("lora",)
"""Options of a model that only training has a use for."""
IN_FOLDER = ("chat_template",)
"""Options of a model that its folder holds once it was trained."""
ADDRESS = ("host", "port")


class ModelServer(ABC):
    """Serves a model behind the OpenAI API on this machine, chat completions, responses and completions.

    ``model`` says which, ``engine`` how: the sections of that name in an algorithm's config (`ConfigError` where one is
    wrong); ``engine.name`` is the name that requests give it, ``engine.port`` 0 any free one.
    ``prompts`` take the place of the system prompt of every request that they are for, ``sampling`` holds fields of
    requests that leave them out; with ``any_name`` a request may name any model. A wish how the model is to write that
    cannot be met is passed over, as in training.

    ``ModelOptions`` and ``EngineOptions`` are the types of the two sections.
    """

    ModelOptions: ClassVar[type[msgspec.Struct]]
    EngineOptions: ClassVar[type[msgspec.Struct]]

    def __init__(
        self,
        model: Mapping[str, Any],
        engine: Mapping[str, Any],
        *,
        prompts: Sequence[Prompt] = (),
        sampling: Mapping[str, Any] = MappingProxyType({}),
        any_name: bool = False,
    ) -> None:
        self.model: Any = decode_section(dict(model), self.ModelOptions, at="algorithm.model")
        self.engine: Any = decode_section(dict(engine), self.EngineOptions, at="algorithm.engine")
        self.prompts = list(prompts)
        self.sampling = dict(sampling)
        self.any_name = any_name

    @abstractmethod
    async def start(self) -> Policy:
        """Loads the model, and serves it from now on. Raises `PolicyError` where it cannot."""

    @abstractmethod
    async def aclose(self) -> None:
        """Ends serving. Safe to call twice."""


def model_server(name: str) -> type[ModelServer]:
    """The server that plugins registered under a name. Raises `PluginError` that says what to install."""
    found: type[ModelServer] = plugins().find("servers", name)
    return found


def server_for_agents(config: Any, *, with_model: Sequence[str]) -> ModelServer | None:
    """What serves the model that an algorithm's ``config`` has the agents call, by its ``model``, ``engine`` and
    ``server``; None where they call their own.

    Raises `ConfigError` for one of the options ``with_model`` that has no effect then, and for what the server refuses.
    """
    if config.model is not None:
        return model_server(config.server)(config.model, config.engine)
    unused = dict.fromkeys(with_model, "the agents call a model that is named in algorithm.model")
    refuse_without_effect(changed_keys(config), unused, at="algorithm")
    return None


def prepared(
    body: bytes,
    operation: str,
    *,
    prompts: Sequence[Prompt],
    model: str | None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """A request to the OpenAI API as the run would have sent it: for ``model`` (None: the one that it names), with the
    run's prompts, and with ``defaults`` for the fields that it leaves out.

    ``operation`` is ``chat``, ``responses`` or ``text_completion``. A body that cannot be read is given back, for
    whoever says what is wrong with it.
    """
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body
    if not isinstance(request, dict):
        return body
    request = {**defaults, **request, **({} if model is None else {"model": model})}
    if operation == "responses" or isinstance(request.get("messages"), list):
        request = swap(request, operation, prompts)
    return msgspec.json.encode(request)


def model_folders(run: RunRecord) -> list[Path]:
    """The folders of the models that a run trained: one for each policy, and none where it trained no weights."""
    directory = Path(str(run.config.get("directory") or DIRECTORY)) / run.id
    named = [directory / name for name in run.results if name == "model" or name.startswith("model/")]
    return [folder for folder in named if folder.is_dir()]


class Servable(Record, kw_only=True):
    """What a run left behind, or a folder: what its ``server`` takes, the prompts that its agents had, and how it is
    sampled where a request does not say.

    ``passed_over`` says which prompts of the run a request does not tell enough to apply, and why.
    """

    server: str = TORCH
    model: dict[str, Any]
    engine: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    prompts: list[Prompt] = []
    passed_over: list[str] = []

    @classmethod
    def of_folder(cls, folder: Path) -> Servable:
        """A model's folder, or that of the run which trained it. Raises `ConfigError` where there is none."""
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}")
        inner = folder / "model"
        several = sorted(path.parent for path in inner.glob("*/config.json"))
        if several:
            raise ConfigError(f"{folder} holds several models; name one of them: {', '.join(map(str, several))}")
        return cls(model={"path": str(inner if inner.is_dir() else folder)})

    @classmethod
    def of_run(cls, run: RunRecord, published: Sequence[AnyResource]) -> Servable:
        """The model that a run trained, else the one that it chose, or learned prompts for, with what it ``published``
        last.

        A request does not say which agent makes it: a prompt applies where it is for all, or names the text that it
        replaces. Raises `ConfigError` where there is none.
        """
        prompts = [resource for resource in published if isinstance(resource, Prompt)]
        return cls(
            **_model_of(run, published),
            prompts=[prompt for prompt in prompts if _applies(prompt)],
            passed_over=[
                f"{prompt.name}: it is for {', '.join(prompt.agents)}, and a request does not say which agent makes it"
                for prompt in prompts
                if not _applies(prompt)
            ],
        )

    @classmethod
    def of_beginning(cls, run: RunRecord) -> Servable:
        """The model that a run began with: to train it, or to learn prompts for it. Raises `ConfigError` where there is
        none, as its agents have their own."""
        algorithm = run.config.get("algorithm") or {}
        if not algorithm.get("model"):
            raise ConfigError(f"run {run.id} ({run.algorithm}) names no model (algorithm.model), so it began with none")
        model = {key: value for key, value in algorithm["model"].items() if key not in UNTRAINED}
        return cls(server=algorithm.get("server", TORCH), model=model, **_asked_of(algorithm))

    @property
    def name(self) -> str:
        """The model's folder, or its name."""
        return str(self.model.get("path") or self.model["model"])


def _model_of(run: RunRecord, published: Sequence[AnyResource]) -> dict[str, Any]:
    folders, algorithm = model_folders(run), run.config.get("algorithm") or {}
    choices = [resource for resource in published if isinstance(resource, ModelChoice | ModelRouter)]
    if len(folders) > 1:
        raise ConfigError(
            f"run {run.id} trained several models; serve one of them by its folder: {', '.join(map(str, folders))}"
        )
    if folders:
        trained = algorithm.get("model") or {}
        model = {key: value for key, value in trained.items() if key not in (*UNTRAINED, *IN_FOLDER)}
        return {"model": {**model, "path": str(folders[0])}, **_asked_of(algorithm)}
    if choices:
        chosen = choices[-1]
        if isinstance(chosen, ModelRouter):
            names = ", ".join(choice.name for choice in chosen.choices)
            return {"server": FORWARDING, "model": {"model": names, "router": msgspec.to_builtins(chosen)}}
        return {
            "server": FORWARDING,
            "model": {"model": chosen.model, "base_url": chosen.base_url, "api_key_env": chosen.api_key_env},
        }
    learned = any(isinstance(one, Prompt) and (one.version > 0 or one.demonstrations) for one in published)
    if learned and run.status == "succeeded" and algorithm.get("model"):
        return {"server": algorithm.get("server", TORCH), "model": algorithm["model"], **_asked_of(algorithm)}
    raise ConfigError(f"run {run.id} ({run.algorithm}, {run.status}) left no model, and chose none")


def _asked_of(algorithm: Mapping[str, Any]) -> dict[str, Any]:
    """How a run had its model answer, and sampled it: what it was evaluated with is what it is served with."""
    engine = {key: value for key, value in (algorithm.get("engine") or {}).items() if key not in ADDRESS}
    temperature = algorithm.get("temperature")
    return {"engine": engine, "sampling": {} if temperature is None else {"temperature": temperature}}


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
        server = model_server(servable.server)
        self._server = server(
            servable.model, engine, prompts=servable.prompts, sampling=servable.sampling, any_name=name is None
        )
        self.policy = run_on_process_loop(self._server.start())

    @property
    def base_url(self) -> str:
        """Where the API is, up to and with ``/v1``."""
        return self.policy.base_url

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send an agent's OpenAI client here."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": KEY}

    def use_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Has requests that come from now on get these prompts."""
        self._server.prompts = list(prompts)

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
