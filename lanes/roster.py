"""The controller's lanes: declared, started, up, out of reach, up again.

A lane that does not answer is `unreachable`: that is the state of a link, and no attempt on it fails by that alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from core import cluster as clusters
from core.cluster import LaneConfig
from core.errors import LabError
from core.journal import Event, query
from core.live import LiveWriter
from core.states import AttemptState, Cause, EventKind, JobState, LaneState
from lanes import lookups, switched
from lanes.handle import LaneHandle
from lanes.later import Message
from lanes.leaving import Leaving
from lanes.ledger import LaneBook
from lanes.mended import held_after_all
from lanes.mirror import Mirror, say
from lanes.remote import RemoteHandle
from lanes.standing import at_rest, lane_event, lasting, place, reached, wish_event

_LOST_S = 20.0  # without an answer for so long, after it said that something is wrong
_DOWN_S = 3.0  # a link that is back sooner than this was never gone
_SEEN_S = 1.0
_TIDY_S = 600.0
_SAME_S = 60.0  # the same trouble is said again after this
_REASON_S = 600.0  # another reason why a lane is out of reach is worth an event of the journal this often
GONE = "no longer in cluster.yaml"

# States in which somebody (or the lane's own behaviour) has said that nothing is to be placed.
_KEPT = (LaneState.DRAINING, LaneState.QUARANTINED, LaneState.DOWN)
# Out of these a lane comes by a climb that holds, and in no other way.
_CLIMBS_BACK = (LaneState.QUARANTINED, LaneState.DOWN)


class Roster:
    """What happens to lanes as a whole."""

    def __init__(self, mirror: Mirror, live: LiveWriter, inbox: Callable[[Message], None]) -> None:
        self.m = mirror
        self._live = live
        self.leaving = Leaving(inbox)
        self._seen: dict[str, float] = {}  # lane -> when the live view was last told of it
        self._tidy_at: dict[str, float] = {}  # lane -> when it should look at what it keeps
        self._troubled: dict[str, float] = {}  # lane -> since when nothing but errors came from it
        self._said: dict[str, tuple[str, float]] = {}  # lane -> the trouble that was said last, when
        self._why: dict[str, tuple[str, float]] = {}  # lane -> why it is out of reach (cause), when that was recorded
        self._talking: set[str] = set()  # lanes that answered, and of whose link nothing bad was heard since
        self._doubted: set[str] = set()  # lanes of which somebody found lately that they cannot be reached

    def keep_lanes_of(self, names: set[str]) -> None:
        """A lane that has left cluster.yaml with attempts still on it is not forgotten: a local one is drained, of a
        remote one nothing more is heard until it is declared again. One that is another machine now stays what it was
        until they have ended."""
        for name, (old, why) in switched.kept_as_they_were(self.m.journal.conn, self.m.books).items():
            self.m.books[name] = LaneBook(old)
            say(why)
        for name in sorted(names - self.m.books.keys()):
            if (self.m.home.lane_root(name) / "active").is_dir():  # an agent of this machine
                book = LaneBook(LaneConfig(name), LaneState.DRAINING, GONE)
            else:
                book = LaneBook(LaneConfig(name, transport="ssh"), LaneState.DOWN, GONE)
            self.m.books[name] = book

    def declare(self, only: set[str] | None = None) -> None:
        """Make the journal and the books agree on which lanes there are and how they were left.

        Args:
            only: books that are new or altered; the others say already what they stand for. None: all of them.
        """
        known = {lane.name: lane for lane in query.lanes(self.m.journal.conn)}
        admitted = query.admitted(self.m.journal.conn)
        places = query.admitted_as(self.m.journal.conn)
        events: list[Event] = []
        for name, book in self.m.books.items():
            if only is not None and name not in only:
                continue
            old = known.get(name)
            book.admitted = admitted.get(name, frozenset())
            for role in sorted(book.admitted):
                # A name is admitted for what it stood for: another machine has to earn it anew.
                was = places.get((name, role))
                if was is not None and book.config.remote and was != place(book.config):
                    data = {"role": role, "ok": False, "reason": f"it was admitted as {was}"}
                    events.append(Event(EventKind.ADMITTED, lane=name, data=data))
                    book.admitted -= {role}
            back = old is not None and old.reason == GONE != book.reason
            if old is not None and old.state in _KEPT and not back:
                book.state, book.reason = old.state, old.reason
            elif book.config.remote and book.reason != GONE:
                book.state, book.reason = at_rest(book)
                book.hello = dict(old.info) if old is not None else {}
            if old is None or (old.state, old.reason) != (book.state, book.reason):
                if old is not None and old.state is LaneState.UP and not book.config.remote:
                    continue  # it is about to say so again
                events.append(lane_event(name, book.state, book.reason))
        for name in known.keys() - self.m.books.keys():
            if known[name].state is not LaneState.DOWN:
                events.append(lane_event(name, LaneState.DOWN, GONE))
        self._record(events)

    def start(self) -> None:
        """Get in touch with the lanes. A remote one that nobody has asked about yet is only a line in a file: no
        process of ours is spent on it, and its machine hears nothing of us."""
        met = {row.lane for row in query.rungs(self.m.journal.conn)}
        for name, book in self.m.books.items():
            wanted = not book.config.remote or book.admitted or name in met or book.held
            lost = book.config.remote and book.reason == GONE  # nobody says where it is
            if name in self.m.handles:
                continue
            if wanted and not lost and book.state is not LaneState.DOWN:
                self._start(name, book)
            elif book.config.remote and book.held and book.down_since is None:
                book.down_since = time.monotonic()  # nobody listens to it: jobs that do not wait for ever need not

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
        said, altered = [], set()
        for name, config in declared.items():
            book = self.m.books.get(name)
            if book is not None and book.config == config and book.reason != GONE:
                continue
            if book is not None and book.held and book.config.remote != config.remote:
                say(switched.refusal(book.config, config, switched.held_by(book)))
                continue
            said.append(f"lane {name} is {'new' if book is None else 'changed'}")
            if book is not None and book.reason != GONE and switched.same_link(book.config, config):
                self._take_up(name, book, config)
                continue
            self._close(name, "its declaration changed while this ran")
            altered.add(name)
            fresh = LaneBook(config)
            if book is not None:
                fresh.held, fresh.hello = book.held, book.hello
                fresh.admitting, fresh.down_since = book.admitting, book.down_since
            self.m.books[name] = fresh
        for name in self.m.books.keys() - declared.keys():
            book = self.m.books[name]
            if book.reason == GONE:
                continue
            said.append(f"lane {name} is {GONE}")
            if book.held or not book.config.remote:
                book.state, book.reason = LaneState.DRAINING, GONE
                altered.add(name)
            else:
                self._close(name, f"it is {GONE}")
                del self.m.books[name]
        if said:
            self.declare(altered)
            self.start()
            self.m.stale = True
        return said

    def _take_up(self, name: str, book: LaneBook, config: LaneConfig) -> None:
        """Settings changed that its link does not depend on: it is held as before, whatever is done with it now."""
        had_roles = bool(book.roles)
        book.config = config
        if name in self.m.handles:
            self.m.handles[name].config = config
        if book.hello:
            book.hello = {**book.hello, switched.DECLARED: clusters.as_declared(config)}
        if book.state not in _KEPT and bool(book.roles) is not had_roles:
            book.state, book.reason = reached(book) if name in self._talking else at_rest(book)
        info = {"info": book.hello} if book.hello else {}
        self._record([lane_event(name, book.state, book.reason, **info)])

    def up(self, name: str, hello: dict[str, Any]) -> None:
        """A (new) agent of the lane answers: it is told again all that could have been lost on the way."""
        book = self.m.books.get(name)
        if book is None or name not in self.m.handles:
            return
        self._heard(name)
        hello = {**hello, switched.DECLARED: clusters.as_declared(book.config)}
        before = (book.state, book.reason, lasting(book.hello))
        book.hello, book.link, book.down_since = hello, {}, None
        self._live.lane(name, hello)
        if book.state not in _KEPT:
            book.state, book.reason = reached(book)
        if (book.state, book.reason, lasting(hello)) != before:
            self._record([lane_event(name, book.state, book.reason, info=hello)])
        self._reached_after_all(name, book)
        self.m.stale = True
        handle = self.m.handles[name]
        mine = [a for a in self.m.open.values() if a.lane == name]
        # One that was placed on a remote lane may still be on its way there: it is sent again, not looked for.
        there = [a for a in mine if not (handle.remote and a.state is AttemptState.PLACED)]
        # In tuples: what cannot be told now is kept by what it is about.
        handle.tell("adopt", tuple((a.job, a.n, str(self.m.home.run_dir(a.job, a.n).path)) for a in there))
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
        book = self.m.books.get(name)
        if book is None or (book.config.remote and name not in self.m.handles):
            return  # the last words of a lane that we have left
        self._heard(name)
        now = time.monotonic()
        book.link, book.down_since = {}, None
        if now - self._seen.get(name, -_SEEN_S) >= _SEEN_S:
            self._seen[name] = now
            self._live.lane(name, {**book.hello, "usage": usage or {}, "barred": dict(book.barred)})
            self._tidy(name, now)
        if book.state is LaneState.UNREACHABLE:
            book.state, book.reason = reached(book)
            self._record([lane_event(name, book.state, book.reason)])
            say(f"lane {name} answers again")
        if name in self._doubted:
            self._reached_after_all(name, book)

    def doubt(self, name: str) -> None:
        """Somebody found that the lane cannot be reached: its next word says otherwise."""
        self._doubted.add(name)

    def _reached_after_all(self, name: str, book: LaneBook) -> None:
        """The link is there, so what was found below it before is old."""
        self._doubted.discard(name)
        events = held_after_all(self.m.journal.conn, book.config) if book.config.remote else []
        if events:
            self._record(events)

    def trouble(self, name: str, message: str) -> None:
        """The lane was asked and did not answer as it should."""
        now = time.monotonic()
        self._say_once(name, message)
        since = self._troubled.setdefault(name, now)
        book = self.m.books.get(name)
        if book is None or now - since < _LOST_S:
            return
        if book.config.remote and book.down_since is None:
            book.down_since = since  # for its jobs that is as if the link were down
        if book.state is LaneState.UP:
            self._unreachable(name, book, message)

    def tell_failed(self, name: str, method: str, message: str) -> None:
        """Something could not be told to the lane; it is told again. That its link is down was said already."""
        book = self.m.books.get(name)
        if book is None or not book.link:
            self._say_once(name, f"{method} failed: {message}")

    def _say_once(self, name: str, message: str) -> None:
        last, at = self._said.get(name, ("", 0.0))
        now = time.monotonic()
        if message != last or now - at >= _SAME_S:
            self._said[name] = (message, now)
            say(f"lane {name}: {message}")

    def link(self, name: str, link: dict[str, Any]) -> None:
        """The way to a remote lane is down. That is shown with its age; nothing fails by it."""
        book = self.m.books.get(name)
        if book is None or name not in self.m.handles:
            return
        now = time.monotonic()
        age = link.get("age_s")
        book.link = link
        self._talking.discard(name)
        self._live.link(name, link)
        if link.get("on_purpose"):
            return  # we closed it ourselves, for a while: no job is to be given up for that
        if book.down_since is None:
            book.down_since = now - float(age or 0.0)
        refused = link.get("refused") or {}
        message = str(refused.get("message") or link.get("error") or "it does not answer")
        kind = str(refused.get("cause") or "")
        known, at = self._why.get(name, ("", -_REASON_S))
        admitted = bool(book.roles)
        if admitted and book.state is LaneState.UP and (refused or now - book.down_since >= _DOWN_S):
            self._why[name] = (kind, now)
            self._unreachable(name, book, message)
        elif (
            book.state is LaneState.UNREACHABLE
            and book.reason != message
            # One try after another may say something else, for days; what it says now is in the live view.
            and (kind != known or now - at >= _REASON_S)
        ):
            self._why[name] = (kind, now)
            self._unreachable(name, book, message, quiet=True)

    def grant(self, name: str, role: str, ok: bool, reason: str) -> None:
        """A role was earned, or is taken away."""
        book = self.m.books.get(name)
        data = {"role": role, "ok": ok, "reason": reason}
        events = [Event(EventKind.ADMITTED, lane=name, data=data)]
        if book is not None:
            data["place"] = place(book.config)
            book.admitted = book.admitted | {role} if ok else book.admitted - {role}
            if book.state in _CLIMBS_BACK and book.reason != GONE and ok:
                book.state = LaneState.DECLARED
            if book.state not in _KEPT:
                book.state, book.reason = reached(book) if name in self._talking else at_rest(book)
            events.append(lane_event(name, book.state, book.reason))
        self._record(events)

    def set_state(self, name: str, state: LaneState, reason: str) -> None:
        """Somebody decided: drained, quarantined, down, or (UP) none of these any more."""
        book = self.m.books.get(name)
        if book is not None and book.reason == GONE and state in (LaneState.UP, LaneState.DRAINING):
            state, reason = book.state, GONE  # as long as nobody declares it, nothing is placed there
        elif book is not None:
            if book.config.remote and book.state in _CLIMBS_BACK and state in (LaneState.UP, LaneState.DRAINING):
                state, reason = book.state, book.reason
            elif state is LaneState.UP:
                state, reason = reached(book) if name in self._talking else at_rest(book)
            book.state, book.reason = state, reason
            if state is not LaneState.DOWN and name not in self.m.handles:
                self._start(name, book)
        self.m.record([lane_event(name, state, reason)])

    def leave(self, name: str) -> None:
        """Have nothing more to do with the lane's machine, unless somebody wants it again already."""
        self._close(name, "it was taken down while this ran")
        book = self.m.books.get(name)
        if book is not None and book.state is not LaneState.DOWN:
            self._start(name, book)

    def out_of_reach(self, name: str) -> bool:
        """Is there no use in waiting for what runs there?"""
        book = self.m.books.get(name)
        return book is None or name not in self.m.handles or book.down_since is not None

    def _heard(self, name: str) -> None:
        self._troubled.pop(name, None)
        self._said.pop(name, None)
        self._why.pop(name, None)
        self._talking.add(name)

    def _record(self, events: Sequence[Event]) -> None:
        """Commit `events`. What is asked of one of their lanes meanwhile stays asked: an event about a lane's state
        counts as the answer, and these answer nobody."""
        lanes = {e.lane for e in events if e.kind is EventKind.LANE}
        with self.m.journal.transaction() as tx:
            asked = [row for row in lookups.lane_wishes(tx.conn) if row[0] in lanes]
            tx.extend([*events, *(wish_event(*row) for row in asked)])
        self.m.heard(events)

    def _tidy(self, name: str, now: float) -> None:
        handle = self.m.handles.get(name)
        if isinstance(handle, RemoteHandle) and now >= self._tidy_at.get(name, 0.0):
            self._tidy_at[name] = now + _TIDY_S
            handle.tidy(lookups.begun(self.m.journal.conn))

    def _unreachable(self, name: str, book: LaneBook, message: str, *, quiet: bool = False) -> None:
        book.state, book.reason = LaneState.UNREACHABLE, message
        self._record([lane_event(name, book.state, message)])
        if not quiet:
            say(f"lane {name} is out of reach: {message}")

    def _start(self, name: str, book: LaneBook) -> None:
        make = RemoteHandle if book.config.remote else LaneHandle
        handle = self.m.handles[name] = make(self.m.home, book.config, self.leaving.line(name))
        self.leaving.follow(handle)
        try:
            handle.start()
        except LabError as error:
            say(f"lane {name}: {error}")

    def _close(self, name: str, why: str) -> None:
        """`why`: for those who are at work with the lane."""
        self._talking.discard(name)
        handle = self.m.handles.pop(name, None)
        if handle is not None:
            handle.why_left = why
            self.leaving.leave(handle)
