"""The reward ``intermediate``: what the spans of a rollout say about its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from agentlightning.config import PositiveInt, Weight, refuse_without_effect
from agentlightning.errors import ConfigError, RewardError
from agentlightning.loading import load_function, nearest
from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning.reward_value import reward_value
from agentlightning_intermediate.shaping import (
    PROGRESS,
    bonus_rewards,
    chains,
    on_grid,
    potential_of,
    potential_rewards,
)
from agentlightning_intermediate.signals import SIGNALS, Occurrence, SignalOptions, occurrences
from agentlightning_intermediate.signals.sql import check_sqlglot
from agentlightning_intermediate.trace import Trace

AT = "intermediate"
DEFAULT_SIGNALS = ("tool_error", "tool_malformed", "tool_repeated", "answer_cut_off", "context_overflow")
DEFAULT_WEIGHT = -0.1

Discount = Annotated[float, msgspec.Meta(gt=0, le=1)]
Progress = Callable[[Rollout, Task, Span], Any]


class IntermediateConfig(SignalOptions, kw_only=True, forbid_unknown_fields=True):
    """``signals`` are those that count, by name, with their weights. Each counts at most ``most`` times in a rollout.

    ``shaping``: their sum is a ``potential``, whose differences are the step rewards; or each is a ``bonus``, and the
    step reward itself. ``gamma`` is the credit's: with another, the best policy need not stay the best. ``per_agent``
    gives the calls of each agent a potential of their own: where the credit takes each agent by itself.

    ``progress`` is a function ``module:function``, called as ``(rollout, task, span)`` for each call of a policy, that
    says how far the agent had come before the call: a number, and a potential beside the signals'. It is shown what was
    known by then: the call without its answer, the rollout without its end.
    """

    signals: dict[str, Weight] = msgspec.field(default_factory=lambda: dict.fromkeys(DEFAULT_SIGNALS, DEFAULT_WEIGHT))
    shaping: Literal["potential", "bonus"] = "potential"
    gamma: Discount = 1.0
    most: PositiveInt = 3
    per_agent: bool = False
    progress: str | None = None


class Intermediate:
    """A step reward for each call of a policy that a signal says something about, named by the signal, with a reason
    (`agentlightning_intermediate.signals`, `agentlightning_intermediate.shaping`).

    Raises `ConfigError` for a signal that is not there, and for an option that changes nothing; `RewardError` where
    ``progress`` gives what is no number.
    """

    Config = IntermediateConfig

    def __init__(self, config: IntermediateConfig) -> None:
        _check_signals(config)
        _check_effects(config)
        if "sql_invalid" in config.signals:
            check_sqlglot(config.sql_dialect)
        self._config = config
        self._progress = None if config.progress is None else _function(config.progress)

    def __call__(self, rollout: Rollout, task: Task, spans: Sequence[Span]) -> list[Reward]:
        trace = Trace(rollout, spans)
        found = {name: occurrences(name, trace, self._config) for name in self._config.signals}
        rewards = []
        for chain in chains(trace, per_agent=self._config.per_agent):
            for name in found:
                rewards += self._of_signal(name, found[name], chain)
            if self._progress is not None:
                rewards += self._of_progress(self._progress, rollout, task, chain)
        return rewards

    def _of_signal(self, name: str, found: Sequence[Occurrence], chain: Sequence[Span]) -> list[Reward]:
        config, weight = self._config, self._config.signals[name]
        if config.shaping == "bonus":
            return bonus_rewards(name, chain, found, weight, config.most)
        return potential_rewards(name, chain, potential_of(found, chain, weight, config.most), config.gamma, found)

    def _of_progress(self, progress: Progress, rollout: Rollout, task: Task, chain: Sequence[Span]) -> list[Reward]:
        """Relative to the first call of the chain, where a potential is 0."""
        unfinished = msgspec.structs.replace(rollout, output=None, rewards=[], failure=None, ended_at=None)
        values = [_number(progress(unfinished, task, _unanswered(call)), call) for call in chain]
        potential = [on_grid(value - values[0]) for value in values]
        return potential_rewards(PROGRESS, chain, potential, self._config.gamma)


def _number(value: Any, call: Span) -> float:
    number = reward_value(value)
    if number is None:
        raise RewardError(f"has no progress for the span {call.id}: expected a number")
    return number


def _unanswered(call: Span) -> Span:
    """A call as it was before it was answered."""
    generation = call.generation and msgspec.structs.replace(
        call.generation, response=None, finish_reason=None, usage=None, response_ids=None, logprobs=None
    )
    return msgspec.structs.replace(call, generation=generation, ended_at=None, failure=None)


def _check_signals(config: IntermediateConfig) -> None:
    for name, weight in config.signals.items():
        at = f"{AT}: signals.{name}"
        if name not in SIGNALS:
            raise ConfigError(f"{at}: there is no such signal{nearest(name, SIGNALS)}")
        if not on_grid(weight):
            raise ConfigError(f"{at}: the weight {weight:g} has no effect: leave the signal out")
        if SIGNALS[name].at_the_end and config.shaping == "potential":
            raise ConfigError(
                f"{at}: is known only at the end of a rollout, where a potential is 0: it has an effect only with "
                "shaping: bonus"
            )
    if not config.signals and config.progress is None:
        raise ConfigError(f"{AT}: signals: expected a signal, or a function for progress; there is neither")


def _check_effects(config: IntermediateConfig) -> None:
    """Raises `ConfigError` for what was set, and changes nothing."""
    unused: dict[str, str] = {}
    if config.shaping == "bonus":
        unused |= dict.fromkeys(("gamma", "progress", "per_agent"), "shaping is potential")
    if not config.signals:
        unused["most"] = "there are signals"
    read = {option for name in config.signals for option in SIGNALS[name].options}
    for option in SignalOptions.__struct_fields__:
        if option not in read:
            readers = [name for name, signal in SIGNALS.items() if option in signal.options]
            unused[option] = f"signals has {' or '.join(readers)}"
    refuse_without_effect(_set_fields(config), unused, at=AT)


def _set_fields(config: IntermediateConfig) -> list[str]:
    """The fields that are not as they are by default."""
    usual: Mapping[str, Any] = msgspec.structs.asdict(IntermediateConfig())
    return [name for name, value in msgspec.structs.asdict(config).items() if value != usual[name]]


def _function(target: str) -> Progress:
    try:
        return load_function(target, "a rollout", "a task", "an llm span")
    except ConfigError as error:
        raise ConfigError(f"{AT}: progress: {error}") from error
