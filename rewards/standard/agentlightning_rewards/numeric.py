"""Reward: the agent's answer is the expected number, however it is written."""

from __future__ import annotations

import math

import msgspec

from agentlightning.records import Rollout, Task
from agentlightning_rewards.quantities import Quantity, read_answer
from agentlightning_rewards.text import output_text


class NumericMatchConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How near is right, and after which words the answer stands.

    A difference is forgiven up to ``tolerance`` (in the answer's unit) or up to ``relative_tolerance`` of the
    greater of the two numbers.
    """

    tolerance: float = 1e-9
    relative_tolerance: float = 1e-6
    markers: tuple[str, ...] = ("####", "\\boxed{", "answer:", "answer is")


class NumericMatch:
    """1 when the number in the answer is ``task.expected``, a number or text with one in it; else 0.

    The number is the first one after the last of the ``markers``, else the last one in the text. It may have
    thousands commas, a currency, a percent sign, a scale word, a unit, or be a fraction. Units of one dimension
    are converted, of two are unequal; a unit that only one side names is not compared; 50% equals 50 and 0.5.

    None when the task expects no number.
    """

    Config = NumericMatchConfig

    def __init__(self, config: NumericMatchConfig) -> None:
        self._config = config

    def __call__(self, rollout: Rollout, task: Task) -> float | None:
        expected = self._read(task.expected)
        if expected is None:
            return None
        answer = self._read(output_text(rollout.output))
        return float(answer is not None and any(self._near(one, other) for one, other in _compared(answer, expected)))

    def _read(self, value: object) -> Quantity | None:
        return None if value is None or isinstance(value, bool) else read_answer(str(value), self._config.markers)

    def _near(self, answer: float, expected: float) -> bool:
        return math.isclose(answer, expected, rel_tol=self._config.relative_tolerance, abs_tol=self._config.tolerance)


def _compared(answer: Quantity, expected: Quantity) -> list[tuple[float, float]]:
    """The pairs of values of which one must agree."""
    one, other = answer.unit, expected.unit
    percents = (one.dimension == "percent", other.dimension == "percent")
    if percents == (True, False):
        return [(answer.value, expected.value), (answer.value / 100, expected.value)]
    if percents == (False, True):
        return [(answer.value, expected.value), (answer.value, expected.value / 100)]
    if not one.dimension or not other.dimension:
        return [(answer.value, expected.value)]
    if one.dimension != other.dimension:
        return []
    return [(answer.value * one.factor / other.factor, expected.value)]
