"""A first config for an agent of the user's own: which adapter runs it, and the files that ``templates`` holds."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from agentlightning.adapter import Adapter
from agentlightning.errors import AdapterError, ConfigError
from agentlightning.installing import ADAPTER_OF, install_command
from agentlightning.loading import is_call, load
from agentlightning.plugins import Plugins

CONFIG, REWARD, TASKS = "agentlightning.yaml", "reward.py", "tasks.jsonl"


def adapter_of(target: str, plugins: Plugins) -> str:
    """The name of the adapter that runs the agent ``module:attribute``, which is loaded; nothing of it is called, so of
    ``module:attribute()`` it cannot be told.

    Raises `ConfigError` where it does not load, and `AdapterError` that names the package to install where no
    installed adapter runs it.
    """
    from agentlightning.agents import load_agent

    if is_call(target):
        for adapter in plugins.adapters():
            adapter.prepare()
        load(target.removesuffix("()"))
        return "that of what it makes when training begins"
    try:
        return load_agent(target, plugins)[1].name
    except AdapterError:
        agent = load(target)
        if callable(agent):
            raise
        raise AdapterError(_missing(target, agent, plugins.adapters())) from None


def _missing(target: str, agent: Any, adapters: list[Adapter]) -> str:
    kind = agent if isinstance(agent, type) else type(agent)
    wanted = ADAPTER_OF.get(kind.__module__.partition(".")[0])
    what = f"{target} is a {kind.__module__}.{kind.__qualname__}"
    installed = f"installed adapters: {', '.join(adapter.name for adapter in adapters)}"
    function = "name a function (input) -> output of yours that runs it"
    if wanted is None:
        return f"{what}, which no installed adapter runs ({installed}): {function}"
    return f"{what}: install the adapter {wanted} ({installed}): {install_command(wanted)}; or {function}"


def write(agent: str, folder: Path, *, force: bool = False) -> list[Path]:
    """Writes ``agentlightning.yaml``, ``reward.py`` and ``tasks.jsonl`` into ``folder``, which lies in (or is) the
    current one, so that ``agl train`` finds them from here. Returns their paths.

    Raises `ConfigError`, and writes nothing, when one of them is there already and not ``force``, or when the
    folder's name cannot be a package's.
    """
    values = {
        "agent": agent,
        "path": str(folder / CONFIG),
        "tasks": json.dumps(str(folder / TASKS)),
        "reward": f"{_package(folder)}reward:score",
    }
    templates = files("agentlightning.cli") / "templates"
    texts = {
        folder / CONFIG: Template((templates / CONFIG).read_text(encoding="utf-8")).substitute(values),
        folder / REWARD: Template((templates / f"{REWARD}.txt").read_text(encoding="utf-8")).substitute(values),
        folder / TASKS: (templates / TASKS).read_text(encoding="utf-8"),
    }
    taken = [str(path) for path in texts if path.exists()]
    if taken and not force:
        raise ConfigError(f"{', '.join(taken)}: there already; --force overwrites, --output writes elsewhere")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be written: {error}") from error
    return list(texts)


def _package(folder: Path) -> str:
    """The prefix under which modules in a folder are imported from the current one: ``training.``, or nothing."""
    try:
        parts = folder.resolve().relative_to(Path.cwd().resolve()).parts
    except ValueError:
        parts = ("",)
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"--output {folder}: expected a folder in the current one, named like a Python package, so that the config "
            "can name its reward.py as module:function"
        )
    return "".join(f"{part}." for part in parts)
