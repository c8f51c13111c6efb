"""The Python API: a handle for each job, tables as Arrow, and a notebook that shows both."""

from __future__ import annotations

import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import BadInput, JobFailed, NotFound
from core.home import Home
from core.journal import Journal, query
from core.states import JobState
from lab import Job, Jobs, Lab
from lab.api import StillRunning
from tests.lab.toys import finish

ROWS = [{"cell": "a", "err": 0.5}, {"cell": "<b>", "err": 2.0}]


@pytest.fixture
def lab(home: Home, here: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(here)
    return Lab(home, start=False)


def test_submit_with_keywords(lab: Lab) -> None:
    first = lab.submit("toy", alpha=2, label="20")
    assert (first.id, first.state, first.kind, first.answer) == (1, JobState.QUEUED, "toy", "new")
    assert first.params["label"] == "20"  # text stays text
    second = lab.submit("toy", alpha=3, after=first, needs={"cores": 1}, limits={"time_s": "5m"}, inputs=["train.py"])
    third = lab.submit("toy", params={"alpha": 4}, after=[first, second.id, "any:2"], inputs={"code": "train.py"})
    with Journal.open(lab.home) as journal:
        waits = [(str(c), u.id) for c, u in query.dependencies(journal.conn, third.id)]
    assert waits == [("ok", 1), ("ok", 2)]
    assert lab.submit("toy", alpha=2, label="20").answer == "queued-already"
    with pytest.raises(BadInput, match="did you mean `alpha`"):
        lab.submit("toy", alpah=1)


def test_plan_writes_nothing(lab: Lab) -> None:
    assert lab.plan("toy", alpha=2).lane == "local"
    assert not lab.home.path.exists()


def test_results_and_artifacts(lab: Lab) -> None:
    job = lab.submit("toy")
    assert job.artifacts() == {}
    with pytest.raises(NotFound, match="no committed results of job 1"):
        job.results()
    finish(lab.home, job.id, rows=ROWS, artifacts={"sub/m.pt": "w"})
    assert job.wait() is job
    assert job.results()["err"].to_pylist() == [0.5, 2.0]
    assert lab.results(sql="SELECT max(err) worst FROM toys").to_pylist() == [{"worst": 2.0}]
    assert lab.results("toys", jobs=[job]).num_rows == 2
    assert job.artifacts()["sub/m.pt"].read_text() == "w"
    assert job.logs() == "log of 1\n"
    assert lab.compare(job, 1).equal
    again = lab.submit("toy")
    assert (again.id, again.answer) == (1, "cached")
    assert lab.rerun(again, force=True).row.rerun_of == 1


def test_a_damaged_part_is_a_warning(lab: Lab) -> None:
    for alpha in (1, 2):
        finish(lab.home, lab.submit("toy", alpha=alpha).id, rows=ROWS)
    (lab.home.tables / "toys" / "2-1.parquet").unlink()
    with pytest.warns(UserWarning, match="from job 2"):
        assert lab.results("toys").num_rows == 2


def test_wait_ends_with_the_job(lab: Lab) -> None:
    """It is already waiting when the end comes; were that missed, it would raise StillRunning at its limit."""
    job = lab.submit("toy")
    looked = threading.Event()
    version = lab.journal.data_version

    def seen() -> int:
        looked.set()
        return version()

    lab.journal.data_version = seen  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: looked.wait(30) and finish(lab.home, job.id))
    thread.start()
    assert job.wait(timeout=30).state is JobState.SUCCEEDED
    thread.join()
    assert looked.is_set()


def test_wait_says_how_it_failed(lab: Lab) -> None:
    job = lab.submit("toy")
    with pytest.raises(StillRunning, match=r"job 1 is queued after 0.1 s") as still:
        job.wait(timeout=0.1)
    assert isinstance(still.value, TimeoutError)
    finish(lab.home, job.id, state="failed", cause="error")
    with pytest.raises(JobFailed, match=r"job 1 failed \(error\): it broke; see `lab logs 1`"):
        job.wait()
    assert job.wait(check=False).state is JobState.FAILED


def test_an_interrupt_stops_the_watching_only(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lab.submit("toy")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.api.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert job.row.wish is None
    assert job.state is JobState.QUEUED


def test_wishes(lab: Lab) -> None:
    job = lab.submit("toy")
    for ask, wish in ((job.hold, "hold"), (job.release, "release"), (job.cancel, "cancel")):
        ask()
        assert job.row.wish == wish
    with pytest.raises(NotFound):
        lab.job(7)


def test_lists_and_status(lab: Lab) -> None:
    assert lab.jobs() == []
    for alpha in (1, 2, 3):
        lab.submit("toy", alpha=alpha, tags=["odd"] if alpha % 2 else [])
    finish(lab.home, 2)
    assert [j.id for j in lab.jobs()] == [3, 2, 1]
    assert [j.id for j in lab.jobs(state="succeeded")] == [2]
    assert [j.id for j in lab.jobs(tag="odd", limit=1)] == [3]
    status = lab.status()
    assert (status.counts[JobState.QUEUED], status.controller) == (2, False)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        assert "background:#" not in str(attrs)  # it must do on white and on black

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_notebooks_show_jobs(lab: Lab) -> None:
    job = lab.submit("toy", name="<script>alert(1)</script>")
    for shown in (job, lab.jobs(), lab.status(), Jobs()):
        page = shown._repr_html_()
        assert "<script>" not in page
        reader = _Reader()
        reader.feed(page)
        assert reader.open == []
    assert repr(job) == "<Job 1 toy queued>"
    assert ("state", "queued") in list(job.__rich_repr__())
    assert isinstance(lab.jobs()[0], Job)


def test_the_object_goes_on_after_close(lab: Lab) -> None:
    with lab:
        lab.submit("toy")
    assert lab.job(1).state is JobState.QUEUED
    lab.close()


def test_a_real_run(lab_home: Home, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a controller, lanes and all."""
    monkeypatch.chdir(here)
    lab = Lab(lab_home)
    job = lab.submit("command", argv=["sh", "-c", "echo hello > out.txt"], outputs=["out.txt"])
    assert job.wait(timeout=120).state is JobState.SUCCEEDED
    assert job.artifacts()["out.txt"].read_text() == "hello\n"
    assert lab.submit("command", argv=["sh", "-c", "echo hello > out.txt"], outputs=["out.txt"]).answer == "cached"
