"""Inputs that lie on a lane: how they are told from paths of this machine, and what follows for the job."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from core import cluster
from core.cluster import Cluster
from core.digests import Digests
from core.errors import BadInput, ImpossibleNeed, LabError, NotFound, Unavailable
from core.home import Home
from core.journal import Journal, Role, query
from core.spec import Needs
from core.states import EventKind
from lab import resident
from lab.commands import _upload
from lab.explain import explain
from lab.planning import Preparer, Request
from lab.resident import Lanes, Resident
from lab.session import Session
from lab.submission import plan, rerun, submit

CLUSTER = """
lanes:
  local:
  mini: {transport: ssh, host: mini, cores: 4}
  bat00: {transport: ssh, host: bat00, cores: 4}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return Home(tmp_path / "home", tmp_path / "cluster.yaml")


@pytest.fixture
def lanes(home: Home) -> Cluster:
    return cluster.load(home.cluster_file)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Path]:
    """(lane, path there) -> what lies there: files of this machine that play the lane's. Nobody else answers."""
    there: dict[tuple[str, str], Path] = {}

    def ask(self: Lanes, lane: str, path: str) -> dict[str, Any]:
        if (lane, path) not in there:
            raise BadInput(f"{path} on lane {lane} is not there", hint="name an absolute path")
        found = Digests(None).of(there[lane, path])
        return {"path": path, "sha256": found.sha256, "size": found.size, "tree": found.tree}

    monkeypatch.setattr(Lanes, "_ask", ask)
    return there


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("mini:/data/x", Resident("mini:/data/x", None, "mini", "/data/x")),
        ("x=mini:/data/x", Resident("x=mini:/data/x", "x", "mini", "/data/x")),
        ("mini:~/x", Resident("mini:~/x", None, "mini", "~/x")),
        ("mini:/data/a=b", Resident("mini:/data/a=b", None, "mini", "/data/a=b")),
        ("x=mini:/data/a:b=c", Resident("x=mini:/data/a:b=c", "x", "mini", "/data/a:b=c")),
        # Not of a lane: the old reading stays.
        ("C:\\data\\x", None),
        ("C:/data/x", None),
        ("x=C:/data", None),
        ("data:v1/file", None),
        ("file:dest", None),
        ("mini:relative/path", None),
        ("mini", None),
        ("x=mini", None),
        ("/abs/path", None),
        ("", None),
        ("=mini:/x", None),
    ],
)
def test_which_words_name_a_lane(tmp_path: Path, lanes: Cluster, word: str, found: Resident | None) -> None:
    assert resident.resident(word, tmp_path, lanes) == found


def test_what_is_here_stays_what_it_is(tmp_path: Path, lanes: Cluster) -> None:
    (tmp_path / "mini:").mkdir()
    (tmp_path / "mini:" / "x").write_text("1")
    assert resident.resident("mini:/x", tmp_path, lanes) is None
    assert resident.resident("n=mini:/x", tmp_path, lanes) is None
    (tmp_path / "mini").write_text("1")  # a file with that name, to be put at an absolute place: refused elsewhere
    assert resident.resident("mini:/y", tmp_path, lanes) is None


def test_words_that_are_refused(tmp_path: Path, lanes: Cluster) -> None:
    with pytest.raises(NotFound, match=r"no lane is called 'molt'.*mini, bat00"):
        resident.resident("molt:/data/x", tmp_path, lanes)
    with pytest.raises(BadInput, match="lies on this machine; name it by its path: /data"):
        resident.resident("local:/data", tmp_path, lanes)
    for path in ("/a/../b", "/a\nb", "/a\0b"):
        with pytest.raises(BadInput):
            resident.resident(f"mini:{path}", tmp_path, lanes)


def test_the_job_is_bound_to_its_lane() -> None:
    mini, bat = Resident("a=mini:/a", "a", "mini", "/a"), Resident("b=bat00:/b", "b", "bat00", "/b")
    assert resident.bound(Needs(), []) == Needs()
    assert resident.bound(Needs(cores=2), [mini, mini]) == Needs(cores=2, lane="mini")
    assert resident.bound(Needs(lane="mini"), [mini]).lane == "mini"
    with pytest.raises(
        ImpossibleNeed, match=r"to run on bat00, and its input 'a=mini:/a' lies on mini; ask for --lane"
    ):
        resident.bound(Needs(lane="bat00"), [mini])
    with pytest.raises(ImpossibleNeed, match="lie on two lanes, mini and bat00"):
        resident.bound(Needs(), [mini, bat])


