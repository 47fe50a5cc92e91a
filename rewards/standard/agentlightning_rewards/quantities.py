"""Numbers in running text and in LaTeX, exactly: signs, thousands, fractions, powers of ten, currencies, percents,
scale words, units."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

LONGEST = 4000
"""Digits of a number, and the largest exponent: what is longer is no number here."""


class Unit(NamedTuple):
    """What is measured, and how many of its base unit one of these is."""

    dimension: str
    factor: Fraction


NO_UNIT = Unit("", Fraction(1))


class Quantity(NamedTuple):
    """A number and its unit. ``resolution`` is the worth of the last digit that was written: 0.01 for ``3.14``, 0 where
    the number is exact, as an integer or a fraction."""

    value: Fraction
    unit: Unit
    resolution: Fraction


_UNITS = {
    "percent": {"% percent": "1"},
    "dollar": {"$ dollar dollars usd": "1", "cent cents ¢": "0.01"},
    "euro": {"€ euro euros eur": "1"},
    "pound sterling": {"£ gbp": "1"},
    "yen": {"¥ yen jpy": "1"},
    "length": {
        "mm millimeter millimeters millimetre millimetres": "0.001",
        "cm centimeter centimeters centimetre centimetres": "0.01",
        "m meter meters metre metres": "1",
        "km kilometer kilometers kilometre kilometres": "1000",
        "inch inches": "0.0254",
        "ft foot feet": "0.3048",
        "yd yard yards": "0.9144",
        "mi mile miles": "1609.344",
    },
    "mass": {
        "mg milligram milligrams": "0.001",
        "g gram grams": "1",
        "kg kilogram kilograms": "1000",
        "oz ounce ounces": "28.349523125",
        "lb lbs": "453.59237",
    },
    "time": {
        "ms millisecond milliseconds": "0.001",
        "s sec second seconds": "1",
        "min minute minutes": "60",
        "h hr hrs hour hours": "3600",
        "day days": "86400",
        "week weeks": "604800",
    },
    "volume": {"ml milliliter milliliters millilitre millilitres": "0.001", "l liter liters litre litres": "1"},
}
_UNIT_OF = {
    word: Unit(dimension, Fraction(factor))
    for dimension, units in _UNITS.items()
    for words, factor in units.items()
    for word in words.split()
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

# Groups of three digits: 1,234 · 1 234 · 1'234 · 1_234; of two and then three: 12,34,567; 1.234.567 and 1.234,5.
_NUMBER = r"""
    (?P<comma_decimal>\d{1,3}(?:\.\d{3})+,\d+ | \d{1,3}(?:\.\d{3}){2,}(?![\d.]))
    | (?P<number>
        (?: \d{1,3}(?:,\d{3})+(?!\d) | \d{1,2}(?:,\d{2})+,\d{3}(?!\d) | \d{1,3}(?:[ ]\d{3})+(?![\d/]|\s?/\s?\d)
          | \d{1,3}(?:['’_]\d{3})+(?!\d) | \d+ )
        (?:\.\d+)? (?:[eE][-+]?\d+)?
        | \.\d+ (?:[eE][-+]?\d+)?
      )
"""
_QUANTITY = re.compile(
    rf"""
    (?: (?<![\w.)]) (?P<sign>[-+]) (?=[\d.$€£¥]) | (?:(?<=[=:({{])|(?<=[=:({{]\s)|\A) (?P<far_sign>[-+]) \s )?
    (?P<currency>[$€£¥])?\s?
    (?:(?<=[$€£¥])(?P<inner_sign>-))?
    (?<![\w.])
    (?:(?P<whole>\d+)\s+(?=\d+\s?/\s?\d))?
    (?:{_NUMBER})
    (?:\s?/\s?(?P<denominator>\d+(?:\.\d+)?))?
    (?:\s?(?P<scale>{"|".join(_SCALES)})\b)?
    (?:[\s-]?(?P<unit>[%¢$€£¥]|[a-zA-Z]+\b))?
    """,
    re.VERBOSE | re.IGNORECASE,
)

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)\{,\}(?=\d)", ","),
        (r"\\[,;:! ]|\\(?:thinspace|quad|left|right|displaystyle)(?![a-zA-Z])", ""),
        (r"\\[()\[\]]|\\(?=[$%])|(?<=\d)~(?=\d)", " "),
        (r"\$(?=\S)([^$]{0,300}?(?<=[^\s$]))\$(?!\d)", r" \1 "),
        (r"\\[dtc]?frac\s*\{\s*(-?)([\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}", r"\1\2/\3"),
        (r"\\[dtc]?frac\s?(\d)\s?(\d)", r"\1/\2"),
        (r"\\(?:text|mathrm|mathbf|mbox|textbf)\s*\{([^{}]{0,100})\}", r" \1"),
        (r"(?<=\d)\s?(?:\\times|\\cdot|×|·|\*|x)\s?10\s?\^\s?\{?([-+]?\d+)\}?", r"e\1"),
        (r"(?<![\d.,])10\s?\^\s?\{?([-+]?\d+)\}?", r"1e\1"),
    )
)


def read_answer(text: str, markers: Sequence[str] = ()) -> Quantity | None:
    """The first number after the last marker, else the last number in the text; None where there is none.

    Markers are found in any case.
    """
    ends = [match.end() for marker in markers for match in re.finditer(re.escape(marker), text, re.IGNORECASE)]
    if ends:
        marked = _first(_QUANTITY.finditer(_plain(text[max(ends) :])))
        if marked is not None:
            return marked
    return _first(reversed(list(_QUANTITY.finditer(_plain(text)))))


def _first(matches: Iterable[re.Match[str]]) -> Quantity | None:
    found = map(_quantity, matches)
    return next((quantity for quantity in found if quantity is not None), None)


def _plain(text: str) -> str:
    """The text with one way to write each thing: minus signs, spaces, fractions, powers of ten, no LaTeX around."""
    text = re.sub("10([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda match: f"10^{match[1].translate(_SUPERSCRIPTS)}", text)
    text = unicodedata.normalize("NFKC", _VULGAR.sub(" ", text)).replace("⁄", "/")
    text = re.sub("[−–‐‑](?=[\\s$€£¥\\\\]?[\\d.\\\\$€£¥])", "-", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _quantity(match: re.Match[str]) -> Quantity | None:
    read = _decimal(match)
    if read is None:
        return None
    value, resolution = read
    if match["denominator"]:
        denominator = Fraction(match["denominator"])
        if not denominator or len(match["denominator"]) > LONGEST:
            return None
        value, resolution = Fraction(match["whole"] or 0) + value / denominator, Fraction(0)
    scale = _SCALES.get((match["scale"] or "").lower(), 1)
    sign = -1 if "-" in (match["sign"], match["far_sign"], match["inner_sign"]) else 1
    unit = _UNIT_OF.get(match["currency"] or "") or _UNIT_OF.get((match["unit"] or "").lower(), NO_UNIT)
    return Quantity(sign * value * scale, unit, resolution * scale)


def _decimal(match: re.Match[str]) -> tuple[Fraction, Fraction] | None:
    """The number as it stands, and the worth of its last digit."""
    if match["comma_decimal"]:
        text = match["comma_decimal"].replace(".", "").replace(",", ".")
    else:
        text = re.sub("[, '’_]", "", match["number"])
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > LONGEST or len(match["whole"] or "") > LONGEST:
        return None
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > LONGEST):
        return None
    value = Fraction(Decimal(text))
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return value, Fraction(0) if value.denominator == 1 else Fraction(1, 10) ** decimals
