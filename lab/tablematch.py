"""Which rows of two tables belong together: those that the same names, counts and flags tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# Columns that tell repetitions of the same thing apart.
REPEATS = frozenset({"seed", "repeat", "rep", "replicate", "trial", "fold", "run"})


@dataclass(frozen=True)
class Match:
    """Which rows belong together.

    Attributes:
        pairs: indices into both tables, one pair each.
        groups: the group of each row of both tables (those below `count` are common), where rows repeat.
        inner: for `_paired`: the group of each row without the columns that count repetitions.
        only: rows of each side without a partner.
    """

    on: tuple[str, ...]
    count: int
    only: tuple[int, int]
    pairs: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None
    groups: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None
    inner: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None


def match_rows(left: pa.Table, right: pa.Table, common: Sequence[str], axes: Sequence[str]) -> Match:
    """By the first columns of names, counts and flags that tell all rows apart, on both sides.

    Else, where there are axes, rows that they do not tell apart are taken together; else by order.
    """
    import numpy as np

    names = [c for c in common if _names_something(left, right, c)]
    n = left.num_rows
    codes: np.ndarray[Any, Any] | None = None
    on: list[str] = []
    for column in names:
        on.append(column)
        codes = _codes(left, right, [column], codes)
        if len(on) < len(axes) or not (_apart(codes[:n]) and _apart(codes[n:])):
            continue
        pairs = _pairs(codes[:n], codes[n:])
        if len(pairs[0]):
            repeats = [c for c in on if c in REPEATS]
            rest = [c for c in on if c not in REPEATS]
            inner = _codes(left, right, rest) if repeats and rest else None
            count = len(pairs[0])
            return Match(
                tuple(on),
                count,
                (n - count, right.num_rows - count),
                pairs,
                inner=None if inner is None else (inner[:n], inner[n:]),
            )
        break
    by = [c for c in names if c in axes or not _is_whole(left, c)]
    by = [c for c in by if c not in REPEATS]
    if axes and by and n and right.num_rows:
        codes = _codes(left, right, by)
        shared = np.intersect1d(codes[:n], codes[n:])
        if len(shared):
            order = np.full(int(codes.max()) + 1, -1, np.int64)
            order[shared] = np.arange(len(shared))
            groups = order[codes]
            only = int((groups[:n] < 0).sum()), int((groups[n:] < 0).sum())
            return Match(tuple(by), len(shared), only, groups=(groups[:n], groups[n:]))
    count = min(n, right.num_rows)
    if axes:  # no cell is on both sides: their order says nothing
        nobody = np.zeros(0, np.int64)
        return Match(tuple(by), 0, (n, right.num_rows), (nobody, nobody))
    return Match((), count, (n - count, right.num_rows - count), (np.arange(count), np.arange(count)))


def _names_something(left: pa.Table, right: pa.Table, column: str) -> bool:
    import pyarrow.types as pt

    kinds = [t.schema.field(column).type for t in (left, right)]
    if column not in REPEATS and any(pt.is_floating(k) for k in kinds):
        return False
    return all(pt.is_string(k) or pt.is_integer(k) or pt.is_boolean(k) or pt.is_dictionary(k) for k in kinds)


def _is_whole(rows: pa.Table, column: str) -> bool:
    import pyarrow.types as pt

    return bool(pt.is_integer(rows.schema.field(column).type))


def _codes(
    left: pa.Table, right: pa.Table, columns: Sequence[str], known: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """A number for each row of both tables (first all of `left`): equal where all of `columns` are."""
    import numpy as np
    import pyarrow as pa

    out = known
    for column in columns:
        sides = [t.column(column) for t in (left, right)]
        if sides[0].type != sides[1].type:
            sides = [s.cast(pa.string()) for s in sides]
        chunks = [c for s in sides for c in s.chunks]
        whole = pa.chunked_array(chunks, sides[0].type).combine_chunks()
        if isinstance(whole, pa.ChunkedArray):
            whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], sides[0].type)
        if pa.types.is_dictionary(whole.type):
            whole = whole.dictionary_decode()
        found = whole.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)
        found = found.astype(np.int64)
        if out is not None:
            out = out * (int(found.max()) + 1 if len(found) else 1) + found
            out = np.unique(out, return_inverse=True)[1].ravel()
        else:
            out = found
    assert out is not None
    return out


def _apart(codes: np.ndarray[Any, Any]) -> bool:
    import numpy as np

    return len(np.unique(codes)) == len(codes)


def _pairs(
    left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Indices of equal codes, in the order of `left`; each code is there once on a side."""
    import numpy as np

    _, i, j = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    order = np.argsort(i, kind="stable")
    return i[order], j[order]
