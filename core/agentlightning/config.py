"""One YAML file → typed structs, with errors that name the path and the nearest valid key."""

from __future__ import annotations

import difflib
import math
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml

from agentlightning import defaults
from agentlightning.errors import ConfigError

T = TypeVar("T")

# The ranges that a number of a config may have; every number is finite besides (`decode_section`).
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
BelowOne = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Weight = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of the config's sections: an unknown key is an error."""


class NoConfig(Section):
    """The config of a plugin that has no options."""


class TasksConfig(Section):
    """Where the tasks come from.

    Without ``held_out``, a fifth of ``train`` (at most 100 tasks) is held out by the run's seed.
    ``fields`` names the columns: ``{input: question, expected: answer}``.
    """

    train: str
    held_out: str | None = None
    limit: PositiveInt | None = None
    held_out_limit: PositiveInt | None = None
    fields: dict[str, str] = {}


class RewardConfig(Section):
    """One reward by name (or ``module:function``), its weight in the sum, and its own options.

    ``process`` runs it in a process of its own: for one that needs a main thread (signals), or may hold the
    interpreter's lock for long (a regular expression that backtracks). It sees the rollout as the store keeps it.
    """

    name: str
    weight: Weight = 1.0
    process: bool = False
    config: dict[str, Any] = {}


class RunnerConfig(Section):
    """How rollouts run: by which runner, how many at once, for how long an agent and each reward may run (seconds), and
    how often infrastructure failures are tried again. ``config`` are the runner's own options."""

    name: str = "local"
    concurrency: PositiveInt = 64
    timeout: Seconds = 300.0
    reward_timeout: Seconds = 60.0
    retries: NonNegativeInt = 2
    config: dict[str, Any] = {}


class PromoteConfig(Section):
    """What `agl promote` asks of a run before what it made goes into production.

    It is better where the mean of the held-out tasks' differences, at least ``minimum`` of them, is above 0, and the
    two-sided test of that has p ≤ ``alpha``; or else not worse by more than ``margin``, and cheaper. ``bounds`` are the
    least and the largest outcome that there may be. A canary is promoted after ``enough`` runs in which it was not
    found worse.
    """

    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.05
    margin: Positive = 0.02
    minimum: PositiveInt = 30
    bounds: tuple[Weight, Weight] = (0.0, 1.0)
    enough: PositiveInt = 500

    def __post_init__(self) -> None:
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds: expected the least outcome and the largest, got {list(self.bounds)}")


class CompareConfig(Section):
    """What `agl compare` compares, and how.

    ``algorithms`` are sections as ``algorithm`` is one, by the names that the table gives them; ``name`` is that name
    where a section does not say it. Which model is run, where and how (``model``, ``engine``, ``server``, ``backend``,
    ``temperature``) they take from ``algorithm`` where they do not say it, and all else where they are the algorithm
    that is named there.

    Each held-out task is run ``samples`` times, as often as ``algorithm.evaluate`` says by default. ``alpha`` bounds
    the probability that anything is called better where nothing is. ``prices`` are those of the models that the agents
    call by themselves, in dollars per million input and output tokens: ``{gpt-4o-mini: [0.15, 0.6]}``.
    """

    algorithms: dict[str, dict[str, Any]] = {}
    samples: PositiveInt | None = None
    alpha: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.05
    prices: dict[str, tuple[NonNegative, NonNegative]] = {}


class Config(Section):
    """A training run. ``algorithm`` is ``name`` and the algorithm's own options.

    ``train`` are name patterns of the agents that are trained; ``prompts`` maps an agent's name (or pattern) to
    what takes the place of its system prompt. ``prompts_from`` is a run in the same store whose published prompts and
    demonstrations the agents are given. ``budget`` is how many rollouts learning may cost, validation and branches
    among them; evaluations of the held-out tasks and the first rollout are not counted.
    """

    agent: str
    tasks: str | TasksConfig
    algorithm: dict[str, Any]
    reward: str | RewardConfig | list[str | RewardConfig] = []
    train: list[str] = msgspec.field(default_factory=lambda: ["*"])
    prompts: dict[str, str] = {}
    prompts_from: str | None = None
    budget: PositiveInt | None = None
    runner: RunnerConfig = msgspec.field(default_factory=RunnerConfig)
    promote: PromoteConfig = msgspec.field(default_factory=PromoteConfig)
    compare: CompareConfig = msgspec.field(default_factory=CompareConfig)
    store: str = defaults.STORE
    directory: str = defaults.DIRECTORY
    name: str | None = None
    seed: Seed = 0


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
        location = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ConfigError(f"{location}: not valid YAML: {getattr(error, 'problem', None) or error}") from error


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

    Raises `ConfigError`: ``algorithm.lr: expected float, got str``, and for any number that is not finite.
    """
    for path, value in _numbers_in(values, at):
        if not math.isfinite(value):
            message = f"{path or 'config'}: expected a finite number, got {value}"
            raise ConfigError(f"{where}: {message}" if where else message)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        message = _explain(str(error), values, kind, at)
        raise ConfigError(f"{where}: {message}" if where else message) from error


def validated(config: T, *, at: str) -> T:
    """A config that was made in Python, where nothing has checked its values. Raises `ConfigError` as
    `decode_section` does. One that holds objects, which no file can, is as it was made."""
    try:
        values = msgspec.to_builtins(config)
    except TypeError:
        return config
    return decode_section(values, type(config), at=at)


def changed_keys(config: msgspec.Struct) -> list[str]:
    """The keys of a config that do not have their default; one without a default always has none."""
    return [
        field.encode_name
        for field in msgspec.structs.fields(type(config))
        if getattr(config, field.name)
        != (field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
    ]


def refuse_without_effect(keys: Iterable[str], unused: Mapping[str, str], *, at: str) -> None:
    """Raises `ConfigError` for a key that is among the unused, which say when they are not."""
    for key in keys:
        if key in unused:
            raise ConfigError(f"{at}.{key}: has an effect only where {unused[key]}; leave it out")


def _numbers_in(values: Any, path: str) -> Iterator[tuple[str, float]]:
    """Every float in plain values, with its path."""
    if isinstance(values, float):
        yield path, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _numbers_in(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _numbers_in(value, f"{path}[{index}]")


def _explain(message: str, values: Any, kind: type, at: str) -> str:
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
    sentence = f"{path or 'config'}: {text[:1].lower()}{text[1:]}".replace("`", "")
    return sentence if ", got " in sentence else f"{sentence}, got {_value_at(values, inner)!r}"


def _value_at(values: Any, path: str) -> Any:
    for part in filter(None, re.split(r"[.\[\]]+", path)):
        values = values[int(part) if isinstance(values, list | tuple) else part]
    return values


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


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with those of ``over`` in their place, sections key by key."""
    result = dict(values)
    for key, value in over.items():
        known = result.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        result[key] = merged(known, value) if both else value  # type: ignore[arg-type]
    return result
