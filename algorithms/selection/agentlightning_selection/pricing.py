"""What a unit of outcome may cost, and the front that sweeping this price draws. Pure.

A task goes to the model with the greatest predicted outcome − predicted dollars / price. The price is in dollars for a
unit of outcome: at 0 every task goes to the cheapest model, at infinity to the best one, whatever it costs.
"""

from __future__ import annotations

import math

import numpy as np

STEPS = 200


def route(outcomes: np.ndarray, costs: np.ndarray, price: float) -> np.ndarray:
    """The model of each task (N,), for predicted outcomes (N, M) and dollars (N, M)."""
    if price == 0:
        return np.asarray(np.argmin(costs, axis=1))
    return np.asarray(np.argmax(outcomes - costs / price, axis=1))


def prices(outcomes: np.ndarray, costs: np.ndarray) -> list[float]:
    """Prices from 0 to infinity between which choices change, `STEPS` of them, evenly on a logarithmic scale."""
    gaps = np.abs(costs - costs.min(axis=1, keepdims=True))
    gains = outcomes - np.take_along_axis(outcomes, np.argmin(costs, axis=1)[:, None], axis=1)
    changes = gaps[(gains > 0) & (gaps > 0)] / gains[(gains > 0) & (gaps > 0)]
    if not len(changes):
        return [0.0, math.inf]
    return [0.0, *np.geomspace(changes.min() / 2, np.quantile(changes, 0.999) * 2, STEPS).tolist(), math.inf]


def price_under(outcomes: np.ndarray, costs: np.ndarray, spent: np.ndarray, limit: float) -> float | None:
    """The greatest price at which the mean of the dollars (N, M) that were ``spent`` stays at or under a limit; None
    where even the cheapest models cost more."""
    rows = np.arange(len(outcomes))
    for price in reversed(prices(outcomes, costs)):
        if float(np.nanmean(spent[rows, route(outcomes, costs, price)])) <= limit:
            return price
    return None
