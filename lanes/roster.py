"""The controller's lanes: declared, started, up, out of reach, up again.

A lane that does not answer is `unreachable`: that is the state of a link, and no attempt on it fails by that alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from core import cluster as clusters
from core.cluster import LaneConfig
from core.errors import LabError
from core.journal import Event, query
from core.live import LiveWriter
from core.states import AttemptState, Cause, EventKind, JobState, LaneState
from lanes import lookups
from lanes.handle import LaneHandle
from lanes.later import Message
from lanes.ledger import LaneBook
from lanes.mirror import Mirror, say
from lanes.remote import RemoteHandle

_LOST_S = 20.0  # without an answer for so long, after it said that something is wrong
_DOWN_S = 3.0  # a link that is back sooner than this was never gone
_SEEN_S = 1.0
_TIDY_S = 600.0
GONE = "no longer in cluster.yaml"
NOT_ADMITTED = "not admitted yet"

# States in which somebody (or the lane's own behaviour) has said that nothing is to be placed.
_KEPT = (LaneState.DRAINING, LaneState.QUARANTINED, LaneState.DOWN)


class Roster:
    """What happens to lanes as a whole."""

    def __init__(self, mirror: Mirror, live: LiveWriter, inbox: Callable[[Message], None]) -> None:
        self.m = mirror
        self._live = live
        self._inbox = inbox
        self._seen: dict[str, float] = {}  # lane -> when the live view was last told of it
        self._tidy_at: dict[str, float] = {}  # lane -> when it should look at what it keeps
        self._troubled: dict[str, float] = {}  # lane -> since when nothing but errors came from it

    def keep_lanes_of(self, names: set[str]) -> None:
        """A lane that has left cluster.yaml with attempts still on it is not forgotten: a local one is drained, of a
        remote one nothing more is heard until it is declared again."""
        for name in sorted(names - self.m.books.keys()):
            if (self.m.home.lane_root(name) / "active").is_dir():  # an agent of this machine
                book = LaneBook(LaneConfig(name), LaneState.DRAINING, GONE)
            else:
                book = LaneBook(LaneConfig(name, transport="ssh"), LaneState.DOWN, GONE)
            self.m.books[name] = book

    def declare(self) -> None:
        """Make the journal and the books agree on which lanes there are and how they were left."""
        known = {lane.name: lane for lane in query.lanes(self.m.journal.conn)}
        admitted = query.admitted(self.m.journal.conn)
        events = []
        for name, book in self.m.books.items():
            old = known.get(name)
            book.admitted = admitted.get(name, frozenset())
            back = old is not None and old.state is LaneState.DOWN and old.reason == GONE
            if old is not None and old.state in _KEPT and not back:
                book.state, book.reason = old.state, old.reason
            elif book.config.remote and book.reason != GONE:
                book.state, book.reason = _at_rest(book)
                book.hello = dict(old.info) if old is not None else {}
            if old is None or (old.state, old.reason) != (book.state, book.reason):
                if old is not None and old.state is LaneState.UP and not book.config.remote:
                    continue  # it is about to say so again
                events.append(_lane_event(name, book.state, book.reason))
        for name in known.keys() - self.m.books.keys():
            if known[name].state is not LaneState.DOWN:
                events.append(_lane_event(name, LaneState.DOWN, GONE))
        self.m.record(events)

    def start(self) -> None:
        """Get in touch with the lanes. A remote one that nobody has asked about yet is only a line in a file: no
        process of ours is spent on it, and its machine hears nothing of us."""
        met = {row.lane for row in query.rungs(self.m.journal.conn)}
        for name, book in self.m.books.items():
            wanted = not book.config.remote or book.admitted or name in met or book.held
            lost = book.config.remote and book.reason == GONE  # nobody says where it is
            if name not in self.m.handles and wanted and not lost and book.state is not LaneState.DOWN:
                self._start(name, book)

    def contact(self, name: str) -> LaneHandle:
        """The hold on a declared lane, which is got in touch with now if it was not before."""
        if name not in self.m.handles:
            self._start(name, self.m.books[name])
        return self.m.handles[name]

    def reload(self) -> list[str]:
        """Read cluster.yaml again: lanes that are new or changed are taken up without a restart.

        Returns:
            one sentence per change.

        Raises:
            BadInput: the file cannot be used; everything stays as it was.
        """
        cluster = clusters.load(self.m.home.cluster_file)
        declared = {lane.name: lane for lane in cluster.lanes}
        said = []
        for name, config in declared.items():
            book = self.m.books.get(name)
            if book is not None and book.config == config and book.reason != GONE:
                continue
            said.append(f"lane {name} is {'new' if book is None else 'changed'}")
            self._close(name)
            fresh = LaneBook(config)
            if book is not None:
                fresh.held, fresh.hello = book.held, book.hello
            self.m.books[name] = fresh
        for name in self.m.books.keys() - declared.keys():
            book = self.m.books[name]
            if book.reason == GONE:
                continue
            said.append(f"lane {name} is {GONE}")
            if book.held or not book.config.remote:
                book.state, book.reason = LaneState.DRAINING, GONE
            else:
                self._close(name)
                del self.m.books[name]
        if said:
            self.declare()
            self.start()
            self.m.stale = True
        return said

    def up(self, name: str, hello: dict[str, Any]) -> None:
        """A (new) agent of the lane answers: it is told again all that could have been lost on the way."""
        book = self.m.books.get(name)
        if book is None or name not in self.m.handles:
            return
        self._troubled.pop(name, None)
        book.hello, book.link, book.down_since = hello, {}, None
        self._live.lane(name, hello)
        if book.state not in _KEPT:
            book.state, book.reason = _reached(book)
        self.m.record([_lane_event(name, book.state, book.reason, info=hello)])
        handle = self.m.handles[name]
        mine = [a for a in self.m.open.values() if a.lane == name]
        # One that was placed on a remote lane may still be on its way there: it is sent again, not looked for.
        there = [a for a in mine if not (handle.remote and a.state is AttemptState.PLACED)]
        handle.tell("adopt", [[a.job, a.n, str(self.m.home.run_dir(a.job, a.n).path)] for a in there])
        for attempt in mine:
            job = query.job(self.m.journal.conn, attempt.job)
            if attempt.state is AttemptState.PLACED:
                self.m.tell_start(job, attempt)
            if job.state is JobState.CANCELLING:
                self.m.tell_stop(attempt, Cause.CANCELLED)
            elif self.m.killing:
                self.m.tell_stop(attempt, Cause.PREEMPTED)

    def answered(self, name: str, usage: dict[str, Any] | None = None) -> None:
        """The lane said something: the link is there. `usage`: how busy it is, for the live view."""
        self._troubled.pop(name, None)
        book = self.m.books.get(name)
        if book is None:
            return
        now = time.monotonic()
        book.link, book.down_since = {}, None
        if now - self._seen.get(name, -_SEEN_S) >= _SEEN_S:
            self._seen[name] = now
            self._live.lane(name, {**book.hello, "usage": usage or {}})
            self._tidy(name, now)
        if book.state is LaneState.UNREACHABLE:
            book.state, book.reason = _reached(book)
            self.m.record([_lane_event(name, book.state, book.reason)])
            say(f"lane {name} answers again")

    def trouble(self, name: str, message: str) -> None:
        """The lane was asked and did not answer as it should."""
        say(f"lane {name}: {message}")
        since = self._troubled.setdefault(name, time.monotonic())
        book = self.m.books.get(name)
        if book is not None and book.state is LaneState.UP and time.monotonic() - since >= _LOST_S:
            self._unreachable(name, book, message)

    def link(self, name: str, link: dict[str, Any]) -> None:
        """The way to a remote lane is down. That is shown with its age; nothing fails by it."""
        book = self.m.books.get(name)
        if book is None or name not in self.m.handles:
            return
        now = time.monotonic()
        age = link.get("age_s")
        if book.down_since is None:
            book.down_since = now - float(age or 0.0)
        book.link = link
        self._live.link(name, link)
        refused = link.get("refused") or {}
        message = str(refused.get("message") or link.get("error") or "it does not answer")
        admitted = bool(book.roles)
        if admitted and book.state is LaneState.UP and (refused or now - book.down_since >= _DOWN_S):
            self._unreachable(name, book, message)
        elif book.state is LaneState.UNREACHABLE and book.reason != message:
            self._unreachable(name, book, message, quiet=True)

    def grant(self, name: str, role: str, ok: bool, reason: str) -> None:
        """A role was earned, or is taken away."""
        book = self.m.books.get(name)
        events = [Event(EventKind.ADMITTED, lane=name, data={"role": role, "ok": ok, "reason": reason})]
        if book is not None:
            book.admitted = book.admitted | {role} if ok else book.admitted - {role}
            if book.state is LaneState.QUARANTINED and ok:
                book.state = LaneState.DECLARED
            if book.state not in _KEPT:
                book.state, book.reason = _reached(book) if book.hello and not book.link else _at_rest(book)
            events.append(_lane_event(name, book.state, book.reason))
        self.m.record(events)

    def set_state(self, name: str, state: LaneState, reason: str) -> None:
        """Somebody decided: drained, quarantined, down, or (UP) none of these any more."""
        book = self.m.books.get(name)
        if book is not None:
            if state is LaneState.UP:
                state, reason = _reached(book) if book.hello and not book.link else _at_rest(book)
            book.state, book.reason = state, reason
            if state is not LaneState.DOWN and name not in self.m.handles:
                self._start(name, book)
        self.m.record([_lane_event(name, state, reason)])

    def leave(self, name: str) -> None:
        """Have nothing more to do with the lane's machine."""
        self._close(name)

    def _tidy(self, name: str, now: float) -> None:
        handle = self.m.handles.get(name)
        if isinstance(handle, RemoteHandle) and now >= self._tidy_at.get(name, 0.0):
            self._tidy_at[name] = now + _TIDY_S
            handle.tidy(lookups.begun(self.m.journal.conn))

    def _unreachable(self, name: str, book: LaneBook, message: str, *, quiet: bool = False) -> None:
        book.state, book.reason = LaneState.UNREACHABLE, message
        self.m.record([_lane_event(name, book.state, message)])
        if not quiet:
            say(f"lane {name} is out of reach: {message}")

    def _start(self, name: str, book: LaneBook) -> None:
        make = RemoteHandle if book.config.remote else LaneHandle
        handle = self.m.handles[name] = make(self.m.home, book.config, self._inbox)
        try:
            handle.start()
        except LabError as error:
            say(f"lane {name}: {error}")

    def _close(self, name: str) -> None:
        handle = self.m.handles.pop(name, None)
        if isinstance(handle, RemoteHandle):
            handle.close()
        elif handle is not None:
            handle.stop()


def _at_rest(book: LaneBook) -> tuple[LaneState, str]:
    """The state of a lane that has not answered yet."""
    if not book.config.remote:
        return LaneState.DECLARED, ""
    if book.roles:
        return LaneState.UNREACHABLE, "it has not answered yet"
    return LaneState.DECLARED, NOT_ADMITTED


def _reached(book: LaneBook) -> tuple[LaneState, str]:
    """The state of a lane that answers."""
    if book.config.remote and not book.roles:
        return LaneState.DECLARED, NOT_ADMITTED
    return LaneState.UP, ""


def _lane_event(name: str, state: LaneState, reason: str, **more: Any) -> Event:
    return Event(EventKind.LANE, lane=name, data={"state": str(state), "reason": reason, **more})
