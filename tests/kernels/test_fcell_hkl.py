"""Files of structure factors: what is read, what is written back, and what is refused, in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.fcell import Grid, HklRefused, read_hkl, write_hkl
from kernels.fcell.hkl import parse_hkl
from tests.kernels.fcell_cases import small_grid


def read(text: str, default_f: float = 0.0) -> Grid:
    return parse_hkl(text.splitlines(), "some.hkl", default_f)


def test_lines_comments_and_blanks() -> None:
    grid = read("# head\n\n 1 -2 3 45.5 # a note\n\t-1\t0   4  0\n  2.0 0 3 1e2\n", default_f=7.0)
    assert grid.bounds == ((-1, 2), (-2, 0), (3, 4))
    assert grid.count == 3
    assert grid.values[2, 0, 0] == 45.5
    assert grid.values[3, 2, 0] == 100.0
    assert (grid.values[0, 2, 1], bool(grid.listed[0, 2, 1])) == (0.0, True)
    assert (grid.values[0, 0, 0], bool(grid.listed[0, 0, 0])) == (7.0, False)


def test_written_grid_reads_back_bit_for_bit(tmp_path: Path) -> None:
    grid = small_grid()
    awkward = np.where(grid.listed, grid.values / 3 + 1e-300, grid.values)
    grid = Grid(awkward, grid.listed, grid.hmin, grid.kmin, grid.lmin, grid.default_f)
    path = tmp_path / "a.hkl"
    write_hkl(path, grid)
    again = read_hkl(path, grid.default_f)
    assert np.array_equal(again.values, grid.values)
    assert np.array_equal(again.listed, grid.listed)
    assert again.bounds == grid.bounds
    write_hkl(tmp_path / "b.hkl", again)
    assert (tmp_path / "b.hkl").read_bytes() == path.read_bytes()


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.hkl"
    path.write_bytes(b"\xef\xbb\xbf1 0 0 3\r\n\r\n2 0 0 4 # a_b\r\n")
    assert read_hkl(path).values.ravel().tolist() == [3.0, 4.0]


def test_the_same_line_twice_counts_once() -> None:
    grid = read("0 0 1 5\n1 0 0 3\n0 0 1 5.0\n")
    assert grid.count == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3 4\n1 2 3\n", "some.hkl line 2: it has 3 fields, and h k l F are 4; correct the line or put # before"),
        ("1 2 3 4 5\n", "line 1: it has 5 fields"),
        ("h k l F\n", "line 1: h is 'h', which is not a number"),
        ("1 2.5 3 4\n", "line 1: k is 2.5, which is not a whole number"),
        ("1 2 nan 4\n", "line 1: l is nan, which is not a whole number"),
        ("1 2 inf 4\n", "line 1: l is inf, which is not a whole number"),
        ("1 2 3 4\n\n1 2 4 nan\n", "line 3: F is nan, and an amplitude is finite"),
        ("1 2 3 inf\n", "line 1: F is inf"),
        ("1 2 3 -4\n", "line 1: F is -4"),
        ("1_0 2 3 4 # a_b\n", "line 1: it has a _ in it"),
        ("1 2 \u0663 4 # \u00e9\n", r"line 1: it has '\\u0663' in it"),
        ("1\u00a02 3 4\n", r"line 1: it has '\\xa0' in it"),
        (f"1 2 3 {'4' * 5000}x\n", r"line 1: F is '4{40}\.\.\.', which"),
        ("1 2 3 four\n", "line 1: F is 'four', which is not a number"),
        ("999999999999999999999 2 3 4\n", "line 1: h is 999999999999999999999, and no grid reaches that far"),
        ("90000 0 0 1\n0 90000 0 1\n", "look for a wrong index"),
        ("1 2 3 4\n0 0 0 1\n1 2 3 5\n", r"lines 1 and 3: reflection \(1, 2, 3\) is listed with F 4 and 5; keep one"),
        ("", "some.hkl lists no reflection"),
        ("# nothing\n\n", "some.hkl lists no reflection"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(HklRefused, match=words) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(HklRefused, match=r"none\.hkl cannot be read as an HKL file: No such file"):
        read_hkl(tmp_path / "none.hkl")
    binary = tmp_path / "binary.hkl"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(HklRefused, match=r"binary\.hkl is not an HKL file"):
        read_hkl(binary)
    with pytest.raises(HklRefused, match="cannot be read"):
        read_hkl(tmp_path)
