"""Reward plugins composed: by name and weight, every component apart, every failure typed."""

from __future__ import annotations

import asyncio
import inspect
import math
import numbers
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agentlightning.config import RewardConfig, decode_section
from agentlightning.errors import ConfigError, PluginError, RewardError
from agentlightning.loading import explain
from agentlightning.plugins import Plugins
from agentlightning.recording import failure_of
from agentlightning.records import Failure, Record, Reward, Rollout, Span, Task

RewardLike = str | Callable[..., Any] | RewardConfig


class Component(Record, kw_only=True):
    """One reward function under its name; ``wants_spans`` when it takes the rollout's spans as well."""

    name: str
    weight: float
    function: Callable[..., Any]
    wants_spans: bool


class Scoring:
    """The rewards of a run. Each is a name, ``module:function``, a function, or any of these with a weight and
    options (`agentlightning.config.RewardConfig`).

    A reward is called as ``(rollout, task)``, or ``(rollout, task, spans)`` when it has a parameter of that
    name, and gives a number, a dict of numbers (components ``name.key``), or None: cannot be scored. A
    synchronous one runs in a thread. A class is made with its ``Config``, where it has one, and called the
    same way. Raises `PluginError` and `ConfigError` before anything runs.
    """

    def __init__(self, rewards: Sequence[RewardLike], plugins: Plugins) -> None:
        self._components: list[Component] = []
        seen: Counter[str] = Counter()
        for index, reward in enumerate(rewards):
            at = f"reward[{index}]" if len(rewards) > 1 else "reward"
            component = _make(reward, plugins, at)
            seen[component.name] += 1
            if seen[component.name] > 1:
                component.name = f"{component.name}-{seen[component.name]}"
            self._components.append(component)

    async def score(self, rollout: Rollout, task: Task, spans: Sequence[Span]) -> tuple[list[Reward], list[Failure]]:
        """What the rollout is worth, and a ``reward_error`` for each reward that raised, or gave what is no reward.

        The failed ones have the value None: never zero in its place.
        """
        scored = await asyncio.gather(*(_score(part, rollout, task, spans) for part in self._components))
        rewards = [reward for given, _ in scored for reward in given]
        return rewards, [failure for _, failures in scored for failure in failures]


async def _score(
    part: Component, rollout: Rollout, task: Task, spans: Sequence[Span]
) -> tuple[list[Reward], list[Failure]]:
    try:
        value = await _call(part, rollout, task, spans)
        if isinstance(value, Mapping) and not value:
            raise RewardError("gave an empty dict: expected numbers by name, or None when it cannot score")
    except Exception as error:  # noqa: BLE001 - whatever a reward raises is its failure
        return [_unscored(part, part.name, error)], [_failure(part.name, error)]
    values = (
        {f"{part.name}.{key}": one for key, one in value.items()} if isinstance(value, Mapping) else {part.name: value}
    )
    rewards, failures = [], []
    for name, one in values.items():
        try:
            number = _number(one)
        except RewardError as error:
            rewards.append(_unscored(part, name, error))
            failures.append(_failure(name, error))
        else:
            reason = "the reward cannot score this rollout" if number is None else None
            rewards.append(Reward(name=name, value=number, weight=part.weight, reason=reason))
    return rewards, failures


async def _call(part: Component, rollout: Rollout, task: Task, spans: Sequence[Span]) -> Any:
    more = {"spans": list(spans)} if part.wants_spans else {}
    if inspect.iscoroutinefunction(part.function):
        return await part.function(rollout, task, **more)
    value = await asyncio.to_thread(part.function, rollout, task, **more)
    return await value if isinstance(value, Awaitable) else value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise RewardError(f"gave {type(value).__name__} {value!r}: expected a number, a dict of numbers, or None")
    if not math.isfinite(value):
        raise RewardError(f"gave {value!r}: expected a finite number, or None when it cannot score")
    return float(value)


def _unscored(part: Component, name: str, error: Exception) -> Reward:
    return Reward(name=name, value=None, weight=part.weight, reason=f"{type(error).__name__}: {error}")


def _failure(name: str, error: Exception) -> Failure:
    failure = failure_of(error, type="reward_error", fault="infrastructure")
    failure.message = f"reward {name!r} {error if isinstance(error, RewardError) else f'raised {explain(error)}'}"
    return failure


def _make(reward: RewardLike, plugins: Plugins, at: str) -> Component:
    spec = reward if isinstance(reward, RewardConfig) else None
    target = reward if spec is None else spec.name
    found = plugins.reward(target) if isinstance(target, str) else target
    name = target.rpartition(":")[2] if isinstance(target, str) else _name_of(target)
    function = _configured(found, {} if spec is None else spec.config, name, at)
    return Component(
        name=name,
        weight=1.0 if spec is None else spec.weight,
        function=function,
        wants_spans=_wants_spans(function, name),
    )


def _name_of(function: Any) -> str:
    name = str(getattr(function, "__name__", type(function).__name__))
    return name if name.isidentifier() else "reward"


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
