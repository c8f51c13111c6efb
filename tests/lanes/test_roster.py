"""Remote lanes as the controller holds them: with a handle that reaches nothing, and no Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import live
from core.cluster import Cluster, LaneConfig
from core.errors import DiskFull
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.query import Attempt
from core.live import LiveWriter, read_lanes
from core.spec import Needs
from core.states import AttemptState, Cause, EventKind, JobState, LaneState
from lanes import asks as asking
from lanes import lookups, roster
from lanes.asks import Asks
from lanes.attempts import Attempts
from lanes.carrier.errors import BadHarvest
from lanes.dispatch import Dispatch
from lanes.handle import LaneHandle
from lanes.later import Later, Message
from lanes.ledger import LaneBook
from lanes.mirror import Mirror, Spec
from lanes.pool.pool import Pool
from lanes.remote import RemoteHandle
from lanes.roster import GONE, Roster
from lanes.transport import LinkDown
from tests.core import pooled
from tests.support import wait_for

MINI = LaneConfig("mini", transport="ssh", host="mini.example")
HELLO = {"cores": 4, "memory_mb": 1000, "gpus": [], "disk_free": 10 << 30, "pid": 7}
DOWN = {"up": False, "age_s": None, "error": "no route", "refused": None, "address": "mini.example:22"}


class Handle(RemoteHandle):
    """Starts no thread; what the actor would do is in `does`."""

    def __init__(self, home: Home, config: LaneConfig, inbox: Callable[[Message], None]) -> None:
        super().__init__(home, config, inbox)
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.done: list[tuple[str, tuple[Any, ...]]] = []
        self.does: Callable[..., Any] = lambda what, *args, **named: {}

    def start(self) -> None:
        pass

    def tell(self, method: str, *args: Any, **named: Any) -> None:
        self.told.append((method, args))

    def _do(self, what: str, *args: Any, **named: Any) -> Any:
        self.done.append((what, args))
        return self.does(what, *args, **named)


class Bench:
    """A journal, the parts that hold lanes, and an inbox that a test empties."""

    def __init__(self, home: Home, journal: Journal, cluster: Cluster) -> None:
        self.inbox: list[Message] = []
        self.home = home
        self.m = Mirror(home, journal, cluster)
        self.live = LiveWriter(home)
        self.roster = Roster(self.m, self.live, self.inbox.append)
        self.asks = Asks(self.m, self.roster, self.inbox.append)
        self.attempts = Attempts(self.m, self.live, self.inbox.append, Later())
        self.conn = journal.conn

    def begin(self) -> Handle:
        self.roster.declare()
        self.roster.start()
        return self.handle

    @property
    def handle(self) -> Handle:
        found = self.m.handles["mini"]
        assert isinstance(found, Handle)
        return found

    @property
    def state(self) -> tuple[LaneState, str]:
        row = next(lane for lane in query.lanes(self.conn) if lane.name == "mini")
        return row.state, row.reason

    def count(self, kind: EventKind) -> int:
        return int(self.conn.execute("SELECT count(*) FROM event WHERE kind = ?", (kind,)).fetchone()[0])

    def said(self, what: str) -> list[Any]:
        return [body for word, _lane, body in self.inbox if word == what]

    def place(self, job: int = 1, lane: str = "mini") -> Attempt:
        """A job, and an attempt of it that was placed."""
        spec = {"needs": {}, "limits": {"grace_s": 1.0}, "retries": {}, "on_unreachable": "requeue-after:60.0s"}
        data = {"kind": "toy", "key": f"{job:064d}", "params": {}, "spec": "s", "priority": 0, "idem": None}
        self.m.record(
            [
                Event(EventKind.SPEC, data={"digest": "s", "data": spec}),
                Event(EventKind.SUBMITTED, job, data={**data, "name": "", "tags": [], "note": "", "after": []}),
                Event(EventKind.PLACED, job, 1, lane, {"nonce": "n", "grant": {"cores": 1}}),
            ]
        )
        attempt = query.attempts(self.conn, job)[0]
        self.m.take_up(attempt)
        return attempt


@pytest.fixture
def bench(lab_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for module in (roster, asking):
        monkeypatch.setattr(module, "RemoteHandle", Handle)
    monkeypatch.setattr(LaneHandle, "start", lambda self: None)
    lab_home.create()
    with Journal.open(lab_home, Role.CONTROLLER, create=True) as journal:
        with journal.transaction() as tx:
            tx.append(EventKind.ADMITTED, lane="mini", data={"role": "eval", "ok": True})
        found = Bench(lab_home, journal, Cluster((MINI,)))
        monkeypatch.setattr(found.m, "tell_start", lambda job, attempt: None)  # its spec has nothing to be frozen
        yield found
        for handle in found.m.handles.values():
            handle.stop()
        found.live.close()


def ask(bench: Bench, what: str, lane: str = "mini", **data: Any) -> int:
    with bench.m.journal.transaction() as tx:
        return tx.append(EventKind.LANE_ASKED, lane=lane, data={"what": what, **data})


def answers(bench: Bench) -> None:
    for seq in [s for body in bench.said("answered") for s in body]:
        bench.asks.answer(seq)


# What people ask of a lane is not forgotten over the news of it.


def test_a_drain_that_nobody_has_answered_survives_what_is_said_of_the_lane(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    with bench.m.journal.transaction() as tx:
        tx.append(EventKind.DRAIN_ASKED, lane="mini", data={"reason": "new disk"})
    bench.roster.link("mini", {**DOWN, "age_s": 100.0})
    bench.m.books["mini"].state = LaneState.DECLARED  # as after a restart
    bench.roster.declare()
    assert lookups.lane_wishes(bench.conn) == [("mini", "drain", "new disk")]
    bench.roster.set_state("mini", LaneState.DRAINING, "new disk")
    assert lookups.lane_wishes(bench.conn) == [], "the answer itself clears it"


# The link.


def test_a_link_that_is_down_for_days_fills_no_journal(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    before = bench.count(EventKind.LANE)
    for i in range(1000):
        bench.roster.link("mini", {**DOWN, "age_s": 100.0, "error": f"try {i} failed"})
    assert bench.state == (LaneState.UNREACHABLE, "try 0 failed")
    assert bench.count(EventKind.LANE) == before + 1
    refused = {"cause": "auth", "message": "the key is not taken", "hint": "", "rung": "authenticated"}
    bench.roster.link("mini", {**DOWN, "refused": refused})
    assert bench.state[1] == "the key is not taken", "another kind of reason is told at once"


def test_a_link_that_comes_and_goes_fills_no_journal(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    before = bench.count(EventKind.LANE)
    for i in range(100):
        bench.roster.link("mini", {**DOWN, "age_s": 0.1})
        bench.roster.up("mini", {**HELLO, "disk_free": i, "pid": i})
    assert bench.count(EventKind.LANE) == before
    bench.roster.up("mini", {**HELLO, "cores": 8})
    assert bench.count(EventKind.LANE) == before + 1, "another machine is news"


def test_a_pause_that_we_asked_for_gives_no_job_up(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.place()
    bench.roster.link("mini", {**DOWN, "age_s": 100.0, "on_purpose": True})
    assert bench.state[0] is LaneState.UP
    bench.attempts.out_of_patience(1e12)
    assert (1, 1) in bench.m.open
    bench.roster.link("mini", {**DOWN, "age_s": 100.0, "on_purpose": False})
    bench.attempts.out_of_patience(1e12)
    assert (1, 1) not in bench.m.open


def test_a_lane_that_only_stumbles_is_out_of_reach_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.roster.trouble("mini", "odd")
    assert not bench.roster.out_of_reach("mini")
    monkeypatch.setattr(roster, "_LOST_S", 0.0)
    bench.roster.trouble("mini", "odd")
    assert bench.roster.out_of_reach("mini")
    bench.roster.answered("mini")
    assert not bench.roster.out_of_reach("mini")


def test_the_same_trouble_is_one_line(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.begin()
    for _ in range(100):
        bench.roster.trouble("mini", "odd")
    bench.roster.trouble("mini", "odder")
    assert capsys.readouterr().out.count("odd") == 2


def test_a_lane_that_is_resumed_is_up_when_it_answers_and_not_before(bench: Bench) -> None:
    bench.begin()
    bench.roster.set_state("mini", LaneState.DRAINING, "tests")
    bench.roster.set_state("mini", LaneState.UP, "")
    assert bench.state == (LaneState.UNREACHABLE, "it has not answered yet")
    bench.roster.up("mini", HELLO)
    assert bench.state == (LaneState.UP, "")


# A lane that was taken down.


def taken_down(bench: Bench) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.roster.set_state("mini", LaneState.DOWN, "smoke")
    bench.roster.leave("mini")


def handled(monkeypatch: pytest.MonkeyPatch, *said: tuple[str, Any]) -> threading.Event:
    """A climb that says `said` when it is let go on, and then that it has ended."""
    go = threading.Event()

    def climb(access: Any, data: dict[str, Any]) -> dict[str, Any]:
        assert go.wait(10)
        for what, body in said:
            access.say(what, body)
        access.knock()
        return {"ok": True, "message": "climbed"}

    monkeypatch.setattr("lanes.admission.admit", climb)
    monkeypatch.setattr("lanes.admission.probe", climb)
    return go


def hear(bench: Bench, *, answers: int) -> None:
    """What handlers say, as the controller hears it."""
    wait_for(lambda: len(bench.said("answered")) >= answers, "the answers")
    said, bench.inbox[:] = [*bench.inbox], []
    for what, lane, body in said:
        if what == "answered":
            bench.asks.answer(*body)
        elif what in asking.SAID:
            bench.asks.hear(what, lane, body)


REACHABLE = {"role": "", "rung": "reachable", "ok": False, "message": "it cannot be reached", "hint": ""}


def test_a_lane_that_was_taken_down_is_down_until_a_climb_has_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_down(bench)
    handled(monkeypatch, ("rung", REACHABLE)).set()
    ask(bench, "admit", jobs={})
    bench.asks.look()
    assert bench.state == (LaneState.DOWN, "smoke"), "while it climbs"
    hear(bench, answers=1)
    assert bench.state == (LaneState.DOWN, "smoke"), "that climb did not hold"
    bench.roster.up("mini", HELLO)
    bench.roster.answered("mini")
    assert bench.state == (LaneState.DOWN, "smoke"), "that its link comes back is no climb"
    assert not bench.m.books["mini"].view().open
    for wish in (LaneState.UP, LaneState.DRAINING):
        bench.roster.set_state("mini", wish, "")
        assert bench.state == (LaneState.DOWN, "smoke")


def test_a_climb_that_holds_brings_a_lane_back_that_was_taken_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_down(bench)
    handled(monkeypatch, ("admitted", {"role": "eval", "ok": True, "reason": ""})).set()
    ask(bench, "admit", jobs={})
    bench.asks.look()
    bench.roster.up("mini", HELLO)
    hear(bench, answers=1)
    assert bench.state == (LaneState.UP, "")
    assert bench.m.books["mini"].view().open


def test_a_climb_from_before_it_was_taken_down_does_not_bring_it_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    bench.begin()
    go = handled(monkeypatch, ("admitting", True), ("admitted", {"role": "eval", "ok": True, "reason": ""}))
    ask(bench, "admit", jobs={})
    bench.asks.look()
    ask(bench, "down", reason="smoke")
    bench.asks.look()
    go.set()
    hear(bench, answers=2)
    assert bench.state == (LaneState.DOWN, "smoke")
    assert not bench.m.books["mini"].admitting


def test_what_is_asked_while_a_lane_is_taken_down_waits_for_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    bench.begin()
    handled(monkeypatch).set()
    down = ask(bench, "down", reason="smoke")
    probe = ask(bench, "probe")
    bench.asks.look()
    hear(bench, answers=1)
    assert [a.seq for a in query.open_asks(bench.conn)] == [probe]
    hear(bench, answers=1)
    assert query.open_asks(bench.conn) == []
    assert bench.state == (LaneState.DOWN, "smoke")
    assert down < probe


# One climb at a time.


def test_a_second_climb_is_refused_and_its_jobs_are_cancelled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n  other: {transport: ssh, host: b}\n")
    bench.begin()
    bench.roster.reload()
    with bench.m.journal.transaction() as tx:
        job = pooled.sweep(tx, {"i": [1]})
    go = handled(monkeypatch)
    first = ask(bench, "admit", jobs={})
    bench.asks.look()
    second, probe = ask(bench, "admit", jobs={"cells": job}), ask(bench, "probe")
    elsewhere = ask(bench, "admit", lane="other", jobs={})
    bench.asks.look()
    hear(bench, answers=2)
    for seq in (second, probe):
        row = query.ask(bench.conn, seq)
        assert row is not None
        assert row.answer is not None
        assert row.answer["message"].startswith("mini climbs already, since ")
        assert row.answer["hint"] == "watch: lab lane admit mini"
    wait_for(lambda: query.job(bench.conn, job).wish == "cancel", "its jobs to be cancelled")
    assert [a.seq for a in query.open_asks(bench.conn)] == [first, elsewhere], "the first goes on, and other lanes"
    go.set()
    hear(bench, answers=2)
    again = ask(bench, "admit", jobs={})
    bench.asks.look()
    hear(bench, answers=1)
    row = query.ask(bench.conn, again)
    assert row is not None
    assert row.answer is not None
    assert row.answer["message"] == "climbed", "the first is over"


# Rungs that a link which is there proves.


def reachable(bench: Bench) -> bool:
    return next(r.ok for r in query.rungs(bench.conn, "mini") if r.rung == "reachable")


def test_a_link_that_is_back_makes_what_was_found_before_old(bench: Bench) -> None:
    bench.begin()
    bench.asks.hear("rung", "mini", REACHABLE)
    bench.asks.hear("rung", "mini", {**REACHABLE, "rung": "disk", "message": "full"})
    bench.roster.link("mini", DOWN)
    assert not reachable(bench), "it is as it was found"
    bench.roster.up("mini", HELLO)
    assert reachable(bench)
    assert [r.rung for r in query.rungs(bench.conn, "mini") if not r.ok] == ["disk"], "of that a link says nothing"
    count = bench.count(EventKind.RUNG)
    bench.roster.answered("mini")
    bench.roster.up("mini", HELLO)
    assert bench.count(EventKind.RUNG) == count, "it is said once"
    bench.asks.hear("rung", "mini", REACHABLE)
    assert not reachable(bench)
    bench.roster.answered("mini")  # the link came up as somebody gave up waiting for it
    assert reachable(bench)


# Settings that change while a lane is at work.


@pytest.mark.parametrize(
    "settings", ["about: the corner", "admission: {outlive_s: 3}", "roles: [eval]", "cores: 2", "resources: [scorer]"]
)
def test_what_a_link_does_not_depend_on_is_taken_up_in_place(bench: Bench, settings: str) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    handle = bench.begin()
    bench.roster.up("mini", HELLO)
    rewrite(bench, f"lanes:\n  mini: {{transport: ssh, host: mini.example, {settings}}}\n")
    assert bench.roster.reload() == ["lane mini is changed"]
    assert bench.handle is handle
    assert not handle.why_left
    assert bench.state == (LaneState.UP, ""), "its link is what it was"
    assert handle.config == bench.m.books["mini"].config != MINI
    assert bench.roster.reload() == []


def test_a_lane_that_is_silent_for_a_moment_stays_up_as_its_settings_change(bench: Bench) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.roster.link("mini", {**DOWN, "on_purpose": True})
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example, about: here}\n")
    bench.roster.reload()
    assert bench.state == (LaneState.UP, "")
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example, roles: [train]}\n")
    bench.roster.reload()
    assert bench.state == (LaneState.DECLARED, "not admitted yet"), "what it had earned it is not meant for"


def test_a_new_lane_does_not_make_the_others_unreachable(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    count = bench.count(EventKind.LANE)
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n  other: {transport: ssh, host: b}\n")
    assert bench.roster.reload() == ["lane other is new"]
    assert bench.state == (LaneState.UP, "")
    assert bench.count(EventKind.LANE) == count + 1


@pytest.mark.parametrize("change", ["host: b", "port: 2222", "user: ann", "python: python3.12", "prefix: [wsl, -e]"])
def test_a_climb_of_what_is_reached_otherwise_now_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    handle = bench.begin()
    go = handled(monkeypatch)
    seq = ask(bench, "admit", jobs={})
    bench.asks.look()
    host = "" if change.startswith("host") else "host: mini.example, "
    rewrite(bench, f"lanes:\n  mini: {{transport: ssh, {host}{change}}}\n")
    bench.roster.reload()
    assert bench.handle is not handle
    go.set()
    hear(bench, answers=1)
    row = query.ask(bench.conn, seq)
    assert row is not None
    assert row.answer is not None
    assert row.answer["message"] == "lane mini: its declaration changed while this ran"
    assert row.answer["hint"] == "run it again"


# Closed on purpose.


def test_a_lane_that_we_keep_silent_says_until_when(bench: Bench) -> None:
    handle = bench.begin()
    bench.roster.up("mini", HELLO)
    down = {**DOWN, "error": "the connection was closed on purpose"}
    handle.does = lambda what, *args, **named: dict(down) if what == "link" else {}
    handle._say_link(LinkDown("closed"))
    assert bench.inbox[-1][2]["error"] == down["error"], "by itself it is trouble"
    handle._stopping.set()  # nobody waits
    handle.close_for(120.0)
    handle._stopping.clear()
    handle.knock()
    assert ("knock", ()) not in handle.done, "nobody ends the silence by asking"
    handle._say_link(LinkDown("closed"))
    bench.roster.link("mini", bench.inbox[-1][2])
    found = read_lanes(bench.home)["mini"]
    said = live.silence(found)
    assert said.startswith("silent until ")
    assert said.endswith(" for its admission")
    assert bench.state == (LaneState.UP, "")
    found["link"]["silent_until"] -= 300.0
    assert live.silence(found) == "", "by a controller that died over it"
    handle._closed_until = 0.0
    handle.knock()
    assert ("knock", ()) in handle.done


def test_a_lane_that_is_resumed_while_it_is_let_go_is_held_anew(bench: Bench) -> None:
    first = bench.begin()
    bench.roster.up("mini", HELLO)
    bench.roster.set_state("mini", LaneState.DOWN, "smoke")
    bench.roster.grant("mini", "eval", ok=True, reason="")
    first.stop()  # it has been let go
    bench.roster.leave("mini")
    assert bench.handle is not first
    bench.roster.set_state("mini", LaneState.DOWN, "smoke")
    bench.roster.leave("mini")
    assert "mini" not in bench.m.handles


def test_a_lane_that_is_slow_to_close_holds_nobody_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed beside us; meanwhile nothing is said to it or heard of it, and nobody connects to it anew."""
    first, go, closed = bench.begin(), threading.Event(), threading.Event()
    calls: list[str] = []

    class Actor:
        def __getattr__(self, what: str) -> Any:
            calls.append(what)
            raise AssertionError(what)

    first._actor = Actor()
    with pytest.raises(AssertionError, match="call"):
        RemoteHandle._do(first, "call", "poll")  # it is held: what is said to it goes there
    first._inbox(("frame", "mini", {}))
    assert len(bench.said("frame")) == 1

    def close() -> None:
        assert go.wait(60)
        closed.set()

    monkeypatch.setattr(first, "close", close)
    bench.roster.leave("mini")
    assert not closed.is_set()
    assert bench.handle is not first
    with pytest.raises(LinkDown, match="not held this way any more"):
        RemoteHandle._do(first, "call", "poll")
    assert calls == ["call"]
    first._inbox(("frame", "mini", {}))
    first._inbox(("not-fetched", "mini", ((1, 1), "")))
    bench.handle._inbox(("link", "mini", DOWN))
    assert [what for what, _, _ in bench.inbox] == ["frame", "not-fetched", "link"]
    # Who holds it now makes no connection beside the one that is being closed.
    bench.handle._actor = made = object()
    found: list[Any] = []
    asks = threading.Thread(target=lambda: found.append((bench.handle._get_actor(), closed.is_set())))
    asks.start()
    asks.join(0.2)
    assert found == []
    go.set()
    asks.join(30)
    assert found == [(made, True)]
    bench.roster.leaving.finish()
    assert not bench.handle.after.is_alive()  # type: ignore[union-attr]


