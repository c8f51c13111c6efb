"""`lab gc`: what goes is what was said, nothing that anybody needs, and all of it is recorded first."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from core.digests import Digests
from core.errors import Exit, NotFound
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.states import EventKind as K
from core.tables import part_problems, read_table
from lab import gc, main
from lab.answers import answers_for
from lab.evidence import verify
from lab.fetching import fetch
from lab.gc import DAY_S, Collected, Limits, Plan, collect, plan
from tests.core.pooled import batch, compact, end, sweep
from tests.lab.conftest import Submit
from tests.lab.toys import finish

ROWS = [{"cell": "a", "err": 0.5}]


@pytest.fixture
def jobs(home: Home, ask: Submit) -> tuple[int, int, int]:
    """One that succeeded, one that failed, one that waits."""
    good, bad, waits = (ask(alpha=a).id for a in (1.0, 2.0, 3.0))
    finish(home, good, rows=ROWS, artifacts={"model.pt": "weights"})
    finish(home, bad, state="failed", cause="error")
    for job in (good, bad):
        (home.run_dir(job, 1).work / "scratch.bin").write_bytes(b"x" * 1000)
    return good, bad, waits


def planned(home: Home, limits: Limits | None = None, *, days: float = 40) -> Plan:
    with Journal.open(home) as journal:
        return plan(home, journal.conn, limits or Limits(), time.time() + days * DAY_S)


def removed(home: Home, what: Plan) -> Collected:
    with Journal.open(home, Role.CLIENT) as journal:
        return collect(home, journal, what)


def sorts(p: Plan) -> set[str]:
    return {i.sort for i in p.items}


def files(home: Home) -> set[str]:
    return {p.relative_to(home.path).as_posix() for p in home.path.rglob("*")}


def test_young_things_stay(home: Home, jobs: tuple[int, int, int]) -> None:
    assert planned(home, days=0).items == ()


def test_what_is_removed_is_what_was_said(home: Home, jobs: tuple[int, int, int]) -> None:
    good, bad, _ = jobs
    before = files(home)
    said = planned(home)
    assert files(home) == before
    assert {(i.sort, i.job) for i in said.items} >= {(gc.SCRATCH, good), (gc.FAILED, bad)}
    done = removed(home, said)
    assert done.items == list(said.items)
    assert done.kept == []
    gone = before - files(home)
    for path in (p for i in said.items for p in i.paths):
        assert path in gone
    assert all(
        any(g == p or g.startswith(f"{p}/") or p.startswith(f"{g}/") for i in said.items for p in i.paths) for g in gone
    )
    assert planned(home).items == ()
    lines = [json.loads(line) for line in (home.path / "gc.log").read_text().splitlines()]
    assert [line["paths"] for line in lines] == [list(i.paths) for i in said.items]
    with Journal.open(home) as journal:
        events = [e for e in query.events(journal.conn) if e.kind == K.DISCARDED]
        assert [(e.job, e.attempt, e.data["what"]) for e in events] == [(bad, 1, ["run directory"])]


def test_what_answers_is_never_removed(home: Home, jobs: tuple[int, int, int]) -> None:
    good = jobs[0]
    with Journal.open(home) as journal:
        key = query.job(journal.conn, good).key
        before = read_table(home, journal.conn)
    removed(home, planned(home, Limits(older_than_s=0.0, scratch_s=0.0), days=4000))
    with Journal.open(home) as journal:
        assert answers_for(home, journal.conn, [key]).done == {key: good}
        assert verify(home, journal.conn, [good])[0].ok
        assert read_table(home, journal.conn).equals(before)


def test_results_go_only_when_their_age_is_named(home: Home, jobs: tuple[int, int, int], tmp_path: Path) -> None:
    good = jobs[0]
    limits = Limits(results_older_than_s=30 * DAY_S)
    assert gc.RESULTS_OF not in sorts(planned(home, limits, days=20))
    said = planned(home, limits)
    assert gc.RESULTS_OF in sorts(said)
    assert removed(home, said).kept == []
    with Journal.open(home) as journal:
        key = query.job(journal.conn, good).key
        found = answers_for(home, journal.conn, [key])
        assert found.done == {}
        assert found.why[key] == f"job {good} is the same but its results were discarded"
        with pytest.raises(NotFound):
            read_table(home, journal.conn)
        (checked,) = verify(home, journal.conn, [good])
        assert checked.ok
        assert checked.notes[0].startswith("its results were discarded on 2")
        with pytest.raises(NotFound, match=r"were discarded on .* by `lab gc`"):
            fetch(home, journal.conn, good, tmp_path / "out")
    assert not (home.path / "attempts" / str(good)).exists()
    assert not list((home.tables / "toys").glob("*.parquet"))
    assert planned(home, limits).items == ()


def test_a_kill_between_the_record_and_the_removal_loses_nothing(
    home: Home, jobs: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = planned(home)

    class Killed(BaseException):
        pass

    def die(path: Path) -> str:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(gc, "_remove", die)
        with pytest.raises(Killed):
            removed(home, said)
    assert (home.path / "gc.log").exists()
    again = planned(home)
    assert [i.paths for i in again.items] == [i.paths for i in said.items]
    assert removed(home, again).items == list(again.items)


def test_what_came_into_use_again_is_kept(home: Home, jobs: tuple[int, int, int], ask: Submit) -> None:
    good = jobs[0]
    said = planned(home, Limits(results_older_than_s=1.0))
    ask(alpha=9.0, request={"after": [f"ok:{good}"]})  # somebody needs it now
    done = removed(home, said)
    assert [k for k in done.kept if "in use again" in k]
    assert not [i for i in done.items if i.sort == gc.RESULTS_OF]
    assert (home.run_dir(good, 1).artifacts / "model.pt").exists()


def test_the_newest_jobs_are_kept(home: Home, jobs: tuple[int, int, int]) -> None:
    good, bad, _ = jobs
    assert {i.job for i in planned(home, Limits(keep_last=1)).items} == {good}
    assert bad not in {i.job for i in planned(home, Limits(keep_last=2)).items}
    assert planned(home, Limits(keep_last=2, results_older_than_s=0.0)).items == ()


def age(path: Path, days: float) -> None:
    when = time.time() - days * DAY_S
    os.utime(path, (when, when))


def test_leftovers(home: Home, jobs: tuple[int, int, int]) -> None:
    store = next(p for p in home.code.iterdir() if p.is_dir())
    old: list[Path] = []
    for name in (".x.1.ab.tmp", "tables/toys/.p.parquet.1.ab.tmp", "tables/toys/c1-9-abcd.parquet"):
        young, path = home.path / name, home.path / name.replace("1.ab", "1.ef").replace("abcd", "ef")
        young.write_text("somebody is writing this")
        path.write_text("left")
        age(path, 1)
        old.append(path)
    orphan, damaged = home.code / ("f" * 64), home.code / ".damaged.abc.def"
    for folder in (orphan, damaged):
        folder.mkdir()
        age(folder, 50)
    age(store, 50)  # old, but named by a job
    said = planned(home, days=0)
    paths = {home.path / p for i in said.items for p in i.paths}
    assert paths == {*old, orphan, damaged}
    removed(home, said)
    assert not any(p.exists() for p in paths)
    assert store.exists()
    assert (home.path / ".x.1.ab.tmp").exists()


def test_a_file_about_to_be_committed_is_kept(home: Home, ask: Submit) -> None:
    job = ask().id
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.PLACED, job=job, attempt=1, lane="local", data={"nonce": "x", "grant": {"cores": 1}})
    (home.tables / "toys").mkdir(parents=True)
    for name in (f"{job}-1.parquet", f"{job}-2.parquet"):
        (home.tables / "toys" / name).write_text("x")
    said = planned(home, days=1)
    assert [i.paths for i in said.items] == [(f"tables/toys/{job}-2.parquet",)]


def test_live_attempts_are_left_alone(home: Home, ask: Submit) -> None:
    job = ask().id
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        tx.append(K.PLACED, job=job, attempt=1, lane="local", data={"nonce": "x", "grant": {"cores": 1}})
    run = home.run_dir(job, 1)
    run.create()
    (run.work / "x").write_text("at work")
    assert planned(home, Limits(0.0, 0.0, 0.0)).items == ()


def test_checkpoints_of_attempts_that_another_overtook(home: Home, ask: Submit) -> None:
    job = ask().id
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        end_data = {"state": "failed", "cause": "preempted", "parts": []}
        tx.extend(
            [
                Event(K.PLACED, job, 1, "local", {"nonce": "x", "grant": {"cores": 1}}),
                Event(K.ATTEMPT_ENDED, job, 1, "local", end_data),
                Event(K.REQUEUED, job, data={"cause": "preempted", "reason": ""}),
            ]
        )
    step = home.run_dir(job, 1).checkpoints / "10"
    step.mkdir(parents=True)
    (step / "w.bin").write_bytes(b"w" * 500)
    assert planned(home, days=40).items == ()  # the job goes on, and may need it
    finish(home, job, rows=ROWS)
    keep = home.run_dir(job, 2).checkpoints / "20"
    keep.mkdir(parents=True)
    (keep / "w.bin").write_bytes(b"w")
    said = planned(home, days=2)
    assert [(i.sort, i.paths) for i in said.items] == [(gc.CHECKPOINTS, (f"attempts/{job}/1/checkpoints",))]
    removed(home, said)
    assert keep.exists()
    assert not step.exists()


def in_batches(home: Home, *, cells: int = 6) -> int:
    """A finished sweep of two batches with folders as a worker leaves them."""
    from tests.lab.batches import folder

    half = cells // 2
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        s = sweep(tx, {"a": list(range(cells))})
        for first in (s + 1, s + 1 + half):
            name = f"{first}-0000000{first % 9}"
            digest = folder(home, name, {j: f"log of {j}\n" for j in range(first, first + half)})
            batch(tx, first, first + half - 1, lambda j: {"v": j}, folder=name, manifest=digest)
        end(tx, s)
    return s


def test_batch_folders_go_when_their_rows_are_in_files(home: Home) -> None:
    s = in_batches(home)
    assert planned(home).items == ()  # rows are still in the journal
    with Journal.open(home, Role.CONTROLLER) as journal:
        compact(journal)
        keys = [r[0] for r in journal.conn.execute("SELECT key FROM job_state WHERE sweep = ?", (s,))]
    assert planned(home, days=20).items == ()
    said = planned(home)
    assert [i.sort for i in said.items] == [gc.BATCHES] * 2
    removed(home, said)
    assert list(home.batches.iterdir()) == []
    with Journal.open(home) as journal:
        assert len(answers_for(home, journal.conn, keys).done) == 6
        whole, cell = verify(home, journal.conn, [s, s + 2])
        assert whole.ok
        assert cell.ok
        assert len(whole.notes) == 2
        assert "were discarded on" in cell.notes[0]


def test_logs_say_that_they_were_discarded(
    home: Home, jobs: tuple[int, int, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad, _ = jobs
    s = in_batches(home)
    with Journal.open(home, Role.CONTROLLER) as journal:
        compact(journal)
    monkeypatch.setenv("LAB_HOME", str(home.path))
    home.run_dir(bad, 1).log.write_text("it broke\n")
    assert [main.main(["logs", str(i)]) for i in (bad, s + 1)] == [0, 0]
    assert capsys.readouterr().out == f"it broke\nlog of {s + 1}\n"
    removed(home, planned(home))
    for job in (bad, s + 1):
        assert main.main(["logs", str(job)]) == Exit.NOT_FOUND
        said = capsys.readouterr().err
        assert f"the log of attempt 1 of job {job} was discarded on 2" in said
        assert f"`lab rerun {job}` runs it again" in said


def test_results_of_cells_are_hidden_and_the_compactor_frees_them(home: Home, tmp_path: Path) -> None:
    s = in_batches(home)
    with Journal.open(home, Role.CONTROLLER) as journal:
        compact(journal)
        before = {p.name for p in (home.tables / "t").iterdir()}
    removed(home, planned(home, Limits(results_older_than_s=0.0), days=1))
    with Journal.open(home, Role.CONTROLLER) as journal:
        with pytest.raises(NotFound):
            read_table(home, journal.conn, "t", [s])
        assert {p.name for p in (home.tables / "t").iterdir()} == before
        compact(journal)
        assert list((home.tables / "t").iterdir()) == []
        assert journal.conn.execute("SELECT count(*) FROM part").fetchone()[0] == 0


def test_what_answers_for_a_younger_sweep_is_kept(home: Home) -> None:
    s = in_batches(home)
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        sweep(tx, {"a": [77]}, members=[s + 1, s + 4])  # it is not over
    said = planned(home, Limits(results_older_than_s=0.0), days=1)
    assert [i.job for i in said.items if i.sort == gc.RESULTS_OF] == [s + 2, s + 3, s + 5, s + 6]


def test_what_goes_is_counted_once(home: Home, jobs: tuple[int, int, int]) -> None:
    good, bad, _ = jobs
    said = planned(home, Limits(results_older_than_s=0.0))
    assert {i.sort for i in said.items if i.job == good} == {gc.RESULTS_OF}
    assert {i.sort for i in said.items if i.job == bad} == {gc.FAILED}
    paths = [p for i in said.items for p in i.paths]
    assert not [p for p in paths for q in paths if p != q and p.startswith(f"{q}/")]
    assert {i.sort for i in planned(home).items if i.job == good} == {gc.SCRATCH}


def test_run_directories_that_were_made_ahead(home: Home) -> None:
    in_batches(home)
    spare = home.batches / ".spare" / "77-1"
    spare.mkdir(parents=True)
    (spare / "log.txt").touch()
    assert planned(home, days=0).items == ()
    said = planned(home, days=2)
    assert [i.paths for i in said.items] == [("batches/.spare/77-1",)]
    removed(home, said)
    assert [p.name for p in spare.parent.iterdir()] == []


def test_the_folder_of_a_batch_that_the_journal_does_not_know(home: Home) -> None:
    """A second copy of a batch is in no row until it has won: what writes in its folder keeps it."""
    in_batches(home)
    copy = home.batches / "9-3"
    copy.mkdir(parents=True)
    (copy / "log.txt").touch()
    week = time.time() - 7 * 86400
    os.utime(copy, (week, week))
    assert planned(home, days=0).items == ()
    os.utime(copy / "log.txt", (week, week))
    assert [i.paths for i in planned(home, days=0).items] == [("batches/9-3",)]


def test_live_rows_of_old_attempts_are_forgotten(home: Home, jobs: tuple[int, int, int]) -> None:
    from core.live import LiveWriter, read_metrics

    good, _, waits = jobs
    live = LiveWriter(home)
    for job in (good, waits):
        row = json.dumps({"step": 1, "loss": 0.5})
        live.write([{"job": job, "attempt": 1, "phase": "running", "beat": 1, "metrics": [row], "metrics_at": 0}])
    live.close()
    had = {j: len(read_metrics(home, j, 1)) for j in (good, waits)}
    assert set(had.values()) == {1}
    assert gc.LIVE in sorts(planned(home))
    removed(home, planned(home))
    assert [len(read_metrics(home, j, 1)) for j in (good, waits)] == [0, 1]
    assert gc.LIVE not in sorts(planned(home))


def test_parts_on_the_list_are_never_leftovers(home: Home, jobs: tuple[int, int, int]) -> None:
    in_batches(home)
    with Journal.open(home, Role.CONTROLLER) as journal:
        compact(journal)
    removed(home, planned(home, Limits(0.0, 0.0), days=4000))
    with Journal.open(home) as journal, Digests(None) as digests:
        assert part_problems(home, journal.conn, query.parts(journal.conn), digests) == {}
