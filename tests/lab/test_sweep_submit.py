"""Sweeps: one transaction, the keys of single jobs, and no cell that is there already runs again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, NotFound
from core.grid import Grid
from core.home import Home
from core.journal import Journal, Role, query
from core.spec import Keys, key_of
from core.states import EventKind as K
from core.states import JobState
from lab.cells import canonical_text
from lab.planning import PreparedSweep, Preparer
from lab.submission import Request, Submitted, plan, prepare, rerun, submit
from tests.lab.conftest import Submit
from tests.lab.toys import end_sweep, finish, open_sweep

Sweep = Callable[..., Submitted]


@pytest.fixture
def sweep(home: Home, here: Path, toy: Path) -> Sweep:
    """Submit one sweep: keywords are axes, `request` and `grid` the rest."""

    def one(
        kind: str = "toy", *, grid: dict[str, Any] | None = None, request: dict[str, Any] | None = None, **axes: Any
    ):  # type: ignore[no-untyped-def]
        made = Grid.of(axes, **(grid or {}))
        return submit(home, [Request(kind, grid=made, literal=True, **(request or {}))], cwd=here)[0]

    return one


def rows(home: Home, sweep_id: int) -> list[query.Job]:
    with Journal.open(home) as journal:
        return query.cells(journal.conn, sweep_id)


def row(home: Home, job_id: int) -> query.Job:
    with Journal.open(home) as journal:
        return query.job(journal.conn, job_id)


def end(home: Home, answer: Submitted, *, failed: tuple[int, ...] = ()) -> None:
    """Run all own cells of a sweep; those with these numbers fail."""
    open_sweep(home, answer.id)
    for n in range(1, answer.cells + 1):
        if n in failed:
            finish(home, answer.id + n, state="failed", cause="error")
        else:
            finish(home, answer.id + n)
    end_sweep(home, answer.id)


# What is recorded.


def test_a_sweep_is_a_row_and_its_cells_are_the_jobs_behind_it(home: Home, ask: Submit, sweep: Sweep) -> None:
    ask(alpha=9)
    answer = sweep(
        alpha=[1, 2.5],
        mode=["fast", "slow"],
        grid={"exclude": [{"alpha": 2.5, "mode": "slow"}]},
        request={"at_once": 2, "max_fails": 0, "tags": ["t"], "priority": 3, "note": "why", "held": True},
    )
    assert (answer.id, answer.state, answer.answer, answer.total, answer.cells) == (2, JobState.HELD, "new", 3, 3)
    with Journal.open(home) as journal:
        found = query.sweep(journal.conn, 2)
        job = query.job(journal.conn, 2)
        kinds = [e.kind for e in query.events(journal.conn)]
    assert (found.cells, found.total, found.at_once, found.max_fails, found.pooled) == (3, 3, 2, 0, False)
    assert found.axes == (("alpha", (1.0, 2.5)), ("mode", ("fast", "slow")))
    assert (job.name, job.tags, job.priority, job.note) == ("alpha×mode 2×2", ("t",), 3, "why")
    cells = rows(home, 2)
    assert [(c.id, c.name) for c in cells] == [
        (3, "alpha=1.0 mode=fast"),
        (4, "alpha=1.0 mode=slow"),
        (5, "alpha=2.5 mode=fast"),
    ]
    assert {(c.sweep, c.state, c.priority) for c in cells} == {(2, JobState.QUEUED, 3)}
    assert kinds.count(K.SWEPT) == 1
    assert ask(alpha=7).id == 6


def test_a_cell_has_the_key_of_the_same_job(home: Home, here: Path, sweep: Sweep) -> None:
    answer = sweep(alpha=[1, 2.5], label=["ä", "'\"\\"], sizes=[[1], [4, 1]])
    for cell in rows(home, answer.id):
        alone = prepare(
            home, Request("toy", {n: cell.params[n] for n in ("alpha", "label", "sizes")}, literal=True), here
        )
        assert (alone.key, alone.params) == (cell.key, cell.params)


def test_keys_by_halves_are_keys(home: Home, here: Path, toy: Path) -> None:
    prepared = prepare(home, Request("toy", {"label": "ü"}), here)
    assert Keys(prepared.data).of(canonical_text(prepared.params).encode()) == prepared.key
    assert Keys(prepared.data).of(b'{"alpha":2}') == key_of(prepared.data, {"alpha": 2})


def test_words_become_what_the_kind_wants(home: Home, here: Path, toy: Path) -> None:
    grid = Grid.of({"label": [1, "x"], "alpha": ["1e-3"]})
    request = Request("toy", {"mode": "slow"}, grid=grid, words={"label": ["01", "x"], "alpha": ["1e-3"]})
    answer = submit(home, [request], cwd=here)[0]
    assert [(c.params["label"], c.params["alpha"]) for c in rows(home, answer.id)] == [("01", 0.001), ("x", 0.001)]
    with Journal.open(home) as journal:
        assert query.sweep(journal.conn, answer.id).axes == (("label", ("01", "x")), ("alpha", (0.001,)))


def test_inputs_that_follow_from_parameters_are_each_cells_own(home: Home, here: Path, sweep: Sweep) -> None:
    for name in ("a.csv", "b.csv"):
        (here / name).write_text(name)
    answer = sweep(data=["a.csv", "b.csv"], alpha=[1, 2])
    cells = rows(home, answer.id)
    with Journal.open(home) as journal:
        inputs = [query.spec_of(journal.conn, c.spec)["inputs"][0]["path"] for c in cells]
    assert inputs == [str(here / n) for n in ("a.csv", "a.csv", "b.csv", "b.csv")]
    assert len({c.spec for c in cells}) == 2
    for cell in cells:
        params = {"data": cell.params["data"], "alpha": cell.params["alpha"]}
        assert prepare(home, Request("toy", params, literal=True), here).key == cell.key
    (here / "b.csv").unlink()
    with pytest.raises(BadInput, match=r"the input 'b\.csv' does not exist"):
        sweep(data=["a.csv", "b.csv"])


def test_words_of_a_program_are_filled(home: Home, here: Path) -> None:
    argv = ["python", "train.py", "--lr={lr}", "{n}", "{other}", "{{n}}"]
    grid = Grid.of({"lr": [0.001, "1e-2"], "n": [1]}, base={"argv": argv})
    request = Request("command", grid=grid, words={"lr": ["1e-3", "1e-2"], "n": ["01"]}, code="none")
    answer = submit(home, [request], cwd=here)[0]
    assert [c.params["argv"][2:] for c in rows(home, answer.id)] == [
        ["--lr=1e-3", "01", "{other}", "{01}"],
        ["--lr=1e-2", "01", "{other}", "{01}"],
    ]
    assert row(home, answer.id).params["argv"] == argv
    for axes, words in (({"lr": [1], "m": [1]}, "axis `m` is used nowhere"), ({"argc": [1]}, "`argc` is used nowhere")):
        with pytest.raises(BadInput, match=words):
            submit(home, [Request("command", grid=Grid.of(axes, base={"argv": argv}), literal=True)], cwd=here)
    with pytest.raises(BadInput, match="axis `lr` is no parameter, and there are no words"):
        submit(home, [Request("command", grid=Grid.of({"lr": [1]}), literal=True)], cwd=here)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"alhpa": [1]}, "axis `alhpa` is no parameter of kind toy; did you mean `alpha`"),
        ({"alpha": [1, -1]}, "axis `alpha` of kind toy is -1: it must be greater than 0"),
        ({"alpha": [1, "x"]}, "axis `alpha` of kind toy is 'x'"),
        ({"alpha": [1, float("inf")]}, "cell alpha=inf holds a number that is not finite"),
        ({"alpha": [1, 1.0]}, "two cells are the same job: alpha=1 and alpha=1.0"),
        ({"label": ["a", "\udcff"]}, "is not UTF-8|valid"),
    ],
)
def test_refusals_name_axis_or_cell(home: Home, sweep: Sweep, axes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        sweep(**axes)
    assert not home.journal.exists()


def test_limits_belong_to_sweeps(home: Home, here: Path, toy: Path, sweep: Sweep) -> None:
    with pytest.raises(BadInput, match="--at-once is for sweeps"):
        submit(home, [Request("toy", at_once=2)], cwd=here)
    with pytest.raises(BadInput, match="--max-fails is -1"):
        sweep(alpha=[1], request={"max_fails": -1})
    with pytest.raises(BadInput, match="--at-once is 0"):
        sweep(alpha=[1], request={"at_once": 0})


def test_pooled_kinds_say_so(home: Home, ask: Submit, sweep: Sweep) -> None:
    assert row(home, ask("quick").id).pooled
    assert not row(home, ask("toy").id).pooled
    answer = sweep("quick", alpha=[1, 2])
    assert row(home, answer.id).pooled
    assert all(c.pooled for c in rows(home, answer.id))


def test_an_exclude_that_matches_nothing_is_said(home: Home, sweep: Sweep) -> None:
    said = sweep(alpha=[1, 2], grid={"exclude": [{"alpha": 5}]}).message
    assert said == "the exclude alpha=5 matches no cell"
    assert sweep(alpha=[1, 2, 3], grid={"exclude": [{"alpha": 3}]}).message == ""


# What is answered.


def test_the_same_sweep_again(home: Home, sweep: Sweep) -> None:
    first = sweep(alpha=[1, 2, 3])
    again = sweep(alpha=[3, 2, 1])  # the same cells
    assert (again.id, again.answer, again.total) == (first.id, "queued-already", 3)
    assert "it goes on as it was" not in again.message
    other = sweep(alpha=[1.0, 2.0, 3.0], request={"priority": 5, "max_fails": 0})
    assert other.id == first.id
    assert "it goes on as it was submitted first, with --priority 0, --max-fails none" in other.message
    end(home, first)
    done = sweep(alpha=[1, 2, 3])
    assert (done.id, done.answer, done.total, done.state) == (first.id, "cached", 3, JobState.SUCCEEDED)
    forced = sweep(alpha=[1, 2, 3], request={"force": True})
    assert (forced.id, forced.answer, forced.cells) == (5, "new", 3)


def test_cells_that_are_there_are_members(home: Home, ask: Submit, sweep: Sweep) -> None:
    single, live = ask(alpha=1), ask(alpha=2)
    finish(home, single.id)
    answer = sweep(alpha=[1, 2, 3])
    assert (answer.total, answer.cells, answer.done, answer.live) == (3, 1, 1, 1)
    with Journal.open(home) as journal:
        assert query.members(journal.conn, answer.id) == [single.id, live.id]
        assert query.sweep_counts(journal.conn, answer.id) == {JobState.SUCCEEDED: 1, JobState.QUEUED: 2}
    # A job is answered by a cell that is under way, too.
    assert ask(alpha=3).id == answer.id + 1
    # All are there, by several: the sweep has no cell of its own.
    finish(home, live.id)
    finish(home, answer.id + 1)
    every = sweep(alpha=[1, 2])
    assert (every.answer, every.cells, every.done) == ("new", 0, 2)


def test_what_failed_runs_again_and_nothing_else(home: Home, sweep: Sweep) -> None:
    first = sweep(alpha=[1, 2, 3, 4])
    end(home, first, failed=(2, 3))
    again = sweep(alpha=[1, 2, 3, 4])
    assert (again.id, again.cells, again.done) == (6, 2, 2)
    assert [c.params["alpha"] for c in rows(home, again.id) if c.sweep == again.id] == [2, 3]


def test_what_is_being_cancelled_does_not_answer(home: Home, sweep: Sweep) -> None:
    first = sweep(alpha=[1, 2])
    with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
        tx.append(K.CANCEL_ASKED, job=first.id, data={})
    assert sweep(alpha=[1, 2]).cells == 2
    assert sweep(alpha=[2, 9]).live == 1  # by the new one


def test_evidence_that_is_gone_is_said_once(home: Home, sweep: Sweep) -> None:
    first = sweep(alpha=[1, 2, 3])
    end(home, first)
    for n in (2, 3):
        home.run_dir(first.id + n, 1).manifest.unlink()
    again = sweep(alpha=[1, 2, 3])
    assert (again.cells, again.done) == (2, 1)
    assert "2 cells run again, for job" in again.message
    assert "is the same but its run directory is gone" in again.message


def test_keys_of_the_user(home: Home, sweep: Sweep, ask: Submit) -> None:
    first = sweep(alpha=[1, 2], request={"idem": "night"})
    end(home, first, failed=(1,))
    assert sweep(alpha=[1, 2], request={"idem": "night"}).answer == "same-key"
    with pytest.raises(BadInput, match=r"belongs to sweep 1, which is a different sweep \(3 cells here, 2 there\)"):
        sweep(alpha=[1, 2, 3], request={"idem": "night"})
    with pytest.raises(BadInput, match="belongs to sweep 1, which is a different sweep"):
        ask(alpha=1, request={"idem": "night"})


def test_two_sweeps_of_one_submit_share_cells(home: Home, here: Path, toy: Path) -> None:
    grids = [Grid.of({"alpha": a}) for a in ([1, 2], [2, 3])]
    first, second = submit(home, [Request("toy", grid=g, literal=True) for g in grids], cwd=here)
    assert (first.cells, second.cells, second.live) == (2, 1, 1)
    with Journal.open(home) as journal:
        assert query.members(journal.conn, second.id) == [first.id + 2]


def test_a_refused_submit_leaves_nothing(
    home: Home, here: Path, toy: Path, ask: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    requests = [Request("toy", grid=Grid.of({"alpha": [1, 2]}), literal=True), Request("toy", after=["ok:99"])]
    with Journal.open(home) as journal:
        before = journal.last_seq()
    with pytest.raises(NotFound):
        submit(home, requests, cwd=here)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # Ctrl-C after the cells were written, before the commit.
    monkeypatch.setattr("core.journal.store.Tx.extend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit(home, requests[:1], cwd=here)
    monkeypatch.undo()
    with Journal.open(home) as journal:
        assert journal.last_seq() == before
        assert journal.conn.execute("SELECT count(*) FROM cell").fetchone()[0] == 0


# Again.


def test_rerun_of_what_failed(home: Home, sweep: Sweep) -> None:
    first = sweep(alpha=[1, 2, 3], label=["a", "b"], request={"at_once": 2, "max_fails": 5, "tags": ["t"]})
    with pytest.raises(BadInput, match=r"no cell of sweep 1 has failed \(6 queued\)"):
        rerun(home, [first.id], failed=True)
    end(home, first, failed=(1, 6))
    again = rerun(home, [first.id], failed=True)[0]
    assert (again.id, again.cells, again.total) == (8, 2, 2)
    cells = rows(home, again.id)
    assert [(c.params["alpha"], c.params["label"], c.name) for c in cells] == [
        (1, "a", "alpha=1.0 label=a"),
        (3, "b", "alpha=3.0 label=b"),
    ]
    assert [c.key for c in cells] == [row(home, i).key for i in (2, 7)]
    with Journal.open(home) as journal:
        found, job = query.sweep(journal.conn, again.id), query.job(journal.conn, again.id)
    assert (found.at_once, found.max_fails) == (2, 5)
    assert found.axes == (("alpha", (1.0, 3.0)), ("label", ("a", "b")))
    assert (job.rerun_of, job.tags, job.name) == (1, ("t",), "2 of alpha×label 3×2")
    end(home, again, failed=(2,))
    third = rerun(home, [again.id], failed=True)[0]
    assert row(home, third.id).name == "1 of alpha×label 3×2"
    end(home, third)
    with pytest.raises(BadInput, match="no cell of sweep 11 has failed"):
        rerun(home, [third.id], failed=True)
    # All of the first again: what failed was mended elsewhere, and the answers come from several sweeps.
    every = rerun(home, [first.id])[0]
    assert (every.answer, every.cells, every.done) == ("new", 0, 6)
    assert rerun(home, [first.id], force=True)[0].cells == 6


def test_rerun_of_one_cell_is_a_job(home: Home, sweep: Sweep) -> None:
    first = sweep(alpha=[1, 2])
    end(home, first, failed=(2,))
    again = rerun(home, [first.id + 2])[0]
    job = row(home, again.id)
    assert (job.sweep, job.rerun_of, job.params["alpha"], job.is_sweep) == (None, 3, 2, False)


# Planned, and fast.


def test_plan(home: Home, here: Path, sweep: Sweep) -> None:
    request = Request("toy", grid=Grid.of({"alpha": [1, 2, 3, 4]}), literal=True, at_once=2)
    fresh = plan(home, [request], cwd=here)[0]
    assert (fresh.cells, fresh.done, fresh.live, fresh.to_run, fresh.expected_s) == (4, 0, 0, 4, None)
    assert not home.path.exists()
    first = sweep(alpha=[1, 2])
    end(home, first, failed=(2,))
    sweep(alpha=[3])
    planned = plan(home, [request], cwd=here)[0]
    assert (planned.done, planned.live, planned.to_run) == (1, 1, 2)
    assert planned.expected_s is not None
    assert 3.0 <= planned.expected_s <= 9.0, "two cells of 1.5 s, and the doubt of that"
    assert 1 <= planned.at_once <= 2
    with Journal.open(home) as journal:
        assert len(query.sweeps(journal.conn)) == 2


def test_ten_thousand_cells_are_quick(home: Home, ask: Submit, sweep: Sweep) -> None:
    ask()
    took = []
    for i in range(3):
        start = time.process_time()
        answer = sweep("quick", alpha=range(1, 10_001), label=[str(i)])
        took.append(time.process_time() - start)
        assert answer.cells == 10_000
    assert min(took) < 1.0  # of processor time: what else the machine does must not fail a test


def test_preparing_a_sweep_writes_nothing(home: Home, here: Path, toy: Path) -> None:
    with Preparer(home, here) as preparer:
        prepared = preparer.prepare(Request("toy", grid=Grid.of({"alpha": [1, 2]}), literal=True))
    assert isinstance(prepared, PreparedSweep)
    assert [json.loads(c.params)["alpha"] for c in prepared.cells.rows] == [1, 2]
    assert not home.path.exists()


def test_only_what_will_run_is_borrowed(home: Home, ask: Submit, sweep: Sweep) -> None:
    """A sweep shares the fate of the cells that it borrows: not of those that a person holds, or others may stop."""
    waits = ask(alpha=100)
    lenders = [
        sweep(alpha=[1, 2], request={"held": True}),
        sweep(alpha=[3, 4], request={"max_fails": 1}),
        sweep(alpha=[5, 6], request={"after": [f"ok:{waits.id}"]}),
        ask(alpha=7, request={"held": True}),
    ]
    assert sweep(alpha=[1, 3, 5, 7, 9]).cells == 5
    with Journal.open(home, Role.CONTROLLER) as journal, journal.transaction() as tx:
        for lender in lenders:
            tx.append(K.RELEASED, job=lender.id)
        tx.append(K.JOB_ENDED, job=waits.id, data={"state": "succeeded", "cause": "ok", "reason": ""})
    again = sweep(alpha=[2, 4, 6, 8])
    assert (again.cells, again.live) == (2, 2), "neither what failures of others stop, nor what is not there"
