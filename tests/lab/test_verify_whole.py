"""`lab verify` of a whole home: nothing is said of an honest one, and each planted difference is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from core.digests import Digests
from core.errors import Exit
from core.home import Home
from core.journal import Journal, Role
from core.states import EventKind as K
from core.study import Take
from lab import gc, main
from lab.gc import Limits, collect, plan
from lab.verifying import Whole, whole
from tests.core.pooled import compact
from tests.lab.conftest import Submit
from tests.lab.test_gc import in_batches
from tests.lab.toys import finish


@pytest.fixture
def full(home: Home, ask: Submit) -> Home:
    """A maker, a taker, a failure with a seal, a sweep in two batches, a pin, remembered digests."""
    made = ask(label="data").id
    finish(home, made, rows=[{"cell": "a", "err": 0.5}], artifacts={"model.pt": "weights"})
    taker = ask(label="end", request={"takes": [Take("data", made, "model.pt")]}).id
    finish(home, taker, rows=[{"cell": "b", "err": 1.0}])
    failed = ask(label="bad").id
    finish(home, failed, state="failed", cause="error", artifacts={"last.txt": "words"})
    ask(label="waits")
    assert (made, taker, failed) == (1, 2, 3)
    in_batches(home)
    with Journal.open(home, Role.CONTROLLER) as journal:
        compact(journal)
        with journal.transaction() as tx:
            tx.append(K.PINNED, job=taker, data={"claim": "", "why": "figure 3"})
    # A minute ahead: what is young is not remembered.
    with Digests(home.digests, clock=lambda: 1e12) as digests:
        digests.tree(home.run_dir(made, 1).artifacts)
    return home


def seen(home: Home) -> Whole:
    with Journal.open(home) as journal:
        return whole(home, journal.conn)


def problems(home: Home) -> list[str]:
    found = seen(home)
    return [p for v in found.jobs for p in v.problems] + [p for s in found.sections for p in s.problems]


def test_an_honest_home_raises_no_alarm(full: Home) -> None:
    compiled = store(full) / "__pycache__"
    compiled.mkdir()
    (compiled / "x.cpython-311.pyc").write_bytes(b"what Python compiled while a job ran from there")
    found = seen(full)
    assert found.ok
    assert problems(full) == []
    assert {v.job for v in found.jobs} == {1, 2, 3, 5}  # the failed one too; nothing of the one that waits
    counted = {s.what: s.checked for s in found.sections}
    assert counted["taken file"] == counted["pin"] == counted["remembered digest"] == 1
    assert counted["batch file"] == 6
    assert counted["table part"] >= 3
    assert counted["code store"] >= 1
    assert counted["event"] > 10


def flip(path: Path, at: int = 0) -> None:
    """One bit of one byte; the size stays."""
    path.chmod(0o644)
    blob = bytearray(path.read_bytes())
    blob[at] ^= 1
    path.write_bytes(blob)


def store(home: Home) -> Path:
    return next(p for p in sorted(home.code.iterdir()) if not p.name.startswith("."))


def module(home: Home) -> Path:
    return next(p for p in sorted(store(home).rglob("*.py")))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


PLANTED: dict[str, tuple[Callable[[Home], object], str]] = {
    "artifact": (lambda h: flip(h.run_dir(1, 1).artifacts / "model.pt"), "model.pt: the bytes differ"),
    "log of a failure": (lambda h: flip(h.run_dir(3, 1).log), "log.txt: the bytes differ"),
    "seal of a failure": (lambda h: flip(h.run_dir(3, 1).manifest), "is not the one that was committed"),
    "no seal of a failure": (lambda h: h.run_dir(3, 1).manifest.unlink(), "manifest.json is missing"),
    "extra file": (lambda h: (h.run_dir(3, 1).artifacts / "x").touch(), "x: appeared after the seal"),
    "gone": (lambda h: shutil.rmtree(h.run_dir(1, 1).artifacts), "model.pt: missing (7 bytes were sealed)"),
    "part": (lambda h: flip(h.tables / "toys" / "1-1.parquet", 40), "from job 1 (toys/1-1.parquet) is damaged"),
    "missing part": (lambda h: (h.tables / "toys" / "2-1.parquet").unlink(), "(toys/2-1.parquet) is missing"),
    "truncated part": (lambda h: cut(h.tables / "toys" / "2-1.parquet"), "bytes where "),
    "compacted part": (lambda h: flip(next((h.tables / "t").glob("*.parquet")), 40), "of table 't'"),
    "batch": (lambda h: flip(next(p for p in h.batches.iterdir()) / "log.txt"), "log.txt: the bytes differ"),
    "batch seal": (
        lambda h: (next(p for p in h.batches.iterdir()) / "manifest.json").unlink(),
        "manifest.json is missing",
    ),
    "code": (lambda h: flip(module(h)), "does not hold the code that jobs name"),
    "added code": (lambda h: (store(h) / "os.py").touch(), "does not hold the code that jobs name"),
    "mode of code": (lambda h: module(h).chmod(0o755), "does not hold the code that jobs name"),
    "no code": (lambda h: shutil.rmtree(store(h)), "is missing: the code that jobs name"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_difference_is_named(full: Home, name: str) -> None:
    plant, words = PLANTED[name]
    plant(full)
    found = problems(full)
    assert any(words in p for p in found), found
    assert len(found) == len(set(found))


def test_a_taken_file_that_its_maker_no_longer_holds(full: Home) -> None:
    """The maker's seal was made anew, and the journal's word for it: the files agree with each other, and yet."""
    run = full.run_dir(1, 1)
    manifest = json.loads(run.manifest.read_text())
    manifest["files"]["artifacts/model.pt"][0] = "0" * 64
    run.manifest.write_text(json.dumps(manifest))
    assert any("job 2 took data: the manifest of job 1 is not the one" in p for p in problems(full))
    spec = full.run_dir(2, 1).spec
    told = json.loads(spec.read_text())
    told["inputs"][0]["sha256"] = "1" * 64
    spec.write_text(json.dumps(told))
    assert any("spec.json: the bytes differ" in p for p in problems(full))


def test_a_state_that_no_event_tells_of(full: Home) -> None:
    """Somebody writes into the journal's tables: the failure becomes a success."""
    with sqlite3.connect(full.journal) as conn:
        conn.execute("DROP TRIGGER job_ends_once")
        conn.execute("UPDATE job_state SET state = 'succeeded' WHERE id = 3")
        conn.execute("DELETE FROM pin")
    conn.close()
    found = problems(full)
    assert any("table job_state has a row that its events do not tell of: 3" in p for p in found)
    assert any("table pin lacks a row that its events tell of: 2" in p for p in found)


