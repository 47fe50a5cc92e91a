"""Reward: a regular expression finds its match in the agent's answer."""

from __future__ import annotations

import re

import msgspec

from agentlightning.errors import ConfigError
from agentlightning.records import Rollout, Task
from agentlightning_rewards.text import output_text


class RegexConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``pattern`` is searched in the answer (flags inline, ``(?i)``). With ``group``, a number or a name, what it
    captured must be ``task.expected``."""

    pattern: str
    group: int | str | None = None


class Regex:
    """1 when the pattern matches anywhere; with ``group`` when the last match captured what is expected; else 0.

    None when a group is compared and the task says nothing of what is expected.
    """

    Config = RegexConfig

    def __init__(self, config: RegexConfig) -> None:
        try:
            self._pattern = re.compile(config.pattern)
        except re.error as error:
            raise ConfigError(f"regex: pattern {config.pattern!r} is no regular expression: {error}") from error
        groups = [*range(self._pattern.groups + 1), *self._pattern.groupindex]
        if config.group is not None and config.group not in groups:
            raise ConfigError(f"regex: pattern {config.pattern!r} has no group {config.group!r}; it has {groups}")
        self._group = config.group

    def __call__(self, rollout: Rollout, task: Task) -> float | None:
        text = output_text(rollout.output)
        if self._group is None:
            return float(self._pattern.search(text) is not None)
        if task.expected is None:
            return None
        captured = [match.group(self._group) for match in self._pattern.finditer(text)]
        return float(bool(captured) and (captured[-1] or "").strip() == str(task.expected).strip())
