"""What people ask of the controller about a lane: probe, admit, provision, hash, give up.

Each such question is an event of the journal, handled on a thread of its own (it may take minutes, and the lane may not
answer at all) and answered by another event, for which whoever asked waits. A thread never touches the controller's
state: it puts messages into the inbox. What was asked and not answered when a controller died is taken up by the next.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from core.cluster import LaneConfig
from core.errors import DiskFull, LabError, Unavailable
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.query import AskRow
from core.states import AttemptState, Cause, EventKind, LaneState
from lanes import decide
from lanes.decide import Ended
from lanes.later import Message
from lanes.mended import LINK_RUNGS
from lanes.mirror import Mirror, say
from lanes.remote import RemoteHandle
from lanes.roster import GONE, Roster
from lanes.transport import LinkDown, LinkRefused, RemoteError

_CLIMBING = ("probe", "admit")  # a lane does one of these at a time, once it climbs for its admission
_REVOKE_S = 10.0  # for so long a lane that is given up is asked to end what runs there

# What is asked -> who answers: module and function(access, data) -> {"ok", "message", "hint", "data"}.
_HANDLERS = {
    "probe": ("lanes.admission", "probe"),
    "admit": ("lanes.admission", "admit"),
    "provision": ("lanes.environment", "provision"),
    "data": ("lanes.carrier", "data"),
}

# What a handler may say to the controller while it works.
SAID = frozenset({"rung", "admitted", "admitting", "quarantine", "cancel", "progress"})

Answer = dict[str, Any]


class Left(Exception):
    """The lane is held no more, or otherwise, by whoever works with it: what it found is of another one."""


class LaneAccess:
    """One lane, as those see it who answer questions about it. Safe to use from any thread."""

    def __init__(self, home: Home, handle: RemoteHandle, inbox: Callable[[Message], None]) -> None:
        self.home = home
        self.name = handle.name
        self.config: LaneConfig = handle.config
        self._handle = handle
        self._inbox = inbox

    def call(self, method: str, *args: Any, timeout_s: float = 60.0, **named: Any) -> Any:
        """Call the lane's agent. Raises LinkDown, LinkRefused, RemoteError, Left."""
        with self._held():
            return self._handle.ask(method, *args, timeout_s=timeout_s, **named)

    def carrier(self, method: str, *args: Any, **named: Any) -> Any:
        """Call the lane's carrier."""
        with self._held():
            return self._handle.carry(method, *args, **named)

    def link(self) -> dict[str, Any]:
        with self._held():
            return self._handle.link()

    def knock(self) -> None:
        with self._held():
            self._handle.knock()

    def close_for(self, seconds: float) -> None:
        """Close every connection to the lane and open none for so long. Returns after it."""
        with self._held():
            self._handle.close_for(seconds)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """What fails because the lane was left is no news about the lane."""
        try:
            yield
        except Exception as error:
            if self._handle.why_left:
                raise Left(self._handle.why_left) from error
            raise
        if self._handle.why_left:
            raise Left(self._handle.why_left)

    @property
    def interpreter(self) -> str | None:
        return self._handle.interpreter

    def say(self, what: str, body: Any) -> None:
        """Tell the controller: "rung", "admitted", "admitting", "cancel", "quarantine", "progress"."""
        self._inbox((what, self.name, body))


