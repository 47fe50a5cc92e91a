"""Reward: a regular expression finds its match in the agent's answer."""

from __future__ import annotations

import msgspec

from agentlightning.answers import output_text
from agentlightning.errors import ConfigError
from agentlightning.records import Rollout, Task
from agentlightning_rewards.expected import accepted
from agentlightning_rewards.patterns import PatternError, compiled, matches


class RegexConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``pattern`` is searched in the answer (flags inline, ``(?i)``). With ``group``, a number or a name, what it
    captured must be ``task.expected``."""

    pattern: str
    group: int | str | None = None


class Regex:
    """1 when the pattern matches anywhere; with ``group`` when the last match captured what is expected, or one of it
    where it is a list; else 0.

    None when a group is compared and the task says nothing of what is expected. Raises `RewardError` when the pattern
    takes longer on the answer than `agentlightning_rewards.patterns.SECONDS`; other threads go on meanwhile.
    """

    Config = RegexConfig

    def __init__(self, config: RegexConfig) -> None:
        try:
            pattern = compiled(config.pattern)
        except PatternError as error:
            raise ConfigError(f"regex: {error}") from error
        groups = [*range(pattern.groups + 1), *pattern.groupindex]
        if config.group is not None and config.group not in groups:
            raise ConfigError(f"regex: pattern {config.pattern!r} has no group {config.group!r}; it has {groups}")
        self._pattern = config.pattern
        self._group = config.group

    def __call__(self, rollout: Rollout, task: Task) -> float | None:
        text = output_text(rollout.output)
        if self._group is None:
            return float(next(matches(self._pattern, text), None) is not None)
        expected = {str(one).strip() for one in accepted(task.expected)}
        if not expected:
            return None
        last = None
        for match in matches(self._pattern, text):
            last = match
        return float(last is not None and (last.group(self._group) or "").strip() in expected)
