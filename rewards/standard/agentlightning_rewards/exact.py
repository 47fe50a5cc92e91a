"""Reward: the agent's answer is the expected text."""

from __future__ import annotations

import re
import string
import unicodedata

import msgspec

from agentlightning.errors import RewardError
from agentlightning.records import Rollout, Task
from agentlightning_rewards.text import output_text

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b", re.IGNORECASE)


class ExactMatchConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What does not count as a difference; white space and Unicode forms never do.

    With all three true this is the exact match of SQuAD (Rajpurkar et al. 2016, the official evaluation script).
    """

    ignore_case: bool = True
    ignore_punctuation: bool = False
    ignore_articles: bool = False


class ExactMatch:
    """1 when the answer is ``task.expected``, or one of them where it is a list; else 0.

    None when the task says nothing of what is expected.
    """

    Config = ExactMatchConfig

    def __init__(self, config: ExactMatchConfig) -> None:
        self._config = config

    def __call__(self, rollout: Rollout, task: Task) -> float | None:
        if task.expected is None:
            return None
        accepted = task.expected if isinstance(task.expected, list | tuple) else [task.expected]
        for expected in accepted:
            if not isinstance(expected, str | int | float):
                raise RewardError(f"exact_match: task {task.id} expects {expected!r}, which is neither text nor number")
        answer = self._normalise(output_text(rollout.output))
        return float(any(self._normalise(str(expected)) == answer for expected in accepted))

    def _normalise(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", text)
        if self._config.ignore_case:
            text = text.casefold()
        if self._config.ignore_punctuation:
            text = text.translate(_PUNCTUATION)
        if self._config.ignore_articles:
            text = _ARTICLE.sub(" ", text)
        return " ".join(text.split())
