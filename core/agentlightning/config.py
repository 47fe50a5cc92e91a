"""One YAML file → typed structs, with errors that name the path and the nearest valid key."""

from __future__ import annotations

import difflib
import re
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from agentlightning.errors import ConfigError

T = TypeVar("T")


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of the config's sections: an unknown key is an error."""


class TasksConfig(Section):
    """Where the tasks come from.

    Without ``held_out``, a fifth of ``train`` (at most 100 tasks) is held out by the run's seed.
    ``fields`` names the columns: ``{input: question, expected: answer}``.
    """

    train: str
    held_out: str | None = None
    limit: int | None = None
    held_out_limit: int | None = None
    fields: dict[str, str] = {}


class RewardConfig(Section):
    """One reward by name (or ``module:function``), its weight in the sum, and its own options.

    ``process`` runs it in a process of its own: for one that needs a main thread (signals), or may hold the
    interpreter's lock for long (a regular expression that backtracks). It sees the rollout as the store keeps it.
    """

    name: str
    weight: float = 1.0
    process: bool = False
    config: dict[str, Any] = {}


class RunnerConfig(Section):
    """How rollouts run: how many at once, for how long an agent and each reward may run (seconds), and how often
    infrastructure failures are tried again."""

    concurrency: int = 64
    timeout: float = 300.0
    reward_timeout: float = 60.0
    retries: int = 2


class Config(Section):
    """A training run. ``algorithm`` is ``name`` and the algorithm's own options.

    ``train`` are name patterns of the agents that are trained; ``prompts`` maps an agent's name (or pattern) to
    what takes the place of its system prompt.
    """

    agent: str
    tasks: str | TasksConfig
    algorithm: dict[str, Any]
    reward: str | RewardConfig | list[str | RewardConfig] = []
    train: list[str] = msgspec.field(default_factory=lambda: ["*"])
    prompts: dict[str, str] = {}
    runner: RunnerConfig = msgspec.field(default_factory=RunnerConfig)
    store: str = "sqlite:///runs/agentlightning.db"
    directory: str = "runs"
    name: str | None = None
    seed: int = 0


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-5`` as a string; here it is a number, as everybody who writes it means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """YAML → plain values. Raises `ConfigError` with line and column."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Reads a config file; ``overrides`` are ``a.b=value`` strings, values in YAML.

    Raises `ConfigError` naming the file, the path in it and what to do.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no config file at {path}: `agl init module:attribute` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    return decode_section(values, Config, where=str(path))


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: expected a.b=value")
    value = parse_yaml(text, f"--set {path}")
    *parents, last = path.split(".")
    target: Any = values
    for depth, key in enumerate(parents):
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {path}: {'.'.join(parents[: depth + 1])} is no section, but {target!r}")
    target[last] = value


def decode_section(values: Any, kind: type[T], *, at: str = "", where: str = "") -> T:
    """Plain values → a typed struct. ``at`` is the path of the section, for the errors.

    Raises `ConfigError`: ``algorithm.lr: expected float, got str``.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        message = _explain(str(error), kind, at)
        raise ConfigError(f"{where}: {message}" if where else message) from error


def _explain(message: str, kind: type, at: str) -> str:
    text, _, location = message.partition(" - at `$")
    inner = location.rstrip("`").strip(".")
    path = ".".join(part for part in (at, inner) if part)
    unknown = re.fullmatch(r"Object contains unknown field `(.+)`", text)
    if unknown:
        valid = _keys_at(kind, inner)
        key = f"{path}.{unknown[1]}" if path else unknown[1]
        near = difflib.get_close_matches(unknown[1], valid, n=1)
        hint = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(sorted(valid))}"
        return f"{key}: unknown key; {hint}"
    missing = re.fullmatch(r"Object missing required field `(.+)`", text)
    if missing:
        return f"{f'{path}.' if path else ''}{missing[1]}: missing, and there is no default"
    return f"{path or 'config'}: {text[:1].lower()}{text[1:]}".replace("`", "")


def _keys_at(kind: Any, path: str) -> list[str]:
    for part in filter(None, re.split(r"[.\[\]]+", path)):
        structs = _structs_in(kind)
        if part == "...":
            continue
        kind = next((hints[part] for hints in map(typing.get_type_hints, structs) if part in hints), kind)
    return [field.encode_name for struct in _structs_in(kind) for field in msgspec.structs.fields(struct)]


def _structs_in(kind: Any) -> list[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [struct for part in typing.get_args(kind) for struct in _structs_in(part)]
