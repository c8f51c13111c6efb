"""How a number is written. A number on a page names its form, so that the checker can write it again from the row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from lab.output import human


class Form(StrEnum):
    """One way to write a number."""

    WHOLE = "whole"  # 1,234
    SHORT = "short"  # six significant digits
    SCORE = "score"  # eight decimals
    GAIN = "gain"  # signed, five decimals
    SMALL = "small"  # three significant digits
    SIZE = "size"  # bytes as KiB, MiB
    SPAN = "span"  # seconds as 3m20s
    EXACT = "exact"  # as the row has it


_WRITE: Mapping[Form, Callable[[Any], str]] = {
    Form.WHOLE: lambda v: f"{v:,}",
    Form.SHORT: lambda v: f"{v:.6g}",
    Form.SCORE: lambda v: f"{v:.8f}",
    Form.GAIN: lambda v: f"{v:+.5f}",
    Form.SMALL: lambda v: f"{v:.3g}",
    Form.SIZE: human.size,
    Form.SPAN: human.span,
    Form.EXACT: lambda v: cell(v),
}


# A claim writes its numbers as its own text says: `as:` and a layout such as `.2f`; none: as short as may be.
AS = "as:"
_LAYOUT = re.compile(r"[+,]?[+,]?(\.\d{1,2})?[efgd%]?")


def known(form: str) -> bool:
    """Is this a form, or a layout of a claim?"""
    return form in set(Form) or (form.startswith(AS) and _LAYOUT.fullmatch(form[len(AS) :]) is not None)


def write(form: str, value: Any) -> str:
    """`value` in this form; what is no finite number as the row has it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return cell(value)
    if form.startswith(AS):
        return _laid_out(form[len(AS) :], float(value))
    return _WRITE[Form(form)](value)


def _laid_out(layout: str, value: float) -> str:
    if layout:
        return format(int(value) if layout.endswith("d") else value, layout)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def form_of(value: Any) -> Form:
    """The form for a number of which nothing else is known."""
    return Form.WHOLE if isinstance(value, int) else Form.SHORT


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cell(value: Any) -> str:
    """A value as its row shows it: whole, and in one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int | str):
        return human.clean(str(value))
    if isinstance(value, bytes):
        return value.hex()
    return human.clean(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))


def value_of(text: str) -> Any:
    """The value that `cell` wrote so; a text where it is no number."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
