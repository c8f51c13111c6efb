"""`lab results --plot`: one figure of a table, from what its rows say of themselves.

The axes of a sweep are where its cells lie; the rest is chosen as a person would: the first number that the kind puts
forward goes up, the first axis goes across, the next one has a colour, a mark and a line of its own. Rows that share
all of these are repeats: each is a point, their median is the line, and their ends are the band.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from core.tables.sql import HEADLINE
from lab.output import human
from lab.tablematch import REPEATS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FORMATS = ("png", "pdf", "svg")
ONLY = b"lab.plot"  # metadata of a schema: COLUMN=VALUE, the rows that a figure shows where nobody says which

_ORIGIN = ("job", "attempt", "lane", "key")
_VERDICTS = ("verdict", "reason", "status", "error", "note")  # text of which no line is made
_ERRORS = ("err", "rel", "abs", "rms", "loss", "residual", "tol")
_MOST_LINES = 12
_LONGEST = 32  # letters of a word that names a line, unless somebody asks for it
_MOST_PLACES = 400  # of words, from left to right
_DECADES = 2.0


@dataclass(frozen=True)
class Asked:
    """The columns that the user named; None: choose."""

    x: str | None = None
    y: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Line:
    """One line of the figure: all points of a group, and what they come to at each place.

    Attributes:
        x, y: every row: its place and its value.
        places: each place once, from left to right, with the median, the least and the greatest there.
        repeats: several rows are at one place.
    """

    name: str
    x: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]
    middle: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]
    high: np.ndarray[Any, Any]

    @property
    def repeats(self) -> bool:
        return len(self.x) > len(self.places)


@dataclass(frozen=True)
class Plot:
    """What is drawn, before anything is.

    Attributes:
        words: the places from left to right, where they are no numbers.
        log_x, log_y: scales.
        floor: where zeros are shown on a logarithmic scale; None: there are none, or the scale is not logarithmic.
        notes: what the reader of the figure has to know.
    """

    title: str
    x: str
    y: str
    by: str | None
    lines: tuple[Line, ...]
    words: tuple[str, ...] | None
    log_x: bool
    log_y: bool
    floor: float | None
    rows: int
    notes: tuple[str, ...] = ()


def format_of(path: Path) -> str:
    """The format that the ending of `path` says. Raises BadInput for any other."""
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise BadInput(f"the ending of {path} is none of .png, .pdf and .svg", hint="name such a file")
    return form


def plan(table: pa.Table, asked: Asked, *, axes: Sequence[str] = (), title: str = "", narrowed: bool = False) -> Plot:
    """Choose columns and scales, and put the rows into lines.

    Args:
        axes: columns that are axes of a sweep, outermost first.
        narrowed: the user said which rows.

    Raises:
        BadInput: a column that is not there or is no number, or nothing that can be drawn.
    """
    if not table.num_rows:
        raise BadInput("there are no rows to draw", hint="`lab results` without --plot says what there is")
    for option, name in (("--x", asked.x), ("--y", asked.y), ("--by", asked.by)):
        if name is not None and name not in table.column_names:
            raise _no_column(option, name, table.column_names)
    notes: list[str] = []
    if not narrowed:
        table = _put_forward(table, notes)
    y, x, by = _chosen(table, asked, [a for a in axes if a in table.column_names])
    return _lined(table, x, y, by, title, notes)


def _chosen(table: pa.Table, asked: Asked, axes: Sequence[str]) -> tuple[str, str, str | None]:
    vary = {n: _distinct(table, n) for n in table.column_names if _can_stand(table, n)}
    moving = [a for a in axes if vary.get(a, 0) > 1]
    y = asked.y if asked.y is not None else _upward(table, vary, {*axes, asked.x, asked.by})
    if not _is_number(table, y):
        raise BadInput(f"column {y!r} is no number, so it cannot go upward", hint=f"--y {_numbers(table)}")
    headline = _headline(table)
    across = [n for n in (*moving, *headline) if n not in (y, asked.by) and vary.get(n, 0) > 1]
    across = [n for n in across if n in moving or not _is_float(table, n)] or across
    x = asked.x or next((n for n in across if n not in REPEATS), next(iter(across), "job"))
    if x not in table.column_names:
        raise BadInput("nothing differs from row to row that could go across", hint="name a column with --x")
    if not _can_stand(table, x) or (asked.by is not None and not _can_stand(table, asked.by)):
        odd = x if not _can_stand(table, x) else asked.by
        raise BadInput(f"column {odd!r} holds lists, which have no place in a figure", hint="choose another")
    if asked.by is not None:
        if vary[asked.by] > _MOST_LINES:
            raise BadInput(
                f"column {asked.by!r} has {vary[asked.by]:,} values: too many lines to tell apart",
                hint=f"choose at most {_MOST_LINES} of them with --where, or another --by",
            )
        return y, x, asked.by
    rest = [a for a in moving if a not in (x, y) and a not in REPEATS]
    if not rest:
        rest = [n for n in headline if n not in (x, y, *_VERDICTS, *_ORIGIN) and _tells_apart(table, n)]
    return y, x, next((n for n in rest if 1 < vary.get(n, 0) <= _MOST_LINES), None)


def _upward(table: pa.Table, vary: dict[str, int], taken: set[str | None]) -> str:
    """The first number that the kind puts forward, if it is not the same everywhere."""
    free = [n for n in _headline(table) if n not in taken and n not in _ORIGIN and _is_number(table, n)]
    free = [n for n in free if _some_finite(table, n)]
    floats = [n for n in free if _is_float(table, n)]
    for some in ([n for n in floats if vary[n] > 1], floats, [n for n in free if vary[n] > 1], free):
        if some:
            return some[0]
    raise BadInput("there is nothing numeric to draw", hint=f"the columns are: {', '.join(table.column_names)}")


def _lined(table: pa.Table, x: str, y: str, by: str | None, title: str, notes: list[str]) -> Plot:
    import numpy as np

    values = np.asarray(table.column(y).cast("float64").to_numpy(), np.float64)
    numeric = _is_number(table, x)
    seen = _texts(table, by) if by is not None else [""] * len(values)
    if numeric:
        at = np.asarray(table.column(x).cast("float64").to_numpy(), np.float64)
        words = None
    else:
        texts = _texts(table, x)
        order = {t: i for i, t in enumerate(dict.fromkeys(texts))}
        if len(order) > _MOST_PLACES:
            said = f"column {x!r} has {len(order):,} different words: too many to stand side by side"
            raise BadInput(said, hint="choose a column of numbers with --x")
        at, words = np.array([order[t] for t in texts], np.float64), tuple(order)
    good = np.isfinite(values) & np.isfinite(at)
    if not good.any():
        raise BadInput(f"no row has a finite number in {y!r} (over {x!r})", hint=f"--y {_numbers(table)}")
    if not good.all():
        notes.append(f"{human.count(int((~good).sum()), 'row')} without a finite {y} left out")
    names = np.array(seen, object)
    log_y = _wants_log(values[good], y)
    groups = [(name, (names == name) & good) for name in dict.fromkeys(seen)]
    lines = [_line(name, at[mine], values[mine], whole=log_y) for name, mine in groups if mine.any()]
    floor = None
    if log_y and (zeros := int((values[good] == 0).sum())):
        floor = _below(values[good & (values > 0)])
        notes.append(f"{human.count(zeros, 'row')} with exactly 0 {'is' if zeros == 1 else 'are'} drawn on the line 0")
    if any(line.repeats for line in lines):
        notes.append("line: median of the rows at one place; band: least to greatest")
    log_x = numeric and _wide(at[good])
    return Plot(title, x, y, by, tuple(lines), words, log_x, log_y, floor, int(good.sum()), tuple(notes))


def _line(name: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], *, whole: bool) -> Line:
    """`whole`: the median is one of the values (of two in the middle the greater), as is right on a log scale."""
    import numpy as np

    def median(values: np.ndarray[Any, Any]) -> Any:
        return values[len(values) // 2] if whole else np.median(values)

    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    places, start = np.unique(x, return_index=True)
    groups = np.split(y, start[1:])
    middle, low, high = (np.array([f(g) for g in groups]) for f in (median, np.min, np.max))
    return Line(name, x, y, places, middle, low, high)


def _wants_log(values: np.ndarray[Any, Any], name: str) -> bool:
    """Over two decades, or errors: a log scale shows what is small. Never where anything is below zero."""
    positive = values[values > 0]
    if not len(positive) or (values < 0).any():
        return False
    wide = math.log10(positive.max() / positive.min()) > _DECADES
    return wide or (any(word in name.lower() for word in _ERRORS) and bool(positive.max() < 1e-3))


def _below(positive: np.ndarray[Any, Any]) -> float:
    """A place for zeros: as far under the least as it can be seen."""
    low, high = math.log10(positive.min()), math.log10(positive.max())
    return float(10.0 ** (low - max(0.3, 0.15 * (high - low))))


def _wide(values: np.ndarray[Any, Any]) -> bool:
    """Numbers that go up by factors."""
    import numpy as np

    found = np.unique(values)
    if len(found) < 3 or found[0] <= 0:
        return False
    steps = found[1:] / found[:-1]
    return bool(
        math.log10(found[-1] / found[0]) > _DECADES or (steps.min() >= 1.5 and steps.max() <= 1.5 * steps.min())
    )


# Columns.


def _put_forward(table: pa.Table, notes: list[str]) -> pa.Table:
    """Only the rows that the kind wants in a figure, where it says so and there are some."""
    import pyarrow as pa

    column, equals, value = (table.schema.metadata or {}).get(ONLY, b"").decode().partition("=")
    if not equals or column not in table.column_names:
        return table
    mask = [t == value for t in _texts(table, column)]
    if not any(mask) or all(mask):
        return table
    notes.append(f"only rows whose {column} is {value}: --where chooses others")
    return table.filter(pa.array(mask))


def _headline(table: pa.Table) -> list[str]:
    """Columns as the kind puts them first, then the others; whose they are comes last of all."""
    said = (table.schema.metadata or {}).get(HEADLINE, b"").decode().split(",")
    first = [n for n in said if n in table.column_names]
    rest = [n for n in table.column_names if n not in _ORIGIN]
    return list(dict.fromkeys([*first, *rest]))


def _distinct(table: pa.Table, name: str) -> int:
    import pyarrow.compute as pc

    return int(pc.count_distinct(table.column(name), mode="all").as_py())


def _can_stand(table: pa.Table, name: str) -> bool:
    import pyarrow.types as pt

    kind = table.schema.field(name).type
    return not (pt.is_nested(kind) or pt.is_null(kind) or pt.is_binary(kind))


def _is_number(table: pa.Table, name: str) -> bool:
    import pyarrow.types as pt

    kind = table.schema.field(name).type
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _is_float(table: pa.Table, name: str) -> bool:
    import pyarrow.types as pt

    kind = table.schema.field(name).type
    return bool(pt.is_floating(kind) or pt.is_decimal(kind))


def _is_text(table: pa.Table, name: str) -> bool:
    import pyarrow.types as pt

    kind = table.schema.field(name).type
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_dictionary(kind) or pt.is_boolean(kind))


def _tells_apart(table: pa.Table, name: str) -> bool:
    """Words that name things: a digest does not, nor does a sentence."""
    import pyarrow.compute as pc

    return _is_text(table, name) and all(len(_text(v)) <= _LONGEST for v in pc.unique(table.column(name)).to_pylist())


def _some_finite(table: pa.Table, name: str) -> bool:
    import numpy as np

    return bool(np.isfinite(np.asarray(table.column(name).cast("float64").to_numpy(), np.float64)).any())


def _numbers(table: pa.Table) -> str:
    found = [n for n in _headline(table) if _is_number(table, n)]
    return f"may be one of {', '.join(found)}" if found else "needs a column of numbers, and there is none"


def _texts(table: pa.Table, name: str) -> list[str]:
    return [_text(v) for v in table.column(name).to_pylist()]


def _text(value: Any) -> str:
    """A value in a figure: `[1,4]` as it is, `["torch"]` without what only JSON needs."""
    if isinstance(value, str) and value.startswith("["):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        if found and all(isinstance(v, str) for v in found):
            return ", ".join(found)
        return human.value(found)
    return "none" if value is None else human.value(value)


def _no_column(option: str, name: str, there: Sequence[str]) -> BadInput:
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there)}"
    return BadInput(f"{option} names {name!r}, which is no column", hint=hint)
