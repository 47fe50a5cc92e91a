"""What a unit of outcome may cost, and the front that it draws."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlightning_selection.front import Point, draw, on_front, write_table
from agentlightning_selection.pricing import price_under, prices, route

OUTCOMES = np.array([[0.9, 0.5, 0.1], [0.6, 0.6, 0.55], [0.7, 0.2, 0.1]])
COSTS = np.tile([0.01, 0.002, 0.001], (3, 1))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((40, 4)), rng.random((40, 4)) * 0.01


def test_a_price_of_nothing_takes_the_cheapest_and_one_without_limit_the_best() -> None:
    assert route(OUTCOMES, COSTS, 0.0).tolist() == [2, 2, 2]
    assert route(OUTCOMES, COSTS, math.inf).tolist() == [0, 0, 0]


def test_a_unit_of_outcome_is_bought_where_it_costs_no_more_than_its_price() -> None:
    """From the third model to the first: 0.009 dollars for 0.8, 0.05 and 0.6 of outcome."""
    assert route(OUTCOMES[:, [0, 2]], COSTS[:, [0, 2]], 0.014).tolist() == [0, 1, 1]
    assert route(OUTCOMES[:, [0, 2]], COSTS[:, [0, 2]], 0.016).tolist() == [0, 1, 0]


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_predicted_outcome_and_dollars_rise_with_the_price(seed: int) -> None:
    outcomes, costs = drawn(seed)
    rows = np.arange(len(outcomes))
    swept = [route(outcomes, costs, price) for price in prices(outcomes, costs)]
    for values in (outcomes, costs):
        means = [values[rows, chosen].mean() for chosen in swept]
        assert (np.diff(means) >= -1e-9).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), share=st.floats(0.05, 1))
def test_the_price_under_a_limit_keeps_to_it(seed: int, share: float) -> None:
    outcomes, costs = drawn(seed)
    rows = np.arange(len(outcomes))
    least, most = costs.min(axis=1).mean(), costs[rows, route(outcomes, costs, math.inf)].mean()
    limit = least + share * (most - least)
    price = price_under(outcomes, costs, costs, limit)
    assert price is not None
    assert costs[rows, route(outcomes, costs, price)].mean() <= limit


def test_no_price_keeps_to_a_limit_that_the_cheapest_exceeds() -> None:
    assert price_under(OUTCOMES, COSTS, COSTS, 0.0005) is None


def test_models_without_prices_have_nothing_to_weigh() -> None:
    assert prices(OUTCOMES, np.zeros_like(COSTS)) == [0.0, math.inf]
    assert price_under(OUTCOMES, COSTS * 0, COSTS * 0, 0.001) == math.inf


POINTS = [
    Point("dear", 0.8, 0.01),
    Point("worse and dearer", 0.7, 0.02),
    Point("cheap", 0.5, 0.001),
    Point("chosen by task", 0.78, 0.004, price=0.1),
    Point("as good as cheap, dearer", 0.5, 0.002),
    Point("never scored", math.nan, 0.0001),
]


def test_on_the_front_is_what_nothing_beats() -> None:
    assert [point.name for point in on_front(POINTS)] == ["cheap", "chosen by task", "dear"]


def test_the_table_says_what_is_on_the_front(tmp_path: Path) -> None:
    path = write_table({"training": POINTS[:3], "held out": POINTS[:2]}, tmp_path)
    rows = list(csv.DictReader(path.open()))
    assert [(row["tasks"], row["name"], row["on_front"]) for row in rows] == [
        ("training", "cheap", "True"),
        ("training", "dear", "True"),
        ("training", "worse and dearer", "False"),
        ("held out", "dear", "True"),
        ("held out", "worse and dearer", "False"),
    ]
    assert float(rows[0]["dollars"]) == pytest.approx(0.001)


def test_the_picture_is_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = draw(POINTS[:5], tmp_path, "Quality against cost")
    assert path is not None
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
