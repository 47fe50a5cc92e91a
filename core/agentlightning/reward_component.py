"""One reward: how it is made from what a config names, how it is called, and what its values become."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentlightning.config import RewardConfig, decode_section, validated
from agentlightning.errors import ConfigError, PluginError, RewardError
from agentlightning.loading import explain, load
from agentlightning.plugins import Plugins
from agentlightning.recording import failure_of
from agentlightning.records import Failure, Record, Reward, Rollout, Span, Task
from agentlightning.reward_value import reward_value

RewardLike = str | Callable[..., Any] | RewardConfig


class Scored(Record, kw_only=True):
    """The components that a reward gave, and a ``reward_error`` for each that has no value."""

    rewards: list[Reward]
    failures: list[Failure] = []


class Component(Record, kw_only=True):
    """One reward function under its name; ``wants_spans`` when it takes the rollout's spans as well.

    ``spec`` makes the same one again in another process; None where it has no name to be imported by.
    """

    name: str
    weight: float
    function: Callable[..., Any]
    wants_spans: bool
    spec: RewardConfig | None
    in_process: bool

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(type(self.function).__call__)

    def call(self, rollout: Rollout, task: Task, spans: Sequence[Span]) -> Any:
        """What the function gives: a value, or an awaitable of one."""
        more = {"spans": list(spans)} if self.wants_spans else {}
        return self.function(rollout, task, **more)

    def scored(self, value: Any) -> Scored:
        """A value as rewards: a dict of numbers is a component for each key."""
        try:
            if not isinstance(value, Mapping):
                values = {self.name: value}
            elif not value:
                raise RewardError("gave an empty dict: expected numbers by name, or None when it cannot score")
            else:
                values = {f"{self.name}.{key}": one for key, one in value.items()}
        except Exception as error:  # noqa: BLE001 - a stranger's mapping may raise anything
            return self.unscored(error)
        parts = [self._part(name, one) for name, one in values.items()]
        return Scored(
            rewards=[reward for reward, _ in parts], failures=[failure for _, failure in parts if failure is not None]
        )

    def unscored(self, error: BaseException, name: str | None = None) -> Scored:
        """No value, never zero in its place, because of an error."""
        name = name or self.name
        failure = failure_of(error)
        failure.type, failure.fault = "reward_error", "infrastructure"
        reason = failure.message if isinstance(error, RewardError) else f"{type(error).__name__}: {failure.message}"
        failure.message = f"reward {name!r} {reason if isinstance(error, RewardError) else f'raised {explain(error)}'}"
        return Scored(
            rewards=[Reward(name=name, value=None, weight=self.weight, reason=reason)],
            failures=[failure],
        )

    def _part(self, name: str, value: Any) -> tuple[Reward, Failure | None]:
        try:
            number = reward_value(value)
        except Exception as error:  # noqa: BLE001 - a stranger's number may raise anything
            unscored = self.unscored(error, name)
            return unscored.rewards[0], unscored.failures[0]
        reason = "the reward cannot score this rollout" if number is None else None
        return Reward(name=name, value=number, weight=self.weight, reason=reason), None


def make_component(reward: RewardLike, plugins: Plugins, at: str) -> Component:
    """The component that a config, a name or a function stands for. ``at`` is its path, for the errors.

    Raises `PluginError` and `ConfigError`.
    """
    if callable(reward):
        spec, found, name = _spec_of(reward), reward, _name_of(reward)
    else:
        spec = RewardConfig(name=reward) if isinstance(reward, str) else validated(reward, at=at)
        found, name = plugins.find("rewards", spec.name), spec.name.rpartition(":")[2]
    function = _configured(found, {} if spec is None else spec.config, name, at)
    return Component(
        name=name,
        weight=1.0 if spec is None else spec.weight,
        function=function,
        wants_spans=_wants_spans(function, name),
        spec=spec,
        in_process=spec is not None and spec.process,
    )


def _name_of(function: Any) -> str:
    name = str(getattr(function, "__name__", type(function).__name__))
    return name if name.isidentifier() else "reward"


def _spec_of(function: Any) -> RewardConfig | None:
    """Its ``module:function``, by which another process can import it; None where there is none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    try:
        return RewardConfig(name=f"{module}:{name}") if load(f"{module}:{name}") is function else None
    except ConfigError:
        return None


def _configured(found: Any, config: Mapping[str, Any], name: str, at: str) -> Any:
    if not callable(found):
        raise PluginError(f"{at}: {name!r} is {found!r}: expected a function or a class")
    if not isinstance(found, type):
        if config:
            raise ConfigError(f"{at}.config: the reward {name!r} is a function and takes no config")
        return found
    kind = getattr(found, "Config", None)
    if kind is None and config:
        raise ConfigError(f"{at}.config: the reward {name!r} has no Config, so it takes no config")
    try:
        made = found() if kind is None else found(decode_section(config, kind, at=f"{at}.config"))
    except ConfigError:
        raise
    except Exception as error:
        raise PluginError(f"{at}: the reward {name!r} cannot be made: {explain(error)}") from error
    if not callable(made):
        raise PluginError(f"{at}: the reward {name!r} makes a {type(made).__name__}, which cannot be called")
    return made


def _wants_spans(function: Callable[..., Any], name: str) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return False
    more: dict[str, Any] = {"spans": []} if "spans" in signature.parameters else {}
    try:
        signature.bind(None, None, **more)
    except TypeError as error:
        raise PluginError(
            f"reward {name!r} takes {signature}: expected (rollout, task) or (rollout, task, spans)"
        ) from error
    return bool(more)
