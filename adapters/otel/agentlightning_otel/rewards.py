"""Evaluations → rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from agentlightning import semconv
from agentlightning.records import Reward
from agentlightning_otel import conventions as names

_OPENINFERENCE = ("evaluations", "annotations", "trace.evaluations", "trace.annotations")


def is_evaluation(told: Mapping[str, Any]) -> bool:
    """Whether attributes tell a score, or that there could be none. A label alone is no number."""
    scored = told.get(semconv.EVALUATION_SCORE) is not None or told.get(semconv.ERROR_TYPE) is not None
    return bool(told.get(semconv.EVALUATION_NAME)) and scored


def only_evaluates(attributes: Mapping[str, Any]) -> bool:
    """Whether a span is there for its evaluation alone, as where an event is sent as a span."""
    return is_evaluation(attributes) and names.meaning(attributes)[0] == "annotation"


def reward_of(told: Mapping[str, Any], *, at: float) -> Reward:
    """The reward; its value is None where the score is no finite number."""
    reasons = [told.get(names.EVALUATION_LABEL), told.get(semconv.EVALUATION_EXPLANATION), told.get(semconv.ERROR_TYPE)]
    weight = _finite(told.get(names.REWARD_WEIGHT))
    return Reward(
        name=str(told[semconv.EVALUATION_NAME]),
        value=_finite(told.get(semconv.EVALUATION_SCORE)),
        weight=1.0 if weight is None else weight,
        step=told.get(names.REWARD_STEP) is True,
        at=at,
        reason=": ".join(str(reason) for reason in reasons if reason) or None,
    )


def rewards_in(attributes: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Evaluations among a span's own attributes, by their GenAI names."""
    if is_evaluation(attributes):
        yield {name: value for name, value in attributes.items() if name != semconv.ERROR_TYPE}
    for prefix in _OPENINFERENCE:
        word = prefix.rpartition(".")[2].removesuffix("s")
        for item in names.family(attributes, prefix):
            told = item.get(word) if isinstance(item, dict) else None
            if isinstance(told, dict) and told.get("name") and told.get("score") is not None:
                yield {
                    semconv.EVALUATION_NAME: told["name"],
                    semconv.EVALUATION_SCORE: told["score"],
                    names.EVALUATION_LABEL: told.get("label"),
                    semconv.EVALUATION_EXPLANATION: told.get("explanation"),
                }


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