def test_a_lane_that_nobody_left_is_reached_at_once(bench: Bench) -> None:
    handle = bench.begin()
    handle._actor = made = object()
    assert handle.after is None
    assert handle._get_actor() is made


def test_a_lane_that_cannot_be_closed_is_held_anew_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def close() -> None:
        raise RuntimeError("no such actor")

    monkeypatch.setattr(bench.begin(), "close", close)
    bench.roster.leave("mini")
    bench.roster.leaving.finish()
    assert "lane mini could not be closed: RuntimeError: no such actor" in capsys.readouterr().out
    bench.handle._actor = made = object()
    assert bench.handle._get_actor() is made


def test_what_bars_a_lane_is_kept_as_long_as_it_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.m.books = {"here": LaneBook(LaneConfig("here")), "mini": LaneBook(MINI)}
    dispatch = Dispatch(bench.m, Pool(bench.home, bench.inbox.append))
    said = {"can": "", "busy": "its Ray node is being started"}
    monkeypatch.setattr(dispatch.pool, "can", lambda *_: said["can"])
    monkeypatch.setattr(dispatch.pool, "busy", lambda _: said["busy"])
    spec = Spec("s", {"kind": "toy"}, Needs())
    for why in ("busy", "can"):
        assert dispatch.bars(spec) == {"here"}, "the other one has no warm workers at all"
        assert bench.m.books["here"].barred == {"s": said["busy"] or said["can"]}, why
        said.update(busy="", can="no such package there")
    said.update(can="")
    assert dispatch.bars(spec) == frozenset()
    assert [b.barred for b in bench.m.books.values()] == [{}, {}]


