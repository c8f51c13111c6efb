"""Sweeps and studies from Python."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core.errors import BadInput, JobFailed
from core.home import Home
from core.journal import Journal, query
from core.states import JobState
from core.study import Study
from lab import Lab
from lab.api import StillRunning, Sweep
from tests.lab.toys import batch, end_sweep, finish, open_sweep


@pytest.fixture
def lab(home: Home, here: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(here)
    return Lab(home, start=False)


def run(lab: Lab, sweep: Sweep, *, failed: tuple[int, ...] = ()) -> None:
    open_sweep(lab.home, sweep.id)
    for cell in sweep.cells():
        if cell.row.sweep == sweep.id:
            bad = cell.id - sweep.id in failed
            rows = [] if bad else [{"cell": str(cell.id), "err": cell.params["alpha"]}]
            finish(lab.home, cell.id, rows=rows, **({"state": "failed", "cause": "error"} if bad else {}))
    end_sweep(lab.home, sweep.id)


def test_a_sweep_from_submit_to_results(lab: Lab) -> None:
    sweep = lab.sweep(
        "toy", grid={"alpha": [1, 2, 3]}, params={"label": "p"}, at_once=2, tags=["t"], needs={"cores": 1}
    )
    assert (sweep.id, sweep.answer, sweep.state, len(sweep)) == (1, "new", "queued", 3)
    assert sweep.counts() == {JobState.QUEUED: 3}
    with pytest.raises(StillRunning, match="job 1 is queued"):
        sweep.wait(timeout=0.05)
    thread = threading.Thread(target=run, args=(lab, lab.job(1)))
    thread.start()
    assert sweep.wait(timeout=30).state == "succeeded"
    thread.join()
    assert sweep.results().column("err").to_pylist() == [1.0, 2.0, 3.0]
    assert [c.params["label"] for c in sweep.cells()] == ["p"] * 3
    assert sweep.cell(2).id == 3
    with pytest.raises(IndexError):
        sweep.cell(4)
    assert lab.sweep("toy", grid={"alpha": [1, 2, 3]}, params={"label": "p"}).answer == "cached"


def test_what_failed_and_again(lab: Lab) -> None:
    sweep = lab.sweep("toy", grid={"alpha": [1, 2, 3]})
    with pytest.raises(BadInput, match="no cell of sweep 1 has failed"):
        sweep.rerun_failed()
    run(lab, sweep, failed=(2,))
    with pytest.raises(JobFailed, match=r"sweep 1 failed: 2/3, 1 failed; first: 1\.2 alpha=2\.0: it broke"):
        sweep.wait()
    assert sweep.wait(check=False).state == "failed"
    assert [j.id for j in sweep.failed()] == [3]
    assert sweep.logs() == "log of 3\n"
    again = sweep.rerun_failed()
    assert (again.id, len(again), again.row.rerun_of) == (5, 1, 1)
    assert isinstance(lab.job(5), Sweep)
    assert not isinstance(lab.job(2), Sweep)
    assert [type(j).__name__ for j in lab.jobs()] == ["Sweep", "Sweep"]


def test_how_it_looks(lab: Lab) -> None:
    sweep = lab.sweep("toy", grid={"label": ["<b>", "x"]})
    run(lab, lab.sweep("toy", grid={"alpha": [5, 6]}), failed=(1,))
    assert repr(sweep) == "<Sweep 1 toy label 2 queued>"
    html = lab.job(4)._repr_html_()
    assert "1/2, 1 failed" in html
    assert "4.1 alpha=5.0: it broke" in html
    assert "<b>" not in sweep._repr_html_()
    assert lab.status().counts == {JobState.QUEUED: 1, JobState.FAILED: 1}


def test_progress_is_shown_when_asked(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = lab.sweep("toy", grid={"alpha": [1, 2]})
    with pytest.raises(StillRunning):
        sweep.wait(timeout=0.01, progress=True)
    assert "sweep 1 toy alpha 2  queued" in capsys.readouterr().err
    run(lab, sweep)
    sweep.wait()
    assert capsys.readouterr().err == ""


def test_cancel_hold_release(lab: Lab) -> None:
    sweep = lab.sweep("toy", grid={"alpha": [1, 2]})
    assert sweep.hold().row.wish == "hold"
    assert sweep.release().row.wish == "release"
    assert sweep.cancel().row.wish == "cancel"
    assert sweep.cell(1).refresh().row.wish is None


def test_a_study_is_one_transaction(lab: Lab) -> None:
    study = Study("pair")
    base = study.job("toy", {"alpha": 7}, name="base")
    study.sweep("toy", grid={"alpha": [1, 2]}, after=[base], name="many", needs={"cores": 1})
    before = lab.submit("toy")
    jobs = lab.submit_study(study, tags=["s"], after=before, key="k")
    assert [(j.id, j.name, type(j).__name__) for j in jobs] == [(2, "pair/base", "Job"), (3, "pair/many", "Sweep")]
    with Journal.open(lab.home) as journal:
        assert [u.id for _, u in query.dependencies(journal.conn, 2)] == [1]
        assert [u.id for _, u in query.dependencies(journal.conn, 3)] == [2]
        assert query.job(journal.conn, 3).idem == "k/many"
    assert [j.answer for j in lab.submit_study(study, key="k")] == ["same-key", "same-key"]


def test_a_kind_that_is_a_study(lab: Lab) -> None:
    with pytest.raises(BadInput, match="kind dag is a study of several jobs"):
        lab.submit("dag")
    assert [j.name for j in lab.submit_study("dag", params={"seeds": 1})] == ["dag/base", "dag/many", "dag/end"]
    with pytest.raises(BadInput, match="a study of several jobs, and inputs belong to one job"):
        lab.submit_study("dag", inputs=["x"])
    with pytest.raises(BadInput, match="node 'end' of study 'dag' is itself a study"):
        lab.submit_study("dag", params={"twice": True})
    with pytest.raises(BadInput, match="the cells of a sweep cannot be studies"):
        lab.sweep("dag", grid={"seeds": [1, 2]})


def test_a_submitter_looks_once(lab: Lab, here: Path, toy: Path) -> None:
    (here / "d.csv").write_text("1")
    with lab.submitter("quick", tags=["s"]) as submitter:
        first = submitter.submit(alpha=2)
        second = submitter.submit(alpha=3)
        again = submitter.submit(alpha=2)
        with pytest.raises(BadInput, match="greater than 0"):
            submitter.submit(alpha=-1)
    assert [(j.id, j.answer) for j in (first, second, again)] == [(1, "new"), (2, "new"), (1, "queued-already")]
    assert second.row.key == lab.submit("quick", alpha=3).key
    assert second.row.pooled
    with lab.submitter("toy") as submitter:  # inputs that follow from parameters are looked at each time
        assert submitter.submit(data="d.csv").row.key != submitter.submit(data=None).row.key


def test_logs_of_a_pooled_cell(lab: Lab) -> None:
    sweep = lab.sweep("quick", grid={"alpha": [1, 2]})
    open_sweep(lab.home, sweep.id)
    batch(lab.home, 2, 3, failed={3: "it broke"}, log="says {job}\n")
    assert (sweep.cell(1).logs(), sweep.logs()) == ("says 2\n", "says 3\n")
    # A run directory by that name is not its own.
    stray = lab.home.run_dir(2, 1).artifacts
    stray.mkdir(parents=True)
    (stray / "odd.txt").write_text("")
    assert sweep.cell(1).artifacts() == {}
