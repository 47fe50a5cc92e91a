"""Reward: the agent's answer is the expected text, or number."""

from __future__ import annotations

import re
import string
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from agentlightning.answers import final_answer, output_text
from agentlightning.errors import RewardError
from agentlightning.records import Rollout, Task
from agentlightning_rewards.expected import accepted

_NUMBERS = (int, float, Decimal)
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b", re.IGNORECASE)
_MINUS = re.compile(r"^[−–](?=[\d.])")


class ExactMatchConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What does not count as a difference; white space and Unicode forms never do.

    With all three true this is the exact match of SQuAD (Rajpurkar et al. 2016, the official evaluation script).
    """

    ignore_case: bool = True
    ignore_punctuation: bool = False
    ignore_articles: bool = False


class ExactMatch:
    """1 when the answer is ``task.expected``, or one of them where it is a list; else 0.

    Where either is a number they are compared as numbers: ``4`` is 4.0. A truth value is ``true`` or ``false`` in any
    case. None when the task says nothing of what is expected. Raises `RewardError` where it is an object.
    """

    Config = ExactMatchConfig

    def __init__(self, config: ExactMatchConfig) -> None:
        self._config = config

    def __call__(self, rollout: Rollout, task: Task) -> float | None:
        expected = accepted(task.expected)
        for one in expected:
            if not isinstance(one, str | int | float | Decimal):
                raise RewardError(f"exact_match: task {task.id} expects {one!r}, which is neither text nor number")
        if not expected:
            return None
        answer = final_answer(rollout.output)
        return float(any(self._agree(answer, one) for one in expected))

    def _agree(self, answer: Any, expected: str | int | float | Decimal) -> bool:
        text, wanted = output_text(answer), str(expected)
        if isinstance(answer, bool) or isinstance(expected, bool):
            return _normal(text).casefold() == _normal(wanted).casefold()
        if isinstance(answer, _NUMBERS) or isinstance(expected, _NUMBERS):
            one, other = _number(text), _number(wanted)
            if one is not None and other is not None:
                return one == other
        return self._normalise(wanted) == self._normalise(text)

    def _normalise(self, text: str) -> str:
        text = _normal(text)
        if self._config.ignore_case:
            text = text.casefold()
        if self._config.ignore_punctuation:
            text = text.translate(_PUNCTUATION)
        if self._config.ignore_articles:
            text = _ARTICLE.sub(" ", text)
        return " ".join(text.split())


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(_MINUS.sub("-", _normal(text)))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
