"""examples/mathematics, and what its reward says of an answer."""

from __future__ import annotations

from typing import Any

from applications.example_copy import EXAMPLES, rollout

from agentlightning.plugins import plugins
from agentlightning.records import Task

FOLDER = EXAMPLES / "mathematics"


def numeric_match(said: str, expected: str) -> float | None:
    """What the reward of the configs says of an answer."""
    reward: Any = plugins().find("rewards", "numeric_match")
    value: float | None = reward(reward.Config())(rollout(said), Task(id="t", input="?", expected=expected))
    return value
