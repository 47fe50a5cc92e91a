"""Scores and feedback → rewards: one for each name and step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from agentlightning.records import Reward


class Score(NamedTuple):
    """One score of an export. ``step`` is the source's id of what it is of; None: of the whole. Where ``value`` is None
    ``label`` is what it says."""

    name: str
    value: float | None
    step: str | None
    at: float | None
    source: str | None
    comment: str | None
    label: str | None = None

    @property
    def reason(self) -> str | None:
        """``ANNOTATION: polite and right``."""
        return ": ".join(part for part in (self.source, self.comment) if part) or None


def merged(scores: Iterable[Score], now: float) -> list[tuple[str | None, Reward]]:
    """What each score is of, and its reward: of several of one name, by several people say, their mean."""
    groups: dict[tuple[str, str | None], list[Score]] = {}
    for score in scores:
        if score.value is not None:
            groups.setdefault((score.name, score.step), []).append(score)
    return [(step, _reward(name, several, now)) for (name, step), several in groups.items()]


def _reward(name: str, scores: list[Score], now: float) -> Reward:
    values = [score.value for score in scores if score.value is not None]
    reasons = [score.reason for score in scores if score.reason is not None]
    if len(scores) > 1:
        reasons.insert(0, f"the mean of {len(scores)}")
    return Reward(
        name=name,
        value=math.fsum(values) / len(values),
        at=max((score.at for score in scores if score.at is not None), default=now),
        reason="; ".join(reasons) or None,
    )
