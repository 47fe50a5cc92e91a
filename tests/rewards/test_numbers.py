"""Numbers: how they may be written, and how near is right."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worth import worth

from agentlightning.errors import ConfigError
from agentlightning_rewards.quantities import read_answer

NAN = float("nan")


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("12345679", 12345678, 0.0),
        ("12345678", 12345678, 1.0),
        ("12,345,679", "12345678", 0.0),
        ("123456789012345678901", 123456789012345678900, 0.0),
        ("123456789012345678900", 123456789012345678900, 1.0),
        ("12345679.0", 12345678, 0.0),
        ("12345679", 12345678.0, 0.0),
        ("12345678.0", 12345678, 1.0),
        ("12345678.4", 12345678, 0.0),
        ("1234567.89", 1234567.98, 0.0),
        ("1200001", "1.2 million", 0.0),
        ("1.2345679e7", 12345678, 0.0),
        ("12345679%", "12345678%", 0.0),
        ("12345679 km", "12345678000 m", 0.0),
        ("1000001", 1000000, 0.0),
        ("-12345679", -12345678, 0.0),
        ("1", 0, 0.0),
        ("0.0000001", 0, 0.0),
    ],
)
async def test_one_integer_is_not_another_however_large(output: Any, expected: Any, value: float) -> None:
    assert await worth("numeric_match", output, expected) == value


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        (0.1 + 0.2, 0.3, 1.0),
        ("4.999999999", 5, 1.0),
        (1 / 3, "1/3", 1.0),
        ("0.333", "1/3", 0.0),
        ("0.3333333", "1/3", 1.0),
        ("3.14", "3.1416", 0.0),
        ("3.14159265", "3.1416", 0.0),
        ("2.49", "2.5", 0.0),
        ("2.50", "2.5", 1.0),
        ("1e-9", "2e-9", 0.0),
        ("1.0000001e-9", "1e-9", 1.0),
        ("33.3%", 0.333, 1.0),
        ("1.609344 km", "1 mile", 1.0),
        ("1 inch", "2.54 cm", 1.0),
    ],
)
async def test_a_fraction_may_cost_rounding(output: Any, expected: Any, value: float) -> None:
    assert await worth("numeric_match", output, expected) == value


@pytest.mark.parametrize(
    ("config", "value"),
    [({"tolerance": 1}, 1.0), ({"relative_tolerance": 1e-6}, 1.0), ({"tolerance": 0.5}, 0.0), ({}, 0.0)],
)
async def test_a_tolerance_that_is_asked_for_holds_for_integers_too(config: dict[str, Any], value: float) -> None:
    assert await worth("numeric_match", "12345679", 12345678, **config) == value


@pytest.mark.parametrize("config", [{"tolerance": -1}, {"relative_tolerance": NAN}, {"tolerance": float("inf")}])
async def test_a_tolerance_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        await worth("numeric_match", "1", 1, **config)


WRITTEN = {
    "1{,}234": 1234,
    "10,\\!000": 10_000,
    "10\\,000": 10_000,
    "10~000": 10_000,
    "$1{,}234{,}567.5$": Fraction("1234567.5"),
    "1,234": 1234,
    "1 234": 1234,
    "1 234 567.25": Fraction("1234567.25"),
    "1\u00a0234": 1234,
    "1\u202f234": 1234,
    "1'234": 1234,
    "1’234.5": Fraction("1234.5"),
    "1_234": 1234,
    "1.234,5": Fraction("1234.5"),
    "1.234.567": 1234567,
    "1.234": Fraction("1.234"),
    "12,34,567": 1234567,
    "1,234,567": 1234567,
    "\\boxed{42}": 42,
    "\\boxed{-42}": -42,
    "\\boxed{- 42}": -42,
    "$\\boxed{1{,}000}$": 1000,
    "\\boxed{\\text{about }7}": 7,
    "\\frac{1}{2}": Fraction(1, 2),
    "\\dfrac{1}{2}": Fraction(1, 2),
    "-\\tfrac{3}{4}": Fraction(-3, 4),
    "\\frac{-3}{4}": Fraction(-3, 4),
    "\\frac12": Fraction(1, 2),
    "\\frac { 1 } { 2 }": Fraction(1, 2),
    "3/4": Fraction(3, 4),
    "-3/4": Fraction(-3, 4),
    "1 1/2": Fraction(3, 2),
    "-1 1/2": Fraction(-3, 2),
    "½": Fraction(1, 2),
    "1½": Fraction(3, 2),
    "3⁄4": Fraction(3, 4),
    "$5$": 5,
    "$x = 5$": 5,
    "\\(5\\)": 5,
    "\\[ 5 \\]": 5,
    "1e5": 100_000,
    "1E+5": 100_000,
    "1.5e-3": Fraction("0.0015"),
    "1.5 \\times 10^{3}": 1500,
    "1.5 × 10^3": 1500,
    "1.5 \\cdot 10^{-3}": Fraction("0.0015"),
    "2*10^3": 2000,
    "6.02 × 10²³": 602 * 10**21,
    "10^5": 100_000,
    "10⁻²": Fraction(1, 100),
    "−5": -5,
    "–5": -5,
    "-5": -5,
    "－５": -5,
    "４２": 42,
    "+5": 5,
    "x = - 5": -5,
    "10 - 4": 4,
    "10-4": 4,
    "10 – 4": 4,
    "From 3 to 5": 5,
    "- 5 apples\n- 7 pears": 7,
    "-$5": -5,
    "$-5": -5,
    "$1,234.50": Fraction("1234.5"),
    "in 2019 100": 100,
    ".5": Fraction(1, 2),
    "5.": 5,
    "5.)": 5,
    "**5**": 5,
    "`5`": 5,
}


@pytest.mark.parametrize("text", WRITTEN)
def test_how_a_number_may_be_written(text: str) -> None:
    found = read_answer(text, ("\\boxed{",))
    assert found is not None
    assert found.value == WRITTEN[text]


@pytest.mark.parametrize("text", ["", "none", "3/0", "1e999999999", "9" * 100_000, "nan", "inf", "v2x", "$"])
def test_what_is_no_number(text: str) -> None:
    assert read_answer(text) is None


@given(
    st.integers(-(10**30), 10**30),
    st.sampled_from(["{:d}", "{:,d}", "{:_d}", "${:d}$", "\\boxed{{{:d}}}", "**{:,d}**"]),
)
def test_an_integer_is_read_as_it_is(number: int, form: str) -> None:
    found = read_answer(form.format(number), ("\\boxed{",))
    assert found is not None
    assert (found.value, found.resolution) == (number, 0)


@given(st.text(alphabet="0123456789 .,/-+$%\\{}^eE×½²frac\n", max_size=60))
def test_whatever_the_text_it_is_read(text: str) -> None:
    read_answer(text, ("\\boxed{",))


@pytest.mark.parametrize("unit", ["1 ", "1,", "1 1/", "$", "\\frac", "- ", "10^", "(", "9"])
def test_a_long_text_is_read_in_one_go(unit: str) -> None:
    """Nothing here backtracks: 200,000 characters would not end."""
    read_answer(unit * (200_000 // len(unit)), ("\\boxed{",))


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("4", 4.0, 1.0),
        ("4.0", 4, 1.0),
        ("4.00", 4, 1.0),
        (4.0, 4, 1.0),
        (4, 4.0, 1.0),
        (4.0, "4", 1.0),
        ("0.1", 0.1, 1.0),
        ("1e3", 1000, 1.0),
        ("−4", -4, 1.0),
        (" 4 ", 4.0, 1.0),
        ("４", 4, 1.0),
        ("5", 4.0, 0.0),
        ("4 apples", 4, 0.0),
        ("12345679", 12345678, 0.0),
        ("9007199254740993", 9007199254740992, 0.0),
        ("4.0", "4", 0.0),
        ("four", 4, 0.0),
        ("nan", 4, 0.0),
        (None, 4, 0.0),
        ("4", [3, 4.0], 1.0),
    ],
)
async def test_exact_match_compares_numbers_as_numbers(output: Any, expected: Any, value: float) -> None:
    assert await worth("exact_match", output, expected) == value


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("true", True, 1.0),
        ("True", True, 1.0),
        (True, True, 1.0),
        (False, "false", 1.0),
        ("False", True, 0.0),
        ("1", True, 0.0),
        (1, True, 0.0),
        (True, 1, 0.0),
    ],
)
async def test_exact_match_takes_a_truth_value_by_its_word(output: Any, expected: Any, value: float) -> None:
    assert await worth("exact_match", output, expected, ignore_case=False) == value


MISSING = [None, "", "  ", NAN, [], [None], ["", NAN], ()]


@pytest.mark.parametrize("expected", MISSING, ids=repr)
@pytest.mark.parametrize("output", ["Paris", "", None, "4", NAN], ids=repr)
@pytest.mark.parametrize(
    ("name", "config"),
    [("exact_match", {}), ("numeric_match", {}), ("regex", {"pattern": "(.*)", "group": 1})],
)
async def test_what_is_not_expected_is_not_scored(
    output: Any, expected: Any, name: str, config: dict[str, Any]
) -> None:
    assert await worth(name, output, expected, **config) is None


@pytest.mark.parametrize(
    ("name", "config"),
    [("numeric_match", {}), ("regex", {"pattern": r"\d+", "group": 0}), ("exact_match", {})],
)
@pytest.mark.parametrize(("output", "value"), [("7", 1.0), ("8", 1.0), ("9", 0.0)])
async def test_one_of_a_list_is_enough(output: Any, value: float, name: str, config: dict[str, Any]) -> None:
    assert await worth(name, output, [7, None, "8"], **config) == value
