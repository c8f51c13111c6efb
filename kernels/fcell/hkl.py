"""Files of structure factors: one `h k l F` a line, read into a dense grid and written back exactly.

`#` starts a comment, anywhere in a line; blank lines are nothing. h, k and l are whole numbers, and may be
written as `5.0`; F is finite and not negative, because it is an amplitude. The same reflection listed twice with
one value counts once; with two values it is refused, since whichever were taken, another program may take the
other. Extents of the grid are the least and greatest indices in the file.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kernels.fcell.types import MAX_CELLS, FcellRefused, FloatArray, Grid

IntArray = npt.NDArray[np.int64]


class HklRefused(FcellRefused):
    """The file is no list of structure factors; the message names it and, where there is one, the line."""


def read_hkl(path: str | Path, default_f: float = 0.0) -> Grid:
    """Read a file into a grid whose unlisted cells hold `default_f`.

    Raises:
        HklRefused: no such file, a line that is not `h k l F`, a value that is not finite or negative, one
            reflection with two values, no reflection at all, or indices so far apart that no grid holds them.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return parse_hkl(lines, str(path), default_f)
    except OSError as error:
        raise HklRefused(f"{path} cannot be read as an HKL file: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise HklRefused(f"{path} is not an HKL file: it is not text; give lines of h k l F") from None


def parse_hkl(lines: Iterable[str], name: str, default_f: float = 0.0) -> Grid:
    """`read_hkl` from lines; `name` is what a refusal calls them."""
    whole, values, places = array("q"), array("d"), array("q")
    for number, h, k, l, value in _reflections(lines, name):  # noqa: E741
        whole.extend((h, k, l))
        values.append(value)
        places.append(number)
    if not values:
        raise HklRefused(f"{name} lists no reflection: give lines of h k l F, or no file to use default_F alone")
    return _grid(
        np.array(whole, dtype=np.int64).reshape(-1, 3),
        np.array(values, dtype=np.float64),
        np.array(places, dtype=np.int64),
        name,
        default_f,
    )


def write_hkl(path: str | Path, grid: Grid) -> None:
    """Write the listed cells, h slowest and l fastest; reading the file gives the same grid, bit for bit."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(format_hkl(grid))


def format_hkl(grid: Grid) -> Iterator[str]:
    """The lines of `write_hkl`. F is the shortest decimal that reads back as the same number."""
    yield "# h k l F\n"
    low = (grid.hmin, grid.kmin, grid.lmin)
    for index in np.argwhere(grid.listed):
        h, k, l = (int(n) + m for n, m in zip(index, low, strict=True))  # noqa: E741
        yield f"{h} {k} {l} {float(grid.values[tuple(index)])!r}\n"


def _reflections(lines: Iterable[str], name: str) -> Iterator[tuple[int, int, int, int, float]]:
    for number, line in enumerate(lines, start=1):
        data = line.partition("#")[0]
        words = data.split()
        if not words:
            continue
        if len(words) != 4:
            raise _bad(name, number, f"it has {len(words)} fields, and h k l F are 4")
        if "_" in data:  # Python reads 1_0 as 10
            raise _bad(name, number, "it has a _ in it, and no number has")
        if not data.isascii():  # Python reads the digits of any script, and other programs do not
            raise _bad(name, number, f"it has {next(c for c in data if ord(c) > 127)!a} in it, and no number has")
        h, k, l = (_index(word, axis, name, number) for word, axis in zip(words, "hkl", strict=False))  # noqa: E741
        try:
            value = float(words[3])
        except ValueError:
            raise _bad(name, number, f"F is {_short(words[3])!r}, which is not a number") from None
        if not math.isfinite(value) or value < 0:
            raise _bad(name, number, f"F is {_short(words[3])}, and an amplitude is finite and not negative")
        yield number, h, k, l, value + 0.0


def _index(word: str, axis: str, name: str, number: int) -> int:
    try:
        value = int(word)
    except ValueError:
        value = _from_decimal(word, axis, name, number)
    if abs(value) > MAX_CELLS:
        raise _bad(name, number, f"{axis} is {_short(word)}, and no grid reaches that far")
    return value


def _from_decimal(word: str, axis: str, name: str, number: int) -> int:
    try:
        value = float(word)
    except ValueError:
        raise _bad(name, number, f"{axis} is {_short(word)!r}, which is not a number") from None
    if not value.is_integer():
        raise _bad(name, number, f"{axis} is {_short(word)}, which is not a whole number")
    return int(value)


def _short(word: str) -> str:
    return word if len(word) <= 40 else f"{word[:40]}..."


def _bad(name: str, number: int, what: str) -> HklRefused:
    return HklRefused(f"{name} line {number}: {what}; correct the line or put # before it")


def _grid(whole: IntArray, values: FloatArray, places: IntArray, name: str, default_f: float) -> Grid:
    low, high = whole.min(axis=0), whole.max(axis=0)
    nh, nk, nl = (int(n) for n in high - low + 1)
    if nh * nk * nl > MAX_CELLS:
        raise HklRefused(
            f"{name}: its indices reach from {tuple(low.tolist())} to {tuple(high.tolist())}, a grid of "
            f"{nh} × {nk} × {nl} cells, more than {MAX_CELLS}; look for a wrong index"
        )
    flat = np.ravel_multi_index(tuple((whole - low).T), (nh, nk, nl))
    dense = np.full(nh * nk * nl, float(default_f))
    listed = np.zeros(nh * nk * nl, dtype=np.bool_)
    dense[flat] = values
    listed[flat] = True
    # The last line of a reflection won; every other line of it must have said the same.
    other = np.flatnonzero(dense[flat] != values)
    if other.size:
        first = int(other[0])
        line = int(places[(flat == flat[first]) & (values == dense[flat[first]])][0])
        h, k, l = (int(n) for n in whole[first])  # noqa: E741
        raise HklRefused(
            f"{name} lines {int(places[first])} and {line}: reflection ({h}, {k}, {l}) is listed with F "
            f"{values[first]:g} and {dense[flat[first]]:g}; keep one of them"
        )
    shape = (nh, nk, nl)
    return Grid(dense.reshape(shape), listed.reshape(shape), int(low[0]), int(low[1]), int(low[2]), float(default_f))
