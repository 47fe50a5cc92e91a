"""Numbers in running text: signs, thousands commas, fractions, currencies, percents, scale words, units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Unit(NamedTuple):
    """What is measured, and how many of its base unit one of these is."""

    dimension: str
    factor: float


NO_UNIT = Unit("", 1.0)


class Quantity(NamedTuple):
    """A number and its unit."""

    value: float
    unit: Unit


_UNITS = {
    "percent": {"% percent": 1.0},
    "dollar": {"$ dollar dollars usd": 1.0, "cent cents ¢": 0.01},
    "euro": {"€ euro euros eur": 1.0},
    "pound sterling": {"£ gbp": 1.0},
    "yen": {"¥ yen jpy": 1.0},
    "length": {
        "mm millimeter millimeters millimetre millimetres": 1e-3,
        "cm centimeter centimeters centimetre centimetres": 1e-2,
        "m meter meters metre metres": 1.0,
        "km kilometer kilometers kilometre kilometres": 1e3,
        "inch inches": 0.0254,
        "ft foot feet": 0.3048,
        "yd yard yards": 0.9144,
        "mi mile miles": 1609.344,
    },
    "mass": {
        "mg milligram milligrams": 1e-6,
        "g gram grams": 1e-3,
        "kg kilogram kilograms": 1.0,
        "oz ounce ounces": 0.028349523125,
        "lb lbs": 0.45359237,
    },
    "time": {
        "ms millisecond milliseconds": 1e-3,
        "s sec second seconds": 1.0,
        "min minute minutes": 60.0,
        "h hr hrs hour hours": 3600.0,
        "day days": 86400.0,
        "week weeks": 604800.0,
    },
    "volume": {"ml milliliter milliliters millilitre millilitres": 1e-3, "l liter liters litre litres": 1.0},
}
_UNIT_OF = {
    word: Unit(dimension, factor)
    for dimension, units in _UNITS.items()
    for words, factor in units.items()
    for word in words.split()
}
_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+"
_QUANTITY = re.compile(
    rf"""
    (?:(?<![\w.)])(?P<sign>[-+−])\s?)?
    (?P<currency>[$€£¥])?\s?
    (?:(?<=[$€£¥])(?P<inner_sign>[-−]))?
    (?<![\w.])
    (?:(?P<whole>\d+)\s+(?=\d+\s?/\s?\d))?
    (?P<number>{_NUMBER})
    (?:\s?/\s?(?P<denominator>\d+(?:\.\d+)?))?
    (?:\s?(?P<scale>{"|".join(_SCALES)})\b)?
    (?:[\s-]?(?P<unit>[%¢$€£¥]|[a-zA-Z]+\b))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def read_answer(text: str, markers: Sequence[str] = ()) -> Quantity | None:
    """The first number after the last marker, else the last number in the text; None where there is none.

    Markers are found in any case.
    """
    text = _FRACTION.sub(r"\1/\2", text).replace("\\$", "$").replace("\\%", "%")
    ends = [match.end() for marker in markers for match in re.finditer(re.escape(marker), text, re.IGNORECASE)]
    if ends:
        marked = read_quantities(text[max(ends) :])
        if marked:
            return marked[0]
    found = read_quantities(text)
    return found[-1] if found else None


def read_quantities(text: str) -> list[Quantity]:
    """Every number in the text, in order."""
    return [found for match in _QUANTITY.finditer(text) if (found := _quantity(match)) is not None]


def _quantity(match: re.Match[str]) -> Quantity | None:
    value = float(match["number"].replace(",", ""))
    if match["denominator"]:
        if not float(match["denominator"]):
            return None
        value = float(match["whole"] or 0) + value / float(match["denominator"])
    value *= _SCALES.get((match["scale"] or "").lower(), 1.0)
    if match["sign"] in ("-", "−") or match["inner_sign"]:
        value = -value
    unit = _UNIT_OF.get(match["currency"] or "") or _UNIT_OF.get((match["unit"] or "").lower(), NO_UNIT)
    return Quantity(value, unit)
