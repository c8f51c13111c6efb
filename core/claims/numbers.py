"""Numbers by reference: `{eval.fid}`, `{seeds.fid.mean:.2f}`, `{eval.fid / control.fid}`, and where they come from.

A reference is ROLE.METRIC[.FIELD] for rows with `metric` and `value`, or ROLE.TABLE.COLUMN for a table of one row.
A list (`seeds`, `sweep`) gives mean, std (sample standard deviation), min, max or n of its evaluations.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.claims.evidence import Cited, Evidence, Row

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FORMAT = re.compile(r"[+,]?[+,]?(\.\d{1,2})?[efgd%]?")
_OVER = ("mean", "std", "min", "max", "n")


class NoNumber(Exception):
    """A reference leads to no number: a sentence, and the job it speaks of."""

    def __init__(self, message: str, job: int | None = None) -> None:
        super().__init__(message)
        self.job = job


@dataclass(frozen=True)
class Source:
    """A cell of a table from which a number was taken."""

    job: int
    role: str
    table: str
    row: int
    column: str


@dataclass(frozen=True)
class Number:
    """A number of the evidence, with its cells."""

    value: float
    sources: tuple[Source, ...]
    rows: tuple[Row, ...]
    text: str = ""


def evaluate(evidence: Evidence, expression: str) -> Number:
    """The number that `A`, `A / B`, `A - B` or any of these with `:FORMAT` stands for.

    Raises:
        NoNumber: it leads to none, to several, or to one that is not finite.
    """
    asked, colon, layout = expression.partition(":")
    layout = layout.strip()
    if colon and not _FORMAT.fullmatch(layout):
        raise NoNumber(f"{{{expression}}}: {layout!r} is no format")
    left, operator, right = _parts(asked)
    a = refer(evidence, left)
    if operator:
        b = refer(evidence, right)
        if operator == "/" and b.value == 0:
            raise NoNumber(f"{{{expression}}} divides by zero")
        value = a.value / b.value if operator == "/" else a.value - b.value
        a = Number(value, a.sources + b.sources, a.rows + b.rows)
    if not math.isfinite(a.value):
        raise NoNumber(f"{{{expression}}} is {a.value}")
    integer = float(a.value).is_integer() and abs(a.value) < 1e15
    text = format(int(a.value) if layout.endswith("d") else a.value, layout) if layout else ""
    return Number(a.value, a.sources, a.rows, text or (str(int(a.value)) if integer else f"{a.value:.6g}"))


def references(expression: str) -> list[str]:
    """The references in an expression."""
    left, _, right = _parts(expression.partition(":")[0])
    return [r for r in (left, right) if r]


def refer(evidence: Evidence, reference: str) -> Number:
    """The number of one reference. Raises NoNumber."""
    parts = reference.split(".")
    for length in range(len(parts) - 1, 0, -1):
        role = ".".join(parts[:length])
        one = evidence.of(role)
        if one is not None:
            return _of_job(one, parts[length:], reference)
    group = [c for c in evidence.cited if _in_list(c, parts[0])]
    if group and len(parts) > 1:
        return _of_list(group, parts[1:], reference)
    raise NoNumber(f"{{{reference}}}: {evidence.why_not(parts[0])}")


def evaluation_rows(cited: Cited, metric: str) -> Iterator[tuple[str, int, Row]]:
    """(table, place, row) of the rows of one metric that are not those of held-out real data."""
    for table, rows in cited.tables.items():
        for n, row in enumerate(rows):
            held = row.get("control") == "held" and not metric.endswith("_floor")
            if row.get("metric") == metric and "value" in row and not held:
                yield table, n, row


def _of_job(cited: Cited, rest: list[str], reference: str) -> Number:
    if len(rest) == 2 and rest[0] in cited.tables and rest[0] not in {r["metric"] for r in cited.metrics()}:
        rows = cited.tables[rest[0]]
        if len(rows) != 1:
            raise NoNumber(f"{{{reference}}}: table {rest[0]} of job {cited.job} has {len(rows)} rows", cited.job)
        return _cell(cited, rest[0], 0, rows[0], rest[1], reference)
    if len(rest) not in (1, 2):
        raise NoNumber(f"{{{reference}}} is no reference to a number; write {{eval.fid}}", cited.job)
    column = rest[1] if len(rest) == 2 else "value"
    found = list(evaluation_rows(cited, rest[0]))
    if not found:
        why = f" ({cited.problems[0]})" if cited.problems else ""
        raise NoNumber(f"{{{reference}}}: job {cited.job} has no row of {rest[0]!r}{why}", cited.job)
    if len(found) > 1:
        raise NoNumber(f"{{{reference}}}: job {cited.job} has {len(found)} rows of {rest[0]!r}", cited.job)
    table, place, row = found[0]
    return _cell(cited, table, place, row, column, reference)


def _of_list(group: list[Cited], rest: list[str], reference: str) -> Number:
    how = rest[-1] if rest[-1] in _OVER else "mean"
    names = rest[:-1] if rest[-1] in _OVER else rest
    found = [_of_job(c, names, reference) for c in group]
    values = [n.value for n in found]
    if how == "std" and len(values) < 2:
        raise NoNumber(f"{{{reference}}}: one value has no standard deviation")
    made: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.fmean,
        "std": statistics.stdev,
        "min": min,
        "max": max,
        "n": len,
    }
    return Number(
        float(made[how](values)), tuple(s for n in found for s in n.sources), tuple(r for n in found for r in n.rows)
    )


def _cell(cited: Cited, table: str, place: int, row: Row, column: str, reference: str) -> Number:
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NoNumber(f"{{{reference}}}: {column} of job {cited.job} is {value!r}, which is no number", cited.job)
    return Number(float(value), (Source(cited.job, cited.role, table, place, column),), (row,))


def _in_list(cited: Cited, name: str) -> bool:
    parts = cited.role.split(".")
    if len(parts) < 2 or parts[0] != name:
        return False
    return len(parts) == 2 or parts[-1] == "eval"


def _parts(asked: str) -> tuple[str, str, str]:
    for operator in ("/", "-"):
        left, found, right = asked.partition(f" {operator} ")
        if found:
            return left.strip(), operator, right.strip()
    return asked.strip(), "", ""