def sent(home: Home, here: Path, *inputs: str, **needs: Any) -> int:
    request = Request("toy", {}, inputs=inputs, needs=needs, code="none", force=True)
    return submit(home, [request], cwd=here)[0].id


def spec_of(home: Home, job: int) -> tuple[str, dict[str, Any]]:
    with Journal.open(home) as journal:
        row = query.job(journal.conn, job)
        return row.key, query.spec_of(journal.conn, row.spec)


def test_submitted_explained_and_the_same_key_as_the_bytes_here(
    home: Home, here: Path, toy: Path, data: dict[tuple[str, str], Path]
) -> None:
    (here / "scan").mkdir()
    (here / "scan" / "a.dat").write_text("1")
    data["mini", "/data/scan"] = here / "scan"
    far_key, far = spec_of(home, sent(home, here, "scan=mini:/data/scan"))
    assert far["needs"]["lane"] == "mini"
    item = far["inputs"][0]
    assert (item["name"], item["path"], item["lane"], item["tree"]) == ("scan", "/data/scan", "mini", True)
    near_key, near = spec_of(home, sent(home, here, "scan=scan"))
    assert near["needs"]["lane"] is None
    assert near["inputs"][0]["dest"] == item["dest"]
    # Content decides, not where it lies.
    assert far_key == near_key
    (here / "scan" / "a.dat").write_text("22")
    other_key, _ = spec_of(home, job := sent(home, here, "scan=mini:/data/scan"))
    assert other_key != far_key
    with Journal.open(home) as journal:
        told = explain(home, journal.conn, job)
    assert "its input scan lies on mini (/data/scan): it can only run there" in told.details


def test_a_place_in_work(home: Home, here: Path, toy: Path, data: dict[tuple[str, str], Path]) -> None:
    (here / "x.csv").write_text("1")
    data["mini", "/data/x.csv"] = here / "x.csv"
    _, spec = spec_of(home, sent(home, here, "mini:/data/x.csv:sub/y.csv"))
    assert (spec["inputs"][0]["path"], spec["inputs"][0]["dest"]) == ("/data/x.csv", "sub/y.csv")
    with pytest.raises(BadInput, match="outside the run directory"):
        sent(home, here, "mini:/data/x.csv:../y.csv")
    # A colon of the path itself comes first.
    data["mini", "/data/x.csv:v2"] = here / "x.csv"
    _, spec = spec_of(home, sent(home, here, "x=mini:/data/x.csv:v2"))
    assert spec["inputs"][0]["path"] == "/data/x.csv:v2"


def test_nothing_is_submitted_where_the_lane_says_no(
    home: Home, here: Path, toy: Path, data: dict[tuple[str, str], Path]
) -> None:
    for inputs, needs in ((["mini:/none"], {}), (["mini:/none"], {"lane": "bat00"}), (["molt:/x"], {})):
        with pytest.raises(LabError):
            sent(home, here, *inputs, **needs)
    assert not home.journal.exists()
    with pytest.raises(BadInput, match=r"'mini:/none:dest': /none:dest on lane mini is not there"):
        sent(home, here, "mini:/none:dest")


def test_rerun_asks_the_lane_again(home: Home, here: Path, toy: Path, data: dict[tuple[str, str], Path]) -> None:
    (here / "x.csv").write_text("1")
    data["mini", "/data/x.csv"] = here / "x.csv"
    job = sent(home, here, "x=mini:/data/x.csv")
    assert rerun(home, [job], force=True)[0].id != job
    (here / "x.csv").write_text("22")
    with pytest.raises(BadInput, match="is no longer what it was"):
        rerun(home, [job], force=True)


