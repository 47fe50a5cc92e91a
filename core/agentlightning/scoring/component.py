"""One reward: how it is made from what a config names, how it is called, and what its values become."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from agentlightning.config import RewardConfig, decode_section, validated
from agentlightning.errors import ConfigError, PluginError, RewardError
from agentlightning.loading import explain, load
from agentlightning.plugins import Plugins
from agentlightning.recording import failure_of
from agentlightning.records import Failure, Record, Reward, Rollout, Span, Task
from agentlightning.reward_value import reward_value, shown

RewardLike = str | Callable[..., Any] | RewardConfig


class Call(Record, kw_only=True):
    """One call of a reward: with one rollout, or of a group reward with those of a group. ``spans[i]`` are those of
    ``rollouts[i]``."""

    rollouts: list[Rollout]
    task: Task
    spans: list[list[Span]]


class Scored(NamedTuple):
    """The rewards that a rollout was given, and a ``reward_error`` for each of them that should have a value."""

    rewards: list[Reward]
    failures: list[Failure]

    def add(self, more: Scored) -> None:
        """Takes in what another reward gave."""
        self.rewards.extend(more.rewards)
        self.failures.extend(more.failures)


class Component(Record, kw_only=True):
    """One reward function under its name; ``wants_spans`` when it takes spans as well, ``of_group`` when it takes the
    rollouts of a task together.

    ``spec`` makes the same one again in another process; None where it has no name to be imported by.
    """

    name: str
    weight: float
    function: Callable[..., Any]
    of_group: bool
    wants_spans: bool
    spec: RewardConfig | None
    in_process: bool

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(type(self.function).__call__)

    def call(self, call: Call) -> Any:
        """What the function gives: a value, or an awaitable of one."""
        subject, spans = (call.rollouts, call.spans) if self.of_group else (call.rollouts[0], call.spans[0])
        return self.function(subject, call.task, **({"spans": spans} if self.wants_spans else {}))

    def scored(self, value: Any, count: int) -> list[Scored]:
        """What the function gave, as the rewards of each of the ``count`` rollouts that it was called with."""
        if not self.of_group:
            return [self._scored(value)]
        try:
            values = [None] * count if value is None else _one_for_each(value, count)
        except Exception as error:  # noqa: BLE001 - a stranger's list may raise anything
            return [self.unscored(error) for _ in range(count)]
        return [self._scored(of_one) for of_one in values]

    def checked(self, scored: Scored, spans: Sequence[Span]) -> Scored:
        """The same, without a value for a step reward that names no span of its rollout: it would be given to whatever
        step happens to be the last."""
        ids = {span.id for span in spans}
        whole = Scored([], list(scored.failures))
        for reward in scored.rewards:
            if not reward.step or reward.span_id in ids:
                whole.rewards.append(reward)
                continue
            named = f"names the span {shown(reward.span_id)}, which its rollout has not" if reward.span_id else NO_SPAN
            whole.add(self.unscored(RewardError(f"{named}: take the id of one of its spans"), reward.name))
        return whole

    def unscored(self, error: BaseException, name: str | None = None) -> Scored:
        """No value, never zero in its place, because of an error."""
        name = name or self.name
        failure = failure_of(error)
        failure.type, failure.fault = "reward_error", "infrastructure"
        reason = failure.message if isinstance(error, RewardError) else f"{type(error).__name__}: {failure.message}"
        failure.message = f"reward {name!r} {reason if isinstance(error, RewardError) else f'raised {explain(error)}'}"
        return Scored([Reward(name=name, value=None, weight=self.weight, reason=reason)], [failure])

    def _scored(self, value: Any) -> Scored:
        try:
            parts = self._parts(value)
        except Exception as error:  # noqa: BLE001 - a stranger's mapping may raise anything
            return self.unscored(error)
        scored = Scored([], [])
        for name, part in parts:
            try:
                scored.rewards.append(self._reward(name, part))
            except Exception as error:  # noqa: BLE001 - a stranger's number may raise anything
                scored.add(self.unscored(error, name))
        return scored

    def _parts(self, value: Any) -> list[tuple[str, Any]]:
        """The components by name: of a dict ``name.key``, of a `Reward` ``name.its-own``."""
        rewards = [value] if isinstance(value, Reward) else value
        if isinstance(rewards, list | tuple) and all(isinstance(part, Reward) for part in rewards):
            return [(self._named(part.name), part) for part in rewards]
        if not isinstance(value, Mapping):
            return [(self.name, value)]
        if not value:
            raise RewardError("gave an empty dict: expected numbers by name, or None when it cannot score")
        return [(f"{self.name}.{key}", part) for key, part in value.items()]

    def _named(self, own: object) -> str:
        return self.name if own in ("", "reward", self.name) else f"{self.name}.{own}"

    def _reward(self, name: str, part: Any) -> Reward:
        reward = part if isinstance(part, Reward) else Reward(name=name, value=part)
        value, weight = reward_value(reward.value), reward_value(reward.weight)
        if weight is None:
            raise RewardError("gave no weight: expected a number")
        metrics = {str(key): reward_value(number) for key, number in reward.metrics.items()}
        reason = "the reward cannot score this rollout" if value is None else None
        return Reward(
            name=name,
            value=value,
            weight=self.weight * weight,
            step=bool(reward.step),
            span_id=None if reward.span_id is None else str(reward.span_id),
            at=reward.at,
            reason=reason if reward.reason is None else str(reward.reason),
            metrics={key: number for key, number in metrics.items() if number is not None},
        )


NO_SPAN = "is of a step and names no span"


def _one_for_each(values: Any, count: int) -> list[Any]:
    if isinstance(values, str | Mapping | Reward) or not isinstance(values, Iterable):
        raise RewardError(f"gave {type(values).__name__} {shown(values)}: expected a list, a value for each rollout")
    listed = list(values)
    if len(listed) != count:
        raise RewardError(f"gave {len(listed)} values for {count} rollouts: expected one for each, in their order")
    return listed


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
    of_group, wants_spans = _parameters(function, name)
    return Component(
        name=name,
        weight=1.0 if spec is None else spec.weight,
        function=function,
        of_group=of_group,
        wants_spans=wants_spans,
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


def _parameters(function: Callable[..., Any], name: str) -> tuple[bool, bool]:
    """Whether it takes a group's rollouts, and whether spans."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return False, False
    more: dict[str, Any] = {"spans": []} if "spans" in signature.parameters else {}
    try:
        signature.bind(None, None, **more)
    except TypeError as error:
        raise PluginError(
            f"reward {name!r} takes {signature}: expected (rollout, task) or (rollout, task, spans); with "
            "`rollouts` in the place of `rollout` it sees the rollouts of a task together"
        ) from error
    return next(iter(signature.parameters)) == "rollouts", bool(more)
