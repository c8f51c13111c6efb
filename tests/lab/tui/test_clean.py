"""What programs print cannot steer, fill or shift the screen."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lab.tui import clean
from lab.tui.looking import LogTail


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("plain words", "plain words"),
        ("\x1b[31mred\x1b[0m and \x1b[1;4mbold\x1b[m", "red and bold"),
        ("\x1b]0;a new title\x07after", "after"),
        ("\x1b]52;c;aGVsbG8=\x1b\\clipboard", "clipboard"),
        ("\x1b]52;c;aGVsbG8", ""),  # never ended: the line is its end
        ("\x9d0;title\x9cafter", "after"),
        ("\x9b31mred", "red"),
        ("\x1b[?1049h\x1b[2J\x1b[Hhome", "home"),
        ("\x1bPq#0;2;0;0;0\x1b\\sixel", "sixel"),
        ("\x1b(0lqk\x1b(B", "lqk"),
        ("\x1bcreset", "reset"),
        ("cut \x1b[38;5", "cut "),
        ("secret\b\b\b\b\b\bpublic", "public"),
        ("\b\b\bfirst", "first"),
        (" 10%\r 50%\r100%", "100%"),
        ("done\r\n", "done"),
        ("a\tb", "a       b"),
        ("bell\x07 nul\x00 del\x7f", "bell nul del"),
        ("evil \u202egnp.exe\u202c", "evil gnp.exe"),
        ("\u2066isolated\u2069 zero\u200bwidth\ufeff", "isolated zerowidth"),
        ("one\u2028two", "one two"),
        ("e" + "\u0301" * 40, "e" + "\u0301" * 3),
        ("\u0301alone", "alone"),
        ("日本 ok", "日本 ok"),
        ("\ud800", "\ufffd"),
    ],
)
def test_a_line_as_it_is_seen(raw: str, seen: str) -> None:
    assert clean.clean_line(raw) == seen


@given(st.text(max_size=300))
def test_nothing_that_a_terminal_would_obey_is_left(raw: str) -> None:
    seen = clean.clean_line(raw)
    assert all(c.isprintable() or c == "\ufffd" for c in seen)
    assert "\n" not in seen


@given(st.binary(max_size=2000), st.integers(0, 40))
def test_any_bytes_become_few_lines(blob: bytes, most: int) -> None:
    lines = clean.clean_lines(blob, most)
    assert len(lines) <= most
    assert all("\x1b" not in line and "\x9b" not in line for line in lines)


@given(st.text(alphabet="ab 日本é\u0301…", max_size=60), st.integers(1, 40))
def test_a_fitted_text_takes_exactly_its_cells(text: str, width: int) -> None:
    assert cell_len(clean.fit(clean.clean_line(text), width)) == width


def test_wrapping_keeps_within_width_and_lines() -> None:
    text = "the nearest earlier run is job 398 (failed); it differs in params.channels: 64 instead of 128"
    lines = clean.wrap(text, 30, 3)
    assert all(cell_len(line) <= 30 for line in lines)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert clean.wrap(text, 200, 3) == [text]
    assert clean.wrap("x" * 25, 10, 9) == ["x" * 10, "x" * 10, "x" * 5]


def test_skipping_cells_never_splits_a_wide_character() -> None:
    assert clean.skip("日本語", 2) == "本語"
    assert clean.skip("日本語", 1) == " 本語"
    assert clean.skip("abc", 5) == ""


def test_a_line_of_many_megabytes_costs_little(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"first\n" + b"\x1b[31mx" * 8_000_000 + b"\nlast\n")
    began = time.process_time()
    lines, note = LogTail(log).read(False)
    assert lines[-1] == "last"
    assert note == ""
    assert max(map(len, lines)) <= 4000
    assert time.process_time() - began < 1.0


def test_a_log_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.txt"
    log.write_text("one\n")
    tail = LogTail(log)
    assert tail.read(False) == (("one",), "")
    cleaned = []
    real = clean.clean_lines
    monkeypatch.setattr(clean, "clean_lines", lambda *a: cleaned.append(1) or real(*a))
    assert tail.read(False) == (("one",), "")
    assert cleaned == []
    with log.open("a") as f:
        f.write("two\n")
    assert tail.read(False) == (("one", "two"), "")
    assert cleaned == [1]


def test_a_log_that_goes_away_keeps_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    tail = LogTail(log)
    assert tail.read(False) == ((), "nothing was printed yet")
    log.write_text("one\n")
    assert tail.read(False)[0] == ("one",)
    log.unlink()
    assert tail.read(False) == (("one",), "the log file is gone; these are its last lines")
    log.write_text("new\n")  # a new attempt wrote it again
    assert tail.read(False) == (("new",), "")


def test_a_pipe_in_place_of_a_log_does_not_stop_the_screen(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.txt")
    lines, note = LogTail(tmp_path / "log.txt").read(False)
    assert lines == ()
    assert note