def controller(home: Home, answer: Callable[[str], dict[str, Any]]) -> threading.Thread:
    """Answers the first question as the controller would."""

    def work() -> None:
        with Journal.open(home, Role.CONTROLLER, create=True) as journal:
            for _ in range(2000):
                open_ = query.open_asks(journal.conn)
                if open_:
                    with journal.transaction() as tx:
                        body = {"hint": "", "data": {}, **answer(open_[0].data["path"]), "ask": open_[0].seq}
                        tx.append(EventKind.LANE_ANSWERED, lane=open_[0].lane, data=body)
                    return
                threading.Event().wait(0.01)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No controller of ours is started; somebody else answers."""
    monkeypatch.setattr("lanes.start.ensure_controller", lambda home: None)


@pytest.mark.usefixtures("_alone")
def test_the_controllers_answers(home: Home) -> None:
    home.create()
    good = {"ok": True, "message": "", "data": {"path": "/x", "sha256": "0" * 64, "size": 1, "tree": False}}
    asked = Lanes(home, answer_s=30)
    thread = controller(home, lambda path: good)
    assert asked.look("mini", "/x")["sha256"] == "0" * 64
    thread.join(10)
    assert asked.look("mini", "/x")["size"] == 1  # not asked twice
    thread = controller(home, lambda path: {"ok": False, "message": f"{path} on lane mini is not there"})
    with pytest.raises(BadInput, match="is not there"):
        asked.look("mini", "/y")
    thread.join(10)
    thread = controller(home, lambda path: {"ok": False, "message": "lane mini cannot be reached: no route"})
    with pytest.raises(Unavailable, match="lane mini cannot be reached: no route; nothing was submitted"):
        asked.look("mini", "/z")
    thread.join(10)


@pytest.mark.usefixtures("_alone")
def test_a_lane_that_does_not_answer_in_time(
    home: Home, here: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "ANSWER_S", 0.2)
    asked = Lanes(home, answer_s=0.2)
    with pytest.raises(Unavailable, match=r"lane mini has not said within 0\.2 s what /x holds; nothing was submitted"):
        asked.look("mini", "/x")
    with pytest.raises(Unavailable, match="while the controller is down; lab up"):
        plan(home, [Request("toy", {}, inputs=["mini:/x"], code="none")], cwd=here)


# Large uploads.


def upload(home: Home, here: Path, **request: Any) -> str:
    with Preparer(home, here) as preparer:
        made = preparer.prepare(Request("toy", {}, **request))
        return _upload.upload(preparer, [made])


def test_a_large_upload_is_said_before_it_happens(
    home: Home, here: Path, toy: Path, data: dict[tuple[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a", 60 << 20), ("b", 30 << 20)):
        (here / "big" / name).mkdir(parents=True)
        (here / "big" / name / "x").touch()
        os.truncate(here / "big" / name / "x", size)
    data["mini", "/data/big"] = here / "big"
    monkeypatch.setattr(_upload, "LARGE", 50 << 20)
    outside = here.parent
    said = upload(home, outside, inputs=[str(here / "big")], code="none", needs={"lane": "mini"})
    assert said.startswith("up to ")
    assert said.index(f"{here}/big/a (60") < said.index(f"{here}/big/b (30")
    assert "of it code" in said
    # Not when it stays here, lies there, or is little.
    assert upload(home, outside, inputs=[str(here / "big")], code="none", needs={"lane": "local"}) == ""
    assert upload(home, outside, inputs=["mini:/data/big"], code="none") == ""
    monkeypatch.setattr(_upload, "LARGE", 1 << 30)
    assert upload(home, outside, inputs=[str(here / "big")], code="none", needs={"lane": "mini"}) == ""


def test_a_person_is_asked_and_programs_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upload, "upload", lambda preparer, made: "up to 3 GB may be sent")
    nobody: Any = None
    here = Session()
    _upload.agree(here, nobody, [], yes=False)  # no terminal
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    asked: list[str] = []

    def confirm(text: str, **_: Any) -> bool:
        asked.append(text)
        return False

    monkeypatch.setattr(typer, "confirm", confirm)
    with pytest.raises(typer.Abort):
        _upload.agree(here, nobody, [], yes=False)
    assert len(asked) == 1
    _upload.agree(here, nobody, [], yes=True)
    here.use_json()
    _upload.agree(here, nobody, [], yes=False)
    assert len(asked) == 1


# How long a job waits for a lane that is out of reach.


def test_on_unreachable_reaches_the_spec(home: Home, here: Path, toy: Path) -> None:
    from lanes.patience import unreachable_s

    for word, kept, seconds in (
        ("wait", "wait", None),
        ("requeue-after:2h", "requeue-after:7200", 7200.0),
        ("requeue-after:30d", "requeue-after:2592000", 2592000.0),
        ("requeue-after:1.5s", "requeue-after:1.5", 1.5),
    ):
        request = Request("toy", {}, on_unreachable=word, code="none", force=True)
        _, spec = spec_of(home, submit(home, [request], cwd=here)[0].id)
        assert spec["on_unreachable"] == kept
        assert unreachable_s(spec) == seconds
    assert unreachable_s({"on_unreachable": "requeue-after:60s"}) == 60.0  # of an earlier version
    for bad in ("requeue-after:", "requeue-after:soon", "never", "requeue"):
        with pytest.raises(BadInput):
            submit(home, [Request("toy", {}, on_unreachable=bad, code="none")], cwd=here)