def test_why_a_lane_takes_no_batch_is_told_to_those_who_look(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    book = bench.m.books["mini"]
    for n in range(40):
        book.bar(f"s{n}", "no room")
    book.bar("s39", "")
    bench.roster._seen.clear()
    bench.roster.answered("mini")
    barred = read_lanes(bench.home)["mini"]["barred"]
    assert barred["s38"] == "no room"
    assert "s39" not in barred
    assert len(barred) == 31, "not those of all times"


# cluster.yaml.


def rewrite(bench: Bench, text: str) -> None:
    path = bench.home.path.parent / "cluster.yaml"
    path.write_text(text)
    bench.m.home = Home(bench.home.path, path)


def test_a_lane_that_goes_and_comes_back_is_not_drained_for_ever(bench: Bench) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.place()
    rewrite(bench, "lanes:\n  local:\n")
    bench.roster.reload()
    assert bench.state == (LaneState.DRAINING, GONE)
    bench.roster.set_state("mini", LaneState.UP, "")
    assert bench.state == (LaneState.DRAINING, GONE), "nobody declares it"
    rewrite(bench, "lanes:\n  local:\n  mini: {transport: ssh, host: mini.example}\n")
    assert bench.roster.reload()
    bench.roster.up("mini", HELLO)
    assert bench.state[0] is LaneState.UP
    assert bench.roster.reload() == []


IS_SSH = "lane mini is ssh until what runs there has ended (job 1 attempt 1), and not local as cluster.yaml says"


def test_a_lane_does_not_become_another_machine_under_what_runs_there(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = bench.begin()
    bench.place()
    rewrite(bench, "lanes:\n  mini: {transport: local}\n")
    assert bench.roster.reload() == []
    assert bench.handle is handle
    assert IS_SSH in capsys.readouterr().out
    bench.m.books["mini"].held.clear()
    assert bench.roster.reload() == ["lane mini is changed"]
    assert not bench.m.books["mini"].config.remote


def next_controller(bench: Bench, lane: LaneConfig) -> Bench:
    """As a controller that starts now finds things."""
    found = Bench(bench.home, bench.m.journal, Cluster((lane,)))
    found.roster.keep_lanes_of({a.lane for a in query.open_attempts(bench.conn)})
    found.roster.declare()
    for attempt in query.open_attempts(bench.conn):
        found.m.take_up(attempt)
    found.live.close()
    return found


def test_nor_does_it_at_the_next_start(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.m.books["mini"].config = replace(MINI, user="ann", prefix=("wsl", "-e"))
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.place()
    later = next_controller(bench, LaneConfig("mini"))
    assert IS_SSH in capsys.readouterr().out
    kept = later.m.books["mini"]
    assert (kept.config.host, kept.config.user, kept.config.prefix) == ("mini.example", "ann", ("wsl", "-e"))
    assert kept.held
    assert kept.roles == {"eval"}, "it is still admitted"
    # With nothing of it left, and as the same machine with other settings, it is what the file says.
    assert next_controller(bench, replace(MINI, cores=1)).m.books["mini"].config.cores == 1
    end = {"state": "lost", "cause": "unreachable", "message": "", "seconds": None, "parts": [], "undeclared": []}
    bench.m.record([Event(EventKind.ATTEMPT_ENDED, 1, 1, "mini", end)])
    assert not next_controller(bench, LaneConfig("mini")).m.books["mini"].config.remote


def test_a_local_lane_does_not_become_a_remote_one_at_the_next_start(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.m.books["mini"] = LaneBook(LaneConfig("mini", cores=2))
    bench.roster.declare()
    bench.roster.start()
    bench.roster.up("mini", HELLO)
    bench.place()
    kept = next_controller(bench, MINI).m.books["mini"]
    assert "lane mini is local until what runs there has ended (job 1 attempt 1)" in capsys.readouterr().out
    assert (kept.config.remote, kept.config.cores) == (False, 2)


def test_a_lane_that_nobody_declares_cannot_be_asked(bench: Bench) -> None:
    bench.begin()
    bench.place()
    rewrite(bench, "lanes:\n  local:\n")
    seq = ask(bench, "probe")
    bench.asks.look()
    answers(bench)
    row = query.ask(bench.conn, seq)
    assert row is not None
    assert row.answer is not None
    assert GONE in row.answer["message"]


def test_of_a_lane_without_a_place_no_job_waits_longer_than_it_would(bench: Bench) -> None:
    bench.place(lane="lost")
    bench.roster.keep_lanes_of({"lost"})
    bench.m.books["lost"].held[(1, 1)] = {}
    bench.begin()
    assert "lost" not in bench.m.handles
    bench.attempts.out_of_patience(1e12)
    assert query.attempts(bench.conn, 1)[0].cause == Cause.UNREACHABLE


# Telling.


def test_what_a_lane_should_take_up_is_told_again_as_far_as_it_matters(bench: Bench) -> None:
    handle = bench.begin()
    bench.place(1)
    bench.place(2)
    for at in [*bench.m.open]:
        bench.m.record([Event(EventKind.STARTED, at[0], at[1], "mini", {"pid": 1, "boot": "b"})])
        bench.m.reread(at)
    bench.roster.up("mini", HELLO)
    method, args = handle.told[-1]
    assert method == "adopt"
    later = Later()
    later.put(("tell", "mini", (method, args, {})), 0.0)
    del bench.m.open[(1, 1)]
    for _what, lane, body in later.due():
        bench.attempts.tell_again(lane, *body)
    (rows,) = handle.told[-1][1]
    assert [row[:2] for row in rows] == [(2, 1)]


def test_the_last_words_of_a_lane_that_was_left_are_no_trouble(bench: Bench) -> None:
    bench.begin()
    bench.roster.leave("mini")
    bench.attempts.frame("mini", [{"job": 9, "attempt": 1, "phase": "running", "clear": False}])
    assert not bench.attempts._trouble


# The handle's own workers.


def test_a_fetch_that_ends_may_be_asked_for_again_at_once(bench: Bench) -> None:
    handle, again = bench.begin(), threading.Event()

    def then(wrong: Exception | None) -> None:
        handle.fetch(1, 1, {}, lambda _: again.set())

    handle.fetch(1, 1, {}, then)
    assert again.wait(10)


def test_a_handle_that_is_closed_says_what_it_did_not_fetch(bench: Bench) -> None:
    from ray.exceptions import RayActorError

    handle, go, begun = bench.begin(), threading.Event(), threading.Semaphore(0)

    def work(what: str, *args: Any, **named: Any) -> None:
        begun.release()
        assert go.wait(10)
        raise RayActorError()

    handle.does = work
    ended: list[Exception | None] = []
    for n in range(1, 7):
        handle.fetch(1, n, {}, ended.append)
    for _ in range(4):
        assert begun.acquire(timeout=10)
    handle.stop()
    go.set()
    wait_for(lambda: len(bench.said("not-fetched")) == 6, "all six to be told")
    assert ended == [], "that an actor died says nothing of a harvest"
    with pytest.raises(LinkDown):
        handle._get_actor()


def test_a_cancel_does_not_wait_behind_uploads_of_others(bench: Bench) -> None:
    handle, go = bench.begin(), threading.Event()
    handle.does = lambda what, *args, **named: go.wait(10) and {"ok": True} if what == "begin" else {}
    for n in range(1, 6):
        handle._begin(({"job": n, "attempt": 1}, ""))
    handle._cancel_begin(5, 1)
    ((method, args, _named, answer),) = bench.said("told")
    assert (method, args[0]["job"], answer["cause"]) == ("start", 5, "cancelled")
    handle._cancel_begin(1, 1)
    assert ("cancel_begin", (1, 1)) in handle.done, "one that is being sent is ended where it is"
    go.set()


def test_a_lane_is_let_go_when_nothing_is_on_its_way_there(bench: Bench) -> None:
    handle, go = bench.begin(), threading.Event()

    def does(what: str, *args: Any, **named: Any) -> Any:
        if what == "begin":
            assert go.wait(10)
            return {"ok": False, "cause": "cancelled", "reason": "as asked"}
        if what == "cancel_begin":
            go.set()
        if what == "call" and args[0] == "poll":
            assert go.is_set()
            return {"cursor": {}, "reports": []}
        return {}

    handle.does = does
    handle._begin(({"job": 1, "attempt": 1}, ""))
    assert handle.let_go(5.0) == ""
    calls = [args[0] for what, args in handle.done if what == "call"]
    assert calls == ["poll", "release"]
    assert handle._stopping.is_set(), "or the listener would have the lane ours again"


# Ends.


def collect(bench: Bench, handle: Handle, error: Exception) -> list[str]:
    """What is said after a fetch that ended with `error`."""
    seen = len(bench.inbox)

    def does(what: str, *args: Any, **named: Any) -> None:
        raise error

    handle.does = does
    bench.attempts.harvest((1, 1))
    wait_for(lambda: len(bench.inbox) > seen, "its end")
    what, lane, body = bench.inbox[-1]
    if what == "not-fetched":
        bench.attempts.not_fetched(lane, *body)
    return [what]


def test_trouble_on_the_way_is_not_a_bad_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanes.attempts.RemoteHandle", Handle)
    handle = bench.begin()
    bench.place()
    assert collect(bench, handle, OSError(5, "Input/output error")) == ["not-fetched"]
    assert collect(bench, handle, OSError(5, "Input/output error")) == ["not-fetched"]
    assert collect(bench, handle, OSError(5, "Input/output error")) == ["harvested"], "not for ever"


def test_a_bad_result_is_one_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanes.attempts.RemoteHandle", Handle)
    handle = bench.begin()
    bench.place()
    assert collect(bench, handle, BadHarvest("no seal")) == ["harvested"]
    assert bench.said("harvested")[0][1].cause is Cause.BAD_SEAL


@pytest.mark.parametrize(("cancelling", "state"), [(False, JobState.QUEUED), (True, JobState.CANCELLED)])
def test_a_start_that_was_called_off_fails_no_job(bench: Bench, *, cancelling: bool, state: JobState) -> None:
    bench.begin()
    bench.place()
    if cancelling:
        bench.m.record([Event(EventKind.CANCELLING, 1, data={"reason": "cancel asked"})])
    answer = {"ok": False, "cause": "cancelled", "reason": "called off"}
    bench.attempts.told("mini", "start", ({"job": 1, "attempt": 1},), {}, answer)
    assert query.job(bench.conn, 1).state is state


# Answers.


def test_an_answer_that_finds_the_disk_full_is_given_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin()
    seq = ask(bench, "sing")
    bench.asks.look()
    (message,) = [m for m in bench.inbox if m[0] == "answered"]
    record = bench.m.record

    def full(events: Any) -> None:
        raise DiskFull("full")

    monkeypatch.setattr(bench.m, "record", full)
    with pytest.raises(DiskFull):
        bench.asks.answer(*message[2])
    later = Later()
    later.put(message, 0.0)
    monkeypatch.setattr(bench.m, "record", record)
    bench.asks.look()  # it is not begun once more meanwhile
    for again in later.due():
        bench.asks.answer(*again[2])
    row = query.ask(bench.conn, seq)
    assert row is not None
    assert row.answer is not None
    assert len(bench.said("answered")) == 1


def test_an_ask_that_we_stumble_over_is_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin()
    ask(bench, "probe")

    def stumble() -> None:
        raise KeyError("oops")

    monkeypatch.setattr(bench.roster, "reload", stumble)
    bench.asks.look()
    answers(bench)
    assert query.open_asks(bench.conn) == []


def test_a_lane_that_goes_while_it_is_given_up_is_down_all_the_same(bench: Bench) -> None:
    rewrite(bench, "lanes:\n  mini: {transport: ssh, host: mini.example}\n")
    handle = bench.begin()
    bench.roster.up("mini", HELLO)

    def gone(what: str, *args: Any, **named: Any) -> None:
        raise LinkDown("gone")

    bench.place()
    bench.roster.reload()
    handle = bench.handle
    bench.roster.up("mini", HELLO)
    bench.m.books["mini"].admitting = True
    handle.does = gone
    seq = ask(bench, "down", reason="smoke")
    bench.asks.look()
    wait_for(lambda: bench.said("answered"), "an answer")
    for what, _lane, body in bench.inbox:
        if what == "lost":
            bench.attempts.lost(*body)
    answers(bench)
    row = query.ask(bench.conn, seq)
    assert row is not None
    assert row.answer is not None
    assert row.answer["ok"]
    assert bench.state == (LaneState.DOWN, "smoke")
    assert not bench.m.books["mini"].admitting
    assert query.attempts(bench.conn, 1)[0].state is AttemptState.LOST
    assert "mini" in bench.m.handles, "it is revoked when it comes back"


def test_the_cells_of_a_ladder_go_with_their_sweep(bench: Bench) -> None:
    with bench.m.journal.transaction() as tx:
        number = pooled.sweep(tx, {"i": [1, 2]})
    bench.asks.hear("cancel", "mini", [[number], "mini is not admitted"])
    wait_for(lambda: query.job(bench.conn, number).wish == "cancel", "the wish, which is answered with all its cells")
    assert query.job(bench.conn, number).state is not JobState.CANCELLED


# The live view.


def test_after_a_reboot_of_the_head_nobody_was_heard_lately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    writer = LiveWriter(home)
    writer.lane("mini", HELLO)
    writer.close()
    LiveWriter(home).close()
    assert read_lanes(home)["mini"]["age_s"] is not None, "a controller that starts anew is no reboot"
    monkeypatch.setattr(live, "boot_id", lambda: "another")
    LiveWriter(home).close()
    found = read_lanes(home)["mini"]
    assert (found["age_s"], found["cores"]) == (None, 4)


# Admission is of a machine, not of a word.


@pytest.mark.parametrize(
    ("change", "kept"),
    [({}, True), ({"about": "in the corner"}, True), ({"host": "elsewhere"}, False), ({"user": "eve"}, False)],
)
def test_a_name_that_stands_for_another_machine_has_earned_nothing(
    bench: Bench, change: dict[str, Any], *, kept: bool
) -> None:
    bench.begin()
    bench.roster.up("mini", HELLO)
    bench.roster.grant("mini", "train", ok=True, reason="")
    later = replace(MINI, **change)
    again = Bench(bench.home, bench.m.journal, Cluster((later,)))
    again.roster.declare()
    assert ("train" in again.m.books["mini"].admitted) is kept
    assert ("train" in query.admitted(bench.conn)["mini"]) is kept
    again.live.close()


def test_what_is_kept_for_later_is_told_apart() -> None:
    later = Later()
    for rung in ("disk", "device"):
        later.put(("rung", "mini", {"role": "", "rung": rung}), 0.0)
    later.put(("cancel", "mini", [[1, 2], "why"]), 0.0)
    later.put(("cancel", "mini", [[3], "why"]), 0.0)
    later.put(("rung", "mini", {"role": "", "rung": "disk", "ok": True}), 0.0)  # the newer word on the same
    assert len(later.due()) == 4
