"""Which finished jobs and cells answer a key, asked for many at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal, Role
from core.states import EventKind as K
from lab.answers import answer_in_cache, answers_for
from tests.core.pooled import batch, compact, sweep
from tests.lab.conftest import Submit
from tests.lab.toys import finish


@pytest.fixture
def journal(home: Home) -> Iterator[Journal]:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal:
        yield journal


def fill(journal: Journal, cells: int = 8) -> dict[int, str]:
    """A sweep of which two batches are done. Returns the keys of its cells."""
    with journal.transaction() as tx:
        s = sweep(tx, {"a": list(range(cells))})
        batch(tx, s + 1, s + cells // 2, lambda j: {"v": j})
        batch(tx, s + cells // 2 + 1, s + cells - 1, lambda j: {"v": j}, table="other")
    return {r[0]: r[1] for r in journal.conn.execute("SELECT id, key FROM job_state WHERE sweep = ? ORDER BY id", (s,))}


@pytest.mark.parametrize("compacted", [False, True])
def test_cells_answer_with_their_rows_alone(home: Home, journal: Journal, compacted: bool) -> None:
    keys = fill(journal)
    if compacted:
        compact(journal)
    found = answers_for(home, journal.conn, [*keys.values(), "unknown"])
    done = list(keys)[:-1]  # the last one is still queued
    assert found.done == {keys[j]: j for j in done}
    assert found.why == {}
    job, why = answer_in_cache(home, journal.conn, keys[done[0]])
    assert job is not None
    assert (job.id, why) == (done[0], "")


@pytest.mark.parametrize("how", ["inline", "flipped", "missing"])
def test_damaged_rows_answer_nothing(home: Home, journal: Journal, how: str) -> None:
    keys = fill(journal)
    jobs = list(keys)
    if how == "inline":
        journal.conn.execute(
            "UPDATE payload SET data = zeroblob(length(data)) WHERE id = (SELECT min(id) FROM payload)"
        )
    else:
        compact(journal)
        (file,) = (home.tables / "t").iterdir()
        if how == "missing":
            file.unlink()
        else:
            blob = bytearray(file.read_bytes())
            blob[len(blob) // 2] ^= 1
            file.write_bytes(blob)
    found = answers_for(home, journal.conn, keys.values())
    # The batch whose rows are in another table is not drawn in.
    assert set(found.done.values()) == set(jobs[4:7])
    word = "gone" if how == "missing" else "damaged"
    assert found.why[keys[jobs[0]]] == f"job {jobs[0]} is the same but its part of table t is {word}"
    assert len(found.why) == 4


def test_a_wide_part_speaks_only_for_jobs_that_wrote_to_it(home: Home, journal: Journal) -> None:
    """Compacted parts span ids of jobs of other kinds: damage there does not stop those from answering."""
    with journal.transaction() as tx:
        s = sweep(tx, {"a": list(range(6))})
        batch(tx, s + 1, s + 2, lambda j: {"v": j})
        batch(tx, s + 3, s + 4, lambda j: {"v": j}, table="other")
        batch(tx, s + 5, s + 6, lambda j: {"v": j})
    compact(journal)
    (home.tables / journal.conn.execute("SELECT path FROM part WHERE tbl = 't'").fetchone()[0]).unlink()
    keys = [r[0] for r in journal.conn.execute("SELECT key FROM job_state WHERE sweep = ? ORDER BY id", (s,))]
    found = answers_for(home, journal.conn, keys)
    assert sorted(found.done.values()) == [s + 3, s + 4]


def test_plain_jobs_and_reasons(home: Home, ask: Submit) -> None:
    good, read, lost = (ask(alpha=a).id for a in (1.0, 2.0, 3.0))
    rows = [{"cell": "a", "err": 1.0}]
    finish(home, good, rows=rows)
    finish(home, read, rows=rows, undeclared=["/etc/x"])
    finish(home, lost, rows=rows)
    home.run_dir(lost, 1).manifest.unlink()
    with Journal.open(home, Role.CLIENT) as journal:
        key = {r[0]: r[1] for r in journal.conn.execute("SELECT id, key FROM job_state")}
        found = answers_for(home, journal.conn, key.values())
        assert found.done == {key[good]: good}
        assert found.why[key[read]] == f"job {read} is the same but read files that were not declared"
        assert found.why[key[lost]] == f"job {lost} is the same but its run directory is gone"
        with journal.transaction() as tx:
            tx.append(K.DISCARDED, job=good, data={"what": ["results"], "bytes": 0})
        assert "discarded" in answers_for(home, journal.conn, [key[good]]).why[key[good]]
    # Another one of the same key stands in for it.
    again = ask(alpha=1.0).id
    assert again not in (good, read, lost)
    finish(home, again, rows=rows)
    with Journal.open(home) as journal:
        found = answers_for(home, journal.conn, [key[good]])
        assert (found.done, found.why) == ({key[good]: again}, {})


def test_ten_thousand_keys_at_once(home: Home, journal: Journal) -> None:
    with journal.transaction() as tx:
        s = sweep(tx, {"a": list(range(10_000))})
        for first in range(s + 1, s + 10_001, 500):
            batch(tx, first, first + 499, lambda j: {"v": j})
    keys = [r[0] for r in journal.conn.execute("SELECT key FROM job_state WHERE sweep = ?", (s,))]
    for compacted in (False, True):
        if compacted:
            compact(journal)
        began = time.perf_counter()
        assert len(answers_for(home, journal.conn, keys).done) == 10_000
        print(f"compacted={compacted}: {time.perf_counter() - began:.3f} s")
        assert time.perf_counter() - began < 5.0


def test_nothing_is_opened_for_keys_that_nobody_has(home: Home, journal: Journal, tmp_path: Path) -> None:
    fill(journal)
    found = answers_for(home, journal.conn, ["x"] * 100)
    assert (found.done, found.why) == ({}, {})
