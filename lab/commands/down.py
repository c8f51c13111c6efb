"""`lab down`: stop the controller. What runs goes on, and is adopted again by the next `lab up`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import Refused, Unavailable
from core.journal import query
from core.journal.query import Attempt, Batch
from core.states import EventKind
from lab import arguments, control
from lab.output import Page, Report, human
from lab.session import Session, session


def down_(
    kill: Annotated[
        bool, typer.Option("--kill", help="Also end every attempt; their jobs go back into the queue.")
    ] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait for its end.")] = "60s",
) -> None:
    """Stop the controller; attempts go on.

    The next `lab up` adopts what still runs, with the same processes and attempt numbers.
    """
    from lanes.start import controller_alive

    here = session()
    seconds = arguments.duration(timeout, "--timeout")
    alive = controller_alive(here.home)
    running = _open_attempts(here)
    if kill and running and not alive:
        control.start_and_wait(here.home, seconds)  # only a controller can end them properly
        alive = True
    if alive:
        _stop(here, kill, seconds)
    another = alive and controller_alive(here.home)
    here.out.show(DownReport(alive, kill, running, _open_attempts(here), _open_batches(here), another))


@dataclass(frozen=True)
class DownReport(Report):
    """The controller does not run; `another` one may, for which somebody asked meanwhile."""

    was_up: bool
    kill: bool
    before: Sequence[Attempt]
    left: Sequence[Attempt]
    batches: Sequence[Batch] = ()
    another: bool = False

    schema = "lab.down/1"

    def json(self) -> dict[str, Any]:
        return {
            "was_up": self.was_up,
            "killed": self.kill,
            "running": [f"{a.job}.{a.n}" for a in self.left],
            "batches": [b.dir for b in self.batches],
        }

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok')} the controller is down" if self.was_up else "The controller was not running."
        if self.another:
            yield "  another one is up, for which somebody asked after that"
            return
        if self.kill and self.before:
            yield f"  {human.count(len(self.before) - len(self.left), 'attempt')} ended"
        if self.left:
            names = ", ".join(f"job {a.job}" for a in self.left[:8]) + (", ..." if len(self.left) > 8 else "")
            goes = "goes" if len(self.left) == 1 else "go"
            yield f"  {human.count(len(self.left), 'attempt')} {goes} on: {names}"
            yield "  `lab up` adopts them again; `lab down --kill` ends them"
        if self.batches:
            count = sum(last - first + 1 for b in self.batches for first, last, _ in b.cells)
            yield f"  {human.count(count, 'cell')} ran in batches: `lab up` takes what they finished, and runs the rest"


# It went down as asked, and another one is up.
_WENT = """SELECT 1 FROM event d WHERE d.seq > ? AND d.kind = 'controller-down' AND d.data ->> '$.why' = 'asked'
    AND EXISTS(SELECT 1 FROM event u WHERE u.seq > d.seq AND u.kind = 'controller-up')"""


def _stop(here: Session, kill: bool, timeout_s: float) -> None:
    """Ask until it is down: one that is just starting forgets what was asked of the one before it.

    One that is up again after it went down as asked is there because somebody wants it.
    """
    from lanes.start import controller_alive, wake

    # Also one of an older version, which `lab up` of a newer one could not talk to.
    with here.asking(migrate=False) as journal:
        began = int(journal.conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

        def down() -> bool:
            if not controller_alive(here.home) or journal.conn.execute(_WENT, (began,)).fetchone():
                return True
            said = query.controller(journal.conn)
            ending = said is not None and said[1] is not None
            if not ending and query.down_wish(journal.conn) is None:
                with journal.transaction() as tx:
                    tx.append(EventKind.DOWN_ASKED, data={"kill": kill})
                wake(here.home)
            return False

        if not control.wait_until(down, timeout_s):
            raise Unavailable(
                f"the controller has not ended after {timeout_s:g} s",
                hint=f"it was asked to and may still do so; {here.home.controller_log} says what it does",
            )


def _open_batches(here: Session) -> list[Batch]:
    try:
        with here.reading() as journal:
            return query.open_batches(journal.conn)
    except Refused:
        return []


def _open_attempts(here: Session) -> list[Attempt]:
    try:
        with here.reading() as journal:
            return query.open_attempts(journal.conn)
    except Refused:  # an older controller's journal: it is migrated once that one is down
        return []
