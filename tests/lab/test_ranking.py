"""`lab explain` and `--plan` say where a job should go, and why nowhere else: from the journal alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.cluster import load
from core.grid import Grid
from core.home import Home
from core.journal import Journal, Role, query
from core.live import LiveWriter
from core.states import EventKind as K
from lab.capacity import lane_books
from lab.commands._plan import PlanReport
from lab.explain import Explanation, explain
from lab.output import Page
from lab.plan import plan
from lab.ranking import Ranked
from lab.submission import Request
from lanes.ends import read_ends
from tests.lab.conftest import Submit

CLUSTER = """lanes:
  quick: {transport: local, cores: 1}
  slow: {transport: local, cores: 2}
  small: {transport: local, cores: 1, roles: [promote]}
  gone: {transport: local, cores: 4}
"""
SLOWNESS = {"quick": 1.0, "slow": 4.0}


def event(home: Home, kind: K, **more: object) -> None:
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        tx.append(kind, **more)  # type: ignore[arg-type]


def place(home: Home, job: int, lane: str, cores: int = 1) -> None:
    event(home, K.PLACED, job=job, attempt=1, lane=lane, data={"nonce": "n", "grant": {"cores": cores}})


def ended(home: Home, job: int, lane: str, seconds: float) -> None:
    """As the controller writes down an attempt that took so long."""
    place(home, job, lane)
    event(home, K.STARTED, job=job, attempt=1, lane=lane, data={"pid": 1, "boot": "b"})
    end = {"state": "succeeded", "cause": "ok", "message": "", "seconds": seconds, "parts": [], "undeclared": []}
    event(home, K.ATTEMPT_ENDED, job=job, attempt=1, lane=lane, data=end)
    event(home, K.JOB_ENDED, job=job, data={"state": "succeeded", "cause": "ok", "reason": "", "undeclared": 0})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A lab of four lanes, with a controller as if it were up."""
    monkeypatch.setattr("lab.explain.controller_alive", lambda _: True)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return Home(tmp_path / "home", tmp_path / "cluster.yaml")


