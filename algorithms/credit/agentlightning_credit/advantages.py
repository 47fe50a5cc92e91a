"""Statistics within a set of calls or rollouts, and advantages written call by call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np

from agentlightning.training_rows import Group

Scale = Literal["group", "none"]
"""``group``: divided by the standard deviation of what it is compared with; ``none``: against its mean alone."""

EPS = 1e-6
"""What is added to a standard deviation, as in the sources of these credits."""


def standardized(
    values: np.ndarray, *, scale: Scale = "group", eps: float = EPS, ddof: Literal[0, 1] = 1
) -> np.ndarray:
    """Each value (N,) less their mean, and with ``scale`` ``group`` divided by their standard deviation + ``eps``.

    One value alone, and values that are all alike, give exactly 0.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return np.zeros(len(values))
    centred: np.ndarray = values - values.mean()
    return centred if scale == "none" else centred / (values.std(ddof=ddof) + eps)


def by_key(
    keys: Sequence[Hashable], values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray | float]
) -> np.ndarray:
    """``statistic`` of the values (N,) of each set of equal keys, in the places of its members: (N,)."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    result = np.zeros(len(values))
    for members in places.values():
        result[members] = statistic(values[members])
    return result


def set_advantages(group: Group, values: np.ndarray) -> None:
    """Gives each call of a group its own advantage, (C,): rollout by rollout, in the order in which they began."""
    calls = [pair for member in group.rollouts for pair in member.transitions]
    for (row, call), value in zip(calls, values, strict=True):
        row.set_advantage(call, float(value))
