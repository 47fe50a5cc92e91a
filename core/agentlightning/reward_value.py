"""What counts as the value of a reward."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import Any

from agentlightning.errors import RewardError

LARGEST_REWARD = 1e12
"""More is a mistake: training computes in float32, where the norm of a gradient so many times larger is infinite."""


def reward_value(value: Any) -> float | None:
    """A number as a float, None as None: cannot be scored. Raises `RewardError` for anything else, and for a number
    that is not finite or larger than `LARGEST_REWARD`."""
    if value is None:
        return None
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a scalar of numpy or torch
        value = value.item()
    if not isinstance(value, Real | Decimal):
        raise RewardError(
            f"gave {type(value).__name__} {shown(value)}: expected a number, a dict of numbers, a Reward or several, "
            "or None"
        )
    try:
        number = float(value)
    except (OverflowError, ValueError):  # an integer of 400 digits; a signalling NaN
        number = math.inf
    if not math.isfinite(number):
        raise RewardError(f"gave {shown(value)}: expected a finite number, or None when it cannot score")
    if abs(number) > LARGEST_REWARD:
        raise RewardError(
            f"gave {shown(value)}: expected a number of at most {LARGEST_REWARD:g}, either way; scale or clip it"
        )
    return number


def shown(value: Any) -> str:
    """A value for a message: short, and whatever its ``__repr__`` does."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an integer of 5,000 digits has none, and a stranger's may raise anything
        return f"({type(value).__name__} without a repr)"
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
