"""Numbers that people write in words: `6.2 billion-fold`, `12% lower`, `6.2×10¹²`, and whether they are what they say.

A number is taken as exact to half a unit of its last written digit, and never better than half a percent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "bn": 1e9}
_WORDS = {"two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0, "eight": 8.0, "nine": 9.0}
_WORDS |= {"ten": 10.0, "one": 1.0, "a": 1.0}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_LESS = re.compile(r"\b(lower|less|smaller|fewer|reduc\w*|decreas\w*|drop\w*|shrink\w*|below|down|better)\b", re.I)
# Dates and the names of papers are no measurements.
_NAMES = re.compile(r"\b\d{4}-\d{2}-\d{2}\b|\barXiv:?\s?\d{4}\.\d{4,5}\b", re.I)
_NUMBER = re.compile(
    r"""(?<![\w.])(?<![A-Za-z]-)(?P<sign>[-−+]?)(?:(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
        (?:[eE](?P<exp>[-+]?\d+)|\s?[×x*]\s?10(?:\^(?P<pow>[-−]?\d+)|(?P<sup>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)))?
        |(?P<word>\b(?:two|three|four|five|six|seven|eight|nine|ten|one|a)(?=[\s-](?:hundred|thousand|million|billion|
        trillion|fold|times)\b)))
        (?:[\s-]?(?P<scale>hundred|thousand|million|billion|trillion|bn)\b)?
        (?:[\s-]?(?P<unit>-?fold\b|times\b|×(?!\s?\d)|x\b(?!\s?\d)|%|percent\b|orders?\sof\smagnitude))?""",
    re.I | re.X,
)


class Unit(StrEnum):
    PLAIN = ""
    FOLD = "fold"
    PERCENT = "percent"
    ORDERS = "orders of magnitude"


@dataclass(frozen=True)
class Written:
    """A number in a text.

    Attributes:
        text: as it stands there; start: where.
        value: in its unit (12 for 12%); half: half a unit of its last digit.
        plain: a whole number without scale, exponent or unit.
    """

    text: str
    start: int
    value: float
    half: float
    unit: Unit
    plain: bool

    def is_(self, value: float) -> bool:
        """Is `value` what is written, as exactly as it is written?"""
        return abs(value - self.value) <= max(self.half, 5e-3 * abs(self.value)) * (1 + 1e-9)


def written(text: str) -> Iterator[Written]:
    """All numbers of a text, with their magnitudes and units. Digits inside names (conv2, CIFAR-10) are none."""
    for found in _NUMBER.finditer(_NAMES.sub(lambda m: " " * len(m[0]), text)):
        digits = (found["digits"] or "").replace(",", "")
        base = float(digits) if digits else _WORDS[found["word"].lower()]
        exponent = found["exp"] or found["pow"] or (found["sup"] or "").translate(_RAISED) or "0"
        scale = 10.0 ** int(exponent.replace("−", "-")) * _SCALES.get((found["scale"] or "").lower(), 1.0)
        decimals = len(digits.partition(".")[2])
        unit = _unit(found["unit"] or "")
        sign = -1.0 if found["sign"] in ("-", "−") else 1.0
        plain = unit is Unit.PLAIN and scale == 1.0 and decimals == 0 and "." not in digits
        yield Written(found[0].strip(), found.start(), sign * base * scale, 0.5 * 10.0**-decimals * scale, unit, plain)


def agrees(number: Written, ratio: float, text: str) -> bool:
    """Does a written factor, percentage or plain number say what `ratio` is?

    Args:
        ratio: what the rows give, e.g. 6.2e12 for `6.2 trillion-fold`.
        text: around the number: `lower` and the like allow the inverse of a factor, and 1 - ratio for a percentage.
    """
    if not math.isfinite(ratio):
        return False
    if number.unit is Unit.FOLD:
        return number.is_(ratio) or bool(_LESS.search(text) and ratio > 0 and number.is_(1 / ratio))
    if number.unit is Unit.PERCENT:
        options = [100 * ratio, 100 * (ratio - 1)] + ([100 * (1 - ratio)] if _LESS.search(text) else [])
        return any(number.is_(o) for o in options)
    if number.unit is Unit.ORDERS:
        return ratio > 0 and abs(number.value - abs(math.log10(ratio))) <= max(0.5, number.half)
    return number.is_(ratio)


def _unit(word: str) -> Unit:
    text = word.lower().lstrip("-")
    if text in ("fold", "times", "×", "x"):
        return Unit.FOLD
    if text in ("%", "percent"):
        return Unit.PERCENT
    return Unit.ORDERS if text.startswith("order") else Unit.PLAIN
