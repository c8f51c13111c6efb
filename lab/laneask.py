"""Asking the controller about a lane: one row in the journal, and waiting for the row that answers it.

seq = ask(home, "bat00", "probe")
answer = wait(home, seq, on_progress=show)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from core import cluster
from core.cluster import LaneConfig
from core.errors import BadInput, Unavailable
from core.home import Home
from core.journal import Journal, Role, query
from core.journal.query import AskRow, RungRow
from core.states import EventKind

__all__ = ["Answer", "Progress", "ask", "climbing", "declared", "remote", "wait"]

_POLL_S = 0.05  # one PRAGMA, no table is read
_ALONE_S = 10.0  # so long the controller may be away before whoever waits is told


@dataclass(frozen=True)
class Answer:
    """What the controller answered."""

    ok: bool
    message: str
    hint: str
    data: Mapping[str, Any]


class Progress(Protocol):
    """Told while an answer is waited for."""

    def rung(self, row: RungRow) -> None:
        """A rung was climbed, or not."""
        ...

    def look(self, journal: Journal) -> None:
        """The journal has changed."""
        ...

    def alone(self) -> None:
        """There is no controller, and has been none for a while."""
        ...


def declared(home: Home, name: str) -> LaneConfig:
    """The lane called `name` in cluster.yaml. Raises NotFound."""
    return cluster.load(home.cluster_file).lane(name)


def remote(home: Home, name: str, verb: str) -> LaneConfig:
    """The same, where only a remote lane makes sense. Raises BadInput for a local one."""
    config = declared(home, name)
    if not config.remote:
        raise BadInput(f"lane {name} is this machine: there is nothing to {verb}", hint="see `lab lanes`")
    return config


def ask(home: Home, lane: str, what: str, data: Mapping[str, Any] | None = None, *, start: bool = True) -> int:
    """Record the question and see that a controller runs. Returns its number, for `wait`.

    Args:
        start: start the controller if it does not run.
    """
    from lanes.start import ensure_controller, wake

    with Journal.open(home, Role.CLIENT, create=True) as journal, journal.transaction() as tx:
        seq = tx.append(EventKind.LANE_ASKED, lane=lane, data={**(data or {}), "what": what})
    if start:
        ensure_controller(home)
    wake(home)
    return seq


def climbing(home: Home, lane: str) -> AskRow | None:
    """The climb for admission that is under way on a lane, or waits for the controller."""
    if not home.journal.exists():
        return None
    with Journal.open(home) as journal:
        return next((a for a in query.open_asks(journal.conn) if (a.lane, a.what) == (lane, "admit")), None)


def wait(home: Home, seq: int, *, progress: Progress | None = None, timeout_s: float | None = None) -> Answer:
    """Wait for the answer to the question number `seq`. Ctrl-C stops waiting only.

    Raises:
        Unavailable: there is none within `timeout_s`.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    version = -1
    told = seq
    watch = _Watch(home, progress.alone if progress is not None else lambda: None)
    with Journal.open(home) as journal:
        while True:
            now = journal.data_version()
            if now != version:
                version = now
                found = query.ask(journal.conn, seq)
                if progress is not None and found is not None:
                    for row in query.rungs(journal.conn, found.lane):
                        if row.seq > told:
                            told = row.seq
                            progress.rung(row)
                    progress.look(journal)
                if found is not None and found.answer is not None:
                    a = found.answer
                    return Answer(bool(a["ok"]), str(a["message"]), str(a.get("hint") or ""), a.get("data") or {})
            watch.look()
            if end is not None and time.monotonic() > end:
                raise Unavailable(
                    f"the controller has not answered within {timeout_s:g} s",
                    hint=f"it goes on by itself; read the end of {home.controller_log}",
                )
            time.sleep(_POLL_S)


class _Watch:
    """Says once when nobody is there to answer."""

    def __init__(self, home: Home, say: Callable[[], None]) -> None:
        self._home = home
        self._say = say
        self._missing_since: float | None = None
        self._said = False

    def look(self) -> None:
        from lanes.start import controller_alive

        if self._said or controller_alive(self._home):
            self._missing_since = None
            return
        now = time.monotonic()
        self._missing_since = self._missing_since if self._missing_since is not None else now
        if now - self._missing_since > _ALONE_S:
            self._said = True
            self._say()