@pytest.fixture
def taught(home: Home, ask: Submit) -> Home:
    """Two lanes of which one is four times slower, by twelve jobs; one that may do nothing; one out of reach."""
    for i in range(12):
        lane = ("quick", "slow")[i % 2]
        ended(home, ask(alpha=1 + i // 2 % 3, label=f"n{i}").id, lane, 10.0 * (1 + i // 2 % 3) * SLOWNESS[lane])
    for name, state in (("quick", "up"), ("slow", "up"), ("small", "up"), ("gone", "unreachable")):
        data = {"state": state, "reason": "no answer" if name == "gone" else "", "info": {"cores": 4}}
        event(home, K.LANE, lane=name, data=data)
    return home


def told(home: Home, job: int) -> Explanation:
    with Journal.open(home) as journal:
        return explain(home, journal.conn, job)


def by_name(lanes: list[Ranked]) -> dict[str, Ranked]:
    return {r.lane: r for r in lanes}


def test_the_lanes_of_a_waiting_job_are_ranked(taught: Home, ask: Submit) -> None:
    said = told(taught, ask(alpha=2, label="new").id)
    assert said.lane == "quick"
    assert [r.lane for r in said.lanes][:2] == ["quick", "slow"]
    lanes = by_name(said.lanes)
    quick, slow = lanes["quick"], lanes["slow"]
    assert quick.takes_s == pytest.approx(20, rel=0.2)
    assert slow.takes_s == pytest.approx(80, rel=0.2)
    assert quick.speed == 1.0
    assert slow.speed == pytest.approx(0.25, rel=0.15)
    assert (quick.ends, quick.known_from) == (6, "6 runs")
    assert (lanes["small"].can, lanes["small"].why) == (False, "not admitted for eval")
    assert (lanes["gone"].can, lanes["gone"].why) == (False, "the lane is unreachable: no answer")
    assert lanes["gone"].speed is None


def test_it_waits_for_the_lane_where_it_is_done_sooner(taught: Home, ask: Submit) -> None:
    runs, waits = ask(alpha=1, label="runs").id, ask(alpha=3, label="waits").id
    place(taught, runs, "quick")
    said = told(taught, waits)
    assert said.lane == "quick"
    assert "waits for quick: there it should be done in about" in said.sentence
    assert "and on slow, which has room, in" in said.sentence
    lanes = by_name(said.lanes)
    assert lanes["quick"].wait_s == pytest.approx(10, abs=5)
    assert not lanes["quick"].free
    assert lanes["slow"].free
    # The twin: were the quick lane taken for much longer, it would go to the slow one.
    place(taught, ask(alpha=40, label="long").id, "quick")
    assert told(taught, waits).lane == "slow"


def test_another_kind_says_how_fast_a_lane_may_be(taught: Home) -> None:
    with Journal.open(taught) as journal:
        speeds = read_ends(journal.conn)
    assert speeds.known_from("quick", "never seen") == "6 of other kinds"
    assert speeds.slowness("slow", "never seen").log > speeds.slowness("quick", "never seen").log + 0.5


def test_a_plan_shows_the_same(taught: Home, here: Path, toy: Path) -> None:
    (planned,) = plan(taught, [Request("toy", {"alpha": 2, "label": "planned"})], cwd=here)
    assert planned.lane == "quick"
    assert [r.lane for r in planned.lanes][:2] == ["quick", "slow"]
    assert planned.lanes[0].takes_s == pytest.approx(20, rel=0.2)
    assert planned.expected_s == planned.lanes[0].takes_s, "the plan and the ranking beside it say one thing"
    # The twin: the median of the kind says nothing of this one.
    (longer,) = plan(taught, [Request("toy", {"alpha": 3, "label": "planned"})], cwd=here)
    assert longer.expected_s == pytest.approx(30, rel=0.2)


def test_the_cells_of_a_sweep_are_not_all_alike(taught: Home, here: Path, toy: Path) -> None:
    request = Request("toy", {"label": "planned"}, grid=Grid.of({"alpha": [1, 2, 3]}), literal=True)
    (planned,) = plan(taught, [request], cwd=here)
    assert planned.lanes[0].takes_s == pytest.approx(10, rel=0.2), "that of its first cell"
    assert planned.expected_s == pytest.approx(10 + 20 + 30, rel=0.2)
    words = list(PlanReport([planned]).text(Page(120, False, True, False)))
    assert words.index("Its first cell:") < next(i for i, line in enumerate(words) if "KNOWN FROM" in line)


def test_a_lane_without_a_warm_worker_for_it_says_why(taught: Home, ask: Submit) -> None:
    """As the controller writes it into the live view, for it alone knows."""
    job = ask(alpha=2, label="new").id
    with Journal.open(taught) as journal:
        spec = query.job(journal.conn, job).spec
    live = LiveWriter(taught)
    why = "its workers failed to start twice; tried again in a minute"
    live.lane("quick", {"cores": 4, "barred": {spec: why, "other": "x"}})
    live.lane("slow", {"cores": 4, "barred": {"other": "y"}})
    said = told(taught, job)
    lanes = by_name(said.lanes)
    assert said.lane == "slow"
    assert (lanes["quick"].can, lanes["quick"].why) == (False, f"no warm worker for it now: {why}")
    assert lanes["slow"].can
    # The twins: with no lane left it runs by itself, and what is free again is not barred.
    live.lane("slow", {"cores": 4, "barred": {spec: why}})
    assert told(taught, job).lane == "quick"
    live.lane("quick", {"cores": 4, "barred": {}})
    live.lane("slow", {"cores": 4, "barred": {}})
    assert by_name(told(taught, job).lanes)["quick"].can
    live.close()


def test_what_has_ended_has_no_ranking(taught: Home) -> None:
    assert told(taught, 1).lanes == []


def test_nothing_is_known_at_first(home: Home, ask: Submit) -> None:
    said = told(home, ask(alpha=1).id)
    assert {r.known_from for r in said.lanes} == {""}
    assert {r.takes_s for r in said.lanes} == {None}


def test_the_newest_ends_are_read_with_their_start_up(taught: Home) -> None:
    with Journal.open(taught) as journal:
        conn = journal.conn
        speeds = read_ends(conn)
        job = query.job(conn, 1)
        assert speeds.ends(job.kind) == 12
        assert speeds.start_s("quick") < 0.5
        assert read_ends(conn, ends=3).ends(job.kind) == 3
        assert set(lane_books(load(taught.cluster_file), conn)) == {"quick", "slow", "small", "gone"}
