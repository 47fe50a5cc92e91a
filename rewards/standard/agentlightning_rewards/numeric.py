"""Reward: the agent's answer is the expected number, however it is written."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

import msgspec

from agentlightning.answers import output_text
from agentlightning.records import Rollout, Task
from agentlightning_rewards.expected import accepted
from agentlightning_rewards.quantities import Quantity, read_answer

Tolerance = Annotated[float, msgspec.Meta(ge=0, le=1e300)]
ROUNDING = Fraction(1, 10**6)
"""What arithmetic in binary may cost: relative, and in absolute terms beside an exact number."""


class NumericMatchConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How near is right, and after which words the answer stands.

    Beyond what rounding costs, a difference is forgiven up to ``tolerance`` (in the expected number's unit) or up to
    ``relative_tolerance`` of the greater of the two numbers.
    """

    tolerance: Tolerance = 0.0
    relative_tolerance: Tolerance = 0.0
    markers: tuple[str, ...] = ("####", "\\boxed{", "answer:", "answer is")


class NumericMatch:
    """1 when the number in the answer is ``task.expected``, a number or text with one in it, or one of a list; else 0.

    The number is the first one after the last of the ``markers``, else the last one in the text. It may have
    thousands separators, a currency, a percent sign, a scale word, a unit, be a fraction, or LaTeX. Units of one
    dimension are converted, of two are unequal; a unit that only one side names is not compared; 50% equals 50 and 0.5.

    Integers are compared exactly. Others agree when they differ by no more than a millionth of themselves, and by no
    more than half of the last digit that either has written.

    None when the task expects no number.
    """

    Config = NumericMatchConfig

    def __init__(self, config: NumericMatchConfig) -> None:
        self._markers = config.markers
        self._tolerance = Fraction(config.tolerance)
        self._relative = Fraction(config.relative_tolerance)

    def __call__(self, rollout: Rollout, task: Task) -> float | None:
        read = [self._read(one) for one in accepted(task.expected)]
        expected = [one for one in read if one is not None]
        if not expected:
            return None
        answer = read_answer(output_text(rollout.output), self._markers)
        return float(answer is not None and any(self._agree(answer, one) for one in expected))

    def _read(self, value: object) -> Quantity | None:
        return None if isinstance(value, bool | dict) else read_answer(str(value), self._markers)

    def _agree(self, answer: Quantity, expected: Quantity) -> bool:
        return any(self._near(one, other) for one, other in _compared(answer, expected))

    def _near(self, answer: Quantity, expected: Quantity) -> bool:
        one, other = answer.value, expected.value
        difference, size = abs(one - other), max(abs(one), abs(other))
        if difference <= self._tolerance or difference <= self._relative * size:
            return True
        if one.denominator == other.denominator == 1:
            return False
        return difference <= min(ROUNDING * size, max(answer.resolution / 2, expected.resolution / 2, ROUNDING))


def _compared(answer: Quantity, expected: Quantity) -> list[tuple[Quantity, Quantity]]:
    """The pairs of which one must agree, in one unit."""
    one, other = answer.unit, expected.unit
    percents = (one.dimension == "percent", other.dimension == "percent")
    if percents == (True, False):
        return [(answer, expected), (_times(answer, Fraction(1, 100)), expected)]
    if percents == (False, True):
        return [(answer, expected), (answer, _times(expected, Fraction(1, 100)))]
    if not one.dimension or not other.dimension:
        return [(answer, expected)]
    if one.dimension != other.dimension:
        return []
    return [(_times(answer, one.factor / other.factor), expected)]


def _times(quantity: Quantity, factor: Fraction) -> Quantity:
    return quantity._replace(value=quantity.value * factor, resolution=quantity.resolution * factor)
