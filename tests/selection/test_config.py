"""The numbers of a selection: each has a range, those of a candidate too."""

from __future__ import annotations

from typing import Any

import pytest
from config_numbers import numbers_of, outside, section

from agentlightning.config import decode_section
from agentlightning.errors import ConfigError
from agentlightning_selection.algorithm import Selection
from agentlightning_selection.config import CONFIGS, Candidate

NUMBERS = [(kind, *number) for kind in (Candidate, *CONFIGS.values()) for number in numbers_of(kind)]
TWO = [{"model": "a"}, {"model": "b"}]
REQUIRED: dict[Any, Any] = {
    Candidate: {"model": "m"},
    **{kind: {"strategy": name, "candidates": TWO, "budget": 50} for name, kind in CONFIGS.items()},
}
WRONG = [(kind, text, path, value) for kind, text, path, number in NUMBERS for value in outside(number)]


def test_every_number_has_a_range() -> None:
    for _, text, _, number in NUMBERS:
        assert (number.ge, number.gt) != (None, None), text


@pytest.mark.parametrize(("kind", "text", "path", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(kind: Any, text: str, path: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_section({**REQUIRED[kind], **section(path, value)}, kind, at="algorithm")
    assert str(caught.value).startswith(f"algorithm.{text}: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "tompson"}, "algorithm.strategy: there is no strategy 'tompson'; did you mean 'thompson'?"),
        ({"strategy": "thompson", "minimum": 5}, "algorithm.minimum: unknown key"),
        ({"strategy": "successive_halving"}, "algorithm.budget: missing"),
        ({"strategy": "successive_halving", "budget": 1}, "algorithm.budget: expected at least 2 rollouts"),
        ({"budget": 1}, "algorithm.budget: expected at least 2 rollouts, for 2 candidates, got 1"),
        ({"strategy": "contextual", "budget": 9}, "algorithm.budget: expected at least 10 rollouts"),
        ({"margin": 0.1}, "algorithm.margin: has an effect only where objective is cheapest or fastest"),
        (
            {"objective": "fastest", "time_weight": 1.0},
            "algorithm.time_weight: has an effect only where objective is r",
        ),
        ({"strategy": "contextual", "alpha": 2.0}, "algorithm.alpha: has an effect only where learner is linucb"),
        (
            {"strategy": "contextual", "learner": "linucb", "cost_limit": 1.0},
            "algorithm.cost_limit: has an effect only where learner is nearest",
        ),
        (
            {"strategy": "contextual", "cost_limit": 1.0, "quality_price": 1.0},
            "algorithm.cost_limit: it finds the quality_price",
        ),
        ({"candidates": TWO[:1]}, "algorithm.candidates: expected at least 2 models, got 1"),
        ({"candidates": TWO[:1] * 2}, "algorithm.candidates: a is there twice"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Selection.from_section({"candidates": TWO, **options})
    assert str(caught.value).startswith(message)