def test_a_damaged_page_of_the_journal(full: Home) -> None:
    with sqlite3.connect(full.journal) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job_key'").fetchone()[0]
        size = conn.execute("PRAGMA page_size").fetchone()[0]
    conn.close()
    with full.journal.open("r+b") as f:
        f.seek((root - 1) * size + size - 40)
        f.write(b"\xff" * 8)
    assert any(p.startswith("the journal: ") for p in problems(full))


def test_a_memory_of_digests_that_is_wrong(full: Home) -> None:
    with sqlite3.connect(full.digests) as conn:
        conn.execute("UPDATE digest SET sha256 = ?", ("0" * 64,))
    conn.close()
    (said,) = problems(full)
    assert "model.pt for unchanged, and its bytes are others: remove it" in said
    full.digests.write_bytes(b"not a database")
    assert problems(full) == []  # it may be thrown away at any time


def test_what_is_pinned_must_be_there(full: Home) -> None:
    with Journal.open(full, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(K.DISCARDED, job=2, data={"what": ["files", "results"], "bytes": 1})
    assert any(p.startswith("job 2 is pinned (by hand: figure 3), and its results were") for p in problems(full))


def test_what_gc_removed_is_no_difference(full: Home) -> None:
    with Journal.open(full, Role.CLIENT) as journal:
        found = plan(full, journal.conn, Limits(0.0, 0.0, 0.0), 4e9)
        # What waits was answered by nobody; all else goes but the pinned job, and the one that it took of.
        assert {i.job for i in found.items if i.sort in (gc.RESULTS_OF, gc.FAILED)} >= {3}
        collect(full, journal, found)
    assert not full.run_dir(3, 1).path.exists()
    assert full.run_dir(1, 1).path.exists()
    assert problems(full) == []
    assert any("discarded on" in n for v in seen(full).jobs for n in v.notes)


def test_words(full: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(full.path))
    assert main.main(["verify"]) == Exit.OK
    said = capsys.readouterr().out
    assert "4 jobs, " in said
    assert "every byte is what was committed" in said
    assert "beside the jobs: " in said
    (store(full) / "os.py").touch()
    assert main.main(["verify", "1", "2"]) == Exit.OK  # these alone
    assert main.main(["verify"]) == Exit.JOB_FAILED
    assert "1 difference beside the jobs" in capsys.readouterr().out
    assert main.main(["verify", "--json"]) == Exit.JOB_FAILED
    told = json.loads(capsys.readouterr().out)
    assert told["equal"] is False
    assert [s["what"] for s in told["home"] if s["problems"]] == ["code store"]