class Asks:
    """The controller's side. All but the handlers themselves runs on the controller's thread."""

    def __init__(self, mirror: Mirror, roster: Roster, inbox: Callable[[Message], None]) -> None:
        self.m = mirror
        self.roster = roster
        self._inbox = inbox
        self._busy: dict[int, AskRow] = {}
        self._answers: dict[int, Answer] = {}  # given, not recorded yet
        self._void: set[int] = set()  # climbs whose lane was taken down meanwhile: they earn nothing

    def look(self) -> None:
        """Begin what was asked since the last look."""
        for ask in query.open_asks(self.m.journal.conn):
            if ask.seq in self._busy or self._busy_with(ask.lane, "down"):
                continue  # `answer` looks again
            self._busy[ask.seq] = ask
            try:
                self._begin(ask)
            except (DiskFull, Unavailable):
                del self._busy[ask.seq]  # it is looked at again
                raise
            except LabError as error:
                self._reply(ask.seq, {"ok": False, "message": str(error.message), "hint": error.hint or ""})
            except Exception as error:
                # What cannot even be begun must not have one controller after the other stumble over it.
                self._reply(ask.seq, _a_bug(ask, error))

    def _begin(self, ask: AskRow) -> None:
        self.roster.reload()  # whoever asks about a lane may just have declared it
        if ask.what in ("reload", "trusted"):
            handle = self.m.handles.get(ask.lane)
            said: Answer = {"ok": True, "message": "cluster.yaml is read again"}
            if isinstance(handle, RemoteHandle):
                self._thread(ask, functools.partial(_knock, handle, said))
            else:
                self._reply(ask.seq, said)
            return
        if ask.what == "down":
            self._down(ask)
            return
        book, handle = self.m.books.get(ask.lane), self.m.handles.get(ask.lane)
        if book is None or book.reason == GONE:
            message = f"there is no lane {ask.lane}" + (f": it is {GONE}" if book is not None else "")
            self._reply(ask.seq, {"ok": False, "message": message, "hint": "see `lab lanes`"})
            return
        if not book.config.remote:
            message = f"lane {ask.lane} is this machine: there is nothing to {ask.what}"
            self._reply(ask.seq, {"ok": False, "message": message, "hint": ""})
            return
        climb = self._busy_with(ask.lane, "admit", beside=ask.seq) if ask.what in _CLIMBING else None
        if climb is not None and climb.seq not in self._answers:
            self._climbs_already(ask, climb)
            return
        # One that was given up is reached for this, and stays what it is until a climb has held.
        handle = self.roster.contact(ask.lane)
        if ask.what not in _HANDLERS:
            self._reply(ask.seq, {"ok": False, "message": f"{ask.what!r} cannot be asked", "hint": ""})
            return
        assert isinstance(handle, RemoteHandle)
        access = LaneAccess(self.m.home, handle, functools.partial(self._said, ask.seq))
        module, function = _HANDLERS[ask.what]
        self._thread(ask, lambda: getattr(importlib.import_module(module), function)(access, ask.data))

    def _busy_with(self, lane: str, what: str, *, beside: int | None = None) -> AskRow | None:
        """Something of this kind that was asked of a lane, and whose answer is not recorded."""
        return next((a for s, a in self._busy.items() if s != beside and (a.lane, a.what) == (lane, what)), None)

    def _climbs_already(self, ask: AskRow, climb: AskRow) -> None:
        """Two climbs would close each other's connections, and count each other's steps."""
        since = time.strftime("%H:%M", time.localtime(climb.at))
        message = f"{ask.lane} climbs already, since {since}"
        self._cancel([int(i) for i in (ask.data.get("jobs") or {}).values()], message)
        self._reply(ask.seq, {"ok": False, "message": message, "hint": f"watch: lab lane admit {ask.lane}"})

    def _said(self, seq: int, message: Message) -> None:
        """What the handler of question `seq` says. From any thread."""
        what, lane, body = message
        if what == "admitted":
            body = {**body, "ask": seq}
        if what != "admitting" or not body or seq not in self._void:
            self._inbox((what, lane, body))

    def _thread(self, ask: AskRow, work: Callable[[], Answer]) -> None:
        def run() -> None:
            try:
                answer = work()
            except Left as error:
                message = f"lane {ask.lane}: {error}"
                answer = {"ok": False, "message": message, "hint": "run it again"}
            except LinkRefused as error:
                answer = {"ok": False, "message": error.message, "hint": error.hint, "data": {"rung": error.rung}}
            except LinkDown as error:
                hint = f"see `lab lanes -v` and `ssh {ask.lane}`; the controller goes on trying"
                answer = {"ok": False, "message": f"lane {ask.lane} cannot be reached: {error}", "hint": hint}
            except RemoteError as error:
                answer = {"ok": False, "message": f"the lane answered with an error: {error}", "hint": ""}
            except LabError as error:
                answer = {"ok": False, "message": str(error.message), "hint": error.hint or ""}
            except Exception as error:
                answer = _a_bug(ask, error)
            self._reply(ask.seq, answer)

        threading.Thread(target=run, name=f"{ask.what}-{ask.lane}", daemon=True).start()

    def _reply(self, seq: int, answer: Answer) -> None:
        """Have the answer recorded, after all that was said before it. From any thread.

        The message holds no more than the number: what cannot be recorded now (a full disk) is kept by that.
        """
        self._answers[seq] = answer
        self._inbox(("answered", "", (seq,)))

    def answer(self, seq: int) -> None:
        """Record the answer that was given."""
        ask, answer = self._busy.get(seq), self._answers.get(seq)
        if ask is None or answer is None:
            return
        data = {"ask": seq, "ok": bool(answer.get("ok")), "message": str(answer.get("message") or "")}
        data.update(hint=str(answer.get("hint") or ""), data=answer.get("data") or {})
        self.m.record([Event(EventKind.LANE_ANSWERED, lane=ask.lane, data=data)])
        del self._busy[seq], self._answers[seq]
        self._void.discard(seq)
        if ask.what == "down":
            self.look()  # at what was asked of the lane meanwhile

    # What the handlers say meanwhile.

    def hear(self, what: str, lane: str, body: Any) -> None:
        book = self.m.books.get(lane)
        if what == "rung":
            self.m.record([Event(EventKind.RUNG, lane=lane, data=dict(body))])
            if not body.get("ok") and body.get("rung") in LINK_RUNGS:
                self.roster.doubt(lane)
        elif what == "admitted" and body.get("ask") in self._void:
            say(f"lane {lane}: what it climbed before it was taken down counts for nothing")
        elif what == "admitted":
            self.roster.grant(lane, str(body["role"]), bool(body["ok"]), str(body.get("reason") or ""))
        elif what == "admitting" and book is not None:
            book.admitting = bool(body)
            self.m.stale = True
        elif what == "quarantine" and book is not None and book.state is not LaneState.QUARANTINED:
            self.roster.set_state(lane, LaneState.QUARANTINED, str(body))
        elif what == "cancel":
            self._cancel(body[0], str(body[1]))

    def _cancel(self, jobs: list[int], reason: str) -> None:
        """Jobs of a ladder that can no longer be climbed."""
        events: list[Event] = []
        sweeps = []
        for number in jobs:
            job = query.job(self.m.journal.conn, number)
            if job.state.terminal:
                continue
            if job.is_sweep:
                sweeps.append(number)
                continue
            mine = [a for a in self.m.open.values() if a.job == number]
            if mine:
                events.append(Event(EventKind.CANCELLING, job=number, data={"reason": reason}))
            else:
                events.append(decide.cancelled_in_queue(job, reason))
            for attempt in mine:
                self.m.tell_stop(attempt, Cause.CANCELLED)
        if events:
            self.m.record(events)
        if sweeps:
            # With all their cells, as if a person had asked; and as a person, for the journal's news is what is heard.
            threading.Thread(target=_ask_to_cancel, args=(self.m.home, sweeps), name="cancel", daemon=True).start()

    # Giving a lane up.

    def _down(self, ask: AskRow) -> None:
        """What runs there is recorded as lost and goes back to the queue; when it can be told, it is revoked."""
        name, reason = ask.lane, str(ask.data.get("reason") or "given up")
        book = self.m.books.get(name)
        if book is None or not book.config.remote:
            message = f"there is no remote lane {name}"
            self._reply(ask.seq, {"ok": False, "message": message, "hint": "`lab lane drain` empties a local one"})
            return
        lost = [a for a in self.m.open.values() if a.lane == name]
        book.admitting = False
        self._void |= {seq for seq, a in self._busy.items() if a.lane == name and a.what == "admit"}
        self.roster.set_state(name, LaneState.DOWN, reason)
        for attempt in lost:
            end = Ended(AttemptState.LOST, Cause.UNREACHABLE, f"its lane was given up: {reason}")
            self._inbox(("lost", name, ((attempt.job, attempt.n), end)))
        if book.batches:
            self._inbox(("lane-gone", name, reason))
        handle = self.m.handles.get(name)
        count = f"{len(lost)} attempts there go back to the queue" if lost else "nothing ran there"
        if len(lost) == 1:
            count = "1 attempt there goes back to the queue"
        if not isinstance(handle, RemoteHandle):
            self._reply(ask.seq, {"ok": True, "message": f"lane {name} is down: {count}"})
            return
        reached = not book.link and bool(book.hello)

        def work() -> Answer:
            message, data = f"lane {name} is down: {count}", {"attempts": len(lost)}
            with contextlib.suppress(LinkDown, LinkRefused):
                if reached:
                    left = handle.let_go(_REVOKE_S)
                    self._inbox(("leave", name, None))
                    return {"ok": True, "message": message, "hint": left, "data": data}
            hint = "when it comes back, what still runs there is revoked and nothing of it is taken"
            return {"ok": True, "message": message, "hint": hint, "data": data}

        self._thread(ask, work)


def _a_bug(ask: AskRow, error: Exception) -> Answer:
    say(f"lane {ask.lane}: {ask.what}: a bug of ours\n{traceback.format_exc()}")
    return {"ok": False, "message": f"{type(error).__name__}: {error}", "hint": "see the controller's log"}


def _ask_to_cancel(home: Home, jobs: list[int]) -> None:
    try:
        with Journal.open(home, Role.CLIENT) as journal, journal.transaction() as tx:
            tx.extend([Event(EventKind.CANCEL_ASKED, job=number) for number in jobs])
    except LabError as error:
        say(f"jobs {jobs} of a ladder that can no longer be climbed could not be cancelled: {error}")


def _knock(handle: RemoteHandle, answer: Answer) -> Answer:
    handle.knock()
    return answer
