"""live.db: step rows exactly once, bounded, and indifferent to whatever a report says."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import live
from core.home import Home
from core.live import LiveWriter, metric_rows, read_attempts, read_lanes, read_metrics


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@pytest.fixture
def writer(home: Home) -> Iterator[LiveWriter]:
    writer = LiveWriter(home)
    yield writer
    writer.close()


def report(job: int = 1, steps: range = range(0), **changes: Any) -> dict[str, Any]:
    """A report with one row of ten bytes a step."""
    rows = [f'{{"step":{n}}}' for n in steps]
    at = [10 * n for n in steps]
    return {
        "job": job, "attempt": 1, "phase": "running", "beat": 1, "pid": 7, "rss_mb": 3, "step": 4, "log_size": 5,
        "progress": {"done": 1, "total": 2, "note": "n"}, "metrics": rows, "metrics_at": at,
        "metrics_from": at[0] if at else 0, "metrics_skipped": 0, **changes,
    }  # fmt: skip


def steps(home: Home, job: int = 1) -> list[int]:
    return [row["step"] for row in read_metrics(home, job, 1)]


def test_what_is_written_is_read(home: Home, writer: LiveWriter) -> None:
    writer.write([report(steps=range(3))])
    writer.lane("local", {"cores": 4})
    now = read_attempts(home)[(1, 1)]
    assert (now.phase, now.step, now.done, now.total, now.note) == ("running", 4, 1, 2, "n")
    assert (now.rss_mb, now.pid, now.log_size) == (3, 7, 5)
    assert now.age_s is not None
    assert now.age_s < 60
    assert steps(home) == [0, 1, 2]
    assert read_lanes(home)["local"]["cores"] == 4
    writer.forget(1, 1)
    assert read_attempts(home) == {}
    assert steps(home) == [0, 1, 2]


def test_rows_told_again_after_a_restart_are_there_once(home: Home) -> None:
    for told in (range(5), range(7), range(3, 9)):
        writer = LiveWriter(home)
        writer.write([report(steps=told)])
        writer.close()
    assert steps(home) == list(range(9))


def test_rows_without_places_follow_one_another(home: Home, writer: LiveWriter) -> None:
    lines = ['{"step": 0, "x": "é"}', '{"step": 1}']
    first = report(metrics=lines, metrics_at=None, metrics_from=100)
    writer.write([first, first])
    writer.write(
        [report(metrics=['{"step": 2}'], metrics_at=None, metrics_from=100 + len("".join(lines).encode()) + 2)]
    )
    assert steps(home) == [0, 1, 2]
    assert [pos for pos, _row in metric_rows(home, 1, 1)][:2] == [100, 100 + len(lines[0].encode()) + 1]


def test_reading_goes_on_where_it_was(home: Home, writer: LiveWriter) -> None:
    writer.write([report(steps=range(4))])
    last = metric_rows(home, 1, 1)[-1][0]
    assert metric_rows(home, 1, 1, after=last) == []
    writer.write([report(steps=range(4, 6))])
    assert [row["step"] for row in read_metrics(home, 1, 1, after=last)] == [4, 5]


ODD: list[Any] = [
    None,
    [],
    {},
    {"job": "x", "attempt": 1, "phase": "running"},
    report(1, beat="x"),
    report(1, beat=1 << 80),
    report(1, phase=["x"]),
    report(1, progress=[1]),
    report(1, progress={"done": [1], "total": "x", "note": {"a": 1}}),
    report(1, progress={"done": float("nan"), "total": 10**5000, "note": "\ud800"}),
    report(1, step={}, rss_mb=[], pid="x", log_size=None),
    report(1, metrics="xyz"),
    report(1, metrics=7),
    report(1, metrics=["\udce9"], metrics_at=[0]),
    report(1, metrics=["{}"], metrics_at=[0, 1]),
    report(1, metrics=["{}"], metrics_at=["x"]),
    report(1, metrics=["{}"], metrics_at=[1 << 80]),
    report(1, metrics=['{"a":' * 10_000, "[1]", '{"step": 0}'], metrics_at=[0, 1, 2]),
]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_report_hides_no_other(home: Home, writer: LiveWriter, odd: Any) -> None:
    writer.write([odd, report(2, range(2)), odd])
    writer.write([report(2, range(2, 4))])
    assert read_attempts(home)[(2, 1)].total == 2
    assert steps(home, 2) == [0, 1, 2, 3]
    assert len(read_metrics(home, 1, 1)) <= 3
    json.dumps([vars(a) for a in read_attempts(home).values()]).encode()


def test_an_old_file_is_thrown_away(home: Home) -> None:
    old = sqlite3.connect(home.live)
    old.execute("CREATE TABLE metric(job INTEGER, attempt INTEGER, n INTEGER, data TEXT)")
    old.execute("INSERT INTO metric VALUES(1, 1, 0, '{}')")
    old.commit()
    old.close()
    assert read_metrics(home, 1, 1) == []
    for _ in range(2):  # the second finds what the first has made, and keeps it
        writer = LiveWriter(home)
        writer.write([report(steps=range(2))])
        writer.close()
    assert steps(home) == [0, 1]
    with sqlite3.connect(home.live) as conn:
        assert conn.execute("PRAGMA user_version").fetchone()[0] == live._VERSION


@pytest.mark.parametrize("junk", [b"", b"junk" * 1000])
def test_a_damaged_file_is_thrown_away(home: Home, junk: bytes) -> None:
    home.live.write_bytes(junk)
    writer = LiveWriter(home)
    writer.write([report(steps=range(2))])
    writer.close()
    assert steps(home) == [0, 1]


def test_without_a_file_nothing_fails(tmp_path: Path) -> None:
    home = Home(tmp_path / "not" / "there")
    writer = LiveWriter(home)
    writer.write([report(steps=range(2))])
    writer.lane("local", {})
    writer.forget(1, 1)
    writer.close()
    assert read_attempts(home) == {}


def test_a_refused_write_does_not_end_the_writing(home: Home, writer: LiveWriter) -> None:
    other = sqlite3.connect(home.live, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer.write([report(steps=range(2))])  # waits a second, then lets it be
    other.execute("ROLLBACK")
    other.close()
    assert steps(home) == []
    writer.write([report(steps=range(2))])
    assert steps(home) == [0, 1]


def test_very_many_rows_are_thinned_evenly(home: Home, writer: LiveWriter) -> None:
    n, chunk = 200_000, 2000
    begun = time.process_time()
    for start in range(0, n, chunk):
        writer.write([report(steps=range(start, start + chunk))])
    cpu = time.process_time() - begun
    kept = steps(home)
    assert live.MAX_ROWS // 5 <= len(kept) <= live.MAX_ROWS
    assert (kept[0], kept[-1]) == (0, n - 1)
    assert kept == sorted(set(kept))
    assert max(b - a for a, b in itertools.pairwise(kept)) <= 6 * n // live.MAX_ROWS
    assert cpu < 20  # some two seconds
    # The negative twin: at the limit all of them are there.
    writer.write([report(2, range(live.MAX_ROWS))])
    assert steps(home, 2) == list(range(live.MAX_ROWS))


def test_long_rows_are_bounded_by_their_bytes(home: Home, writer: LiveWriter) -> None:
    size = 60_000
    for n in range(600):
        line = json.dumps({"step": n, "pad": "p" * size})
        writer.write([report(metrics=[line], metrics_at=[n * (size + 100)])])
    kept = steps(home)
    assert (kept[0], kept[-1]) == (0, 599)
    assert live.MAX_BYTES // 4 < len(kept) * size <= live.MAX_BYTES


def test_rows_told_again_are_not_thinned_for_it(home: Home, writer: LiveWriter) -> None:
    for _ in range(5):
        writer.write([report(steps=range(6000))])
    assert len(steps(home)) == 6000


def test_rows_of_long_ago_are_forgotten(home: Home, writer: LiveWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_ATTEMPTS", 5)
    for job in range(1, 11):
        writer.write([report(job, range(2))])
    for job in (3, 1, 2, 9, 8, 7):  # they end in this order; the others run on
        writer.forget(job, 1)
    # Ten with rows and room for five: the five that ended first are gone, never one that runs.
    assert [job for job in range(1, 11) if steps(home, job)] == [4, 5, 6, 7, 10]
    for job in (4, 5, 6, 10):
        writer.forget(job, 1)
    assert [job for job in range(1, 11) if steps(home, job)] == [4, 5, 6, 7, 10]
