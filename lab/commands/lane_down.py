"""`lab lane down`: give a lane up. What runs there is lost to us and goes elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import Exit
from core.journal import Journal, query
from lab import arguments, completion, laneask
from lab.laneask import Answer
from lab.output import Page, Report, human
from lab.session import session

_TIMEOUT = "60s"


def down_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why, for everyone who asks later.")
    ] = "",
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long to wait for the controller's answer.")
    ] = _TIMEOUT,
) -> None:
    """Give a lane up: its attempts count as lost and go elsewhere, and its ownership ends.

    It need not answer: whatever still runs there is revoked when it can be reached, and nothing of it is ever taken.
    `lab lane drain` lets the attempts go on to their end instead.
    """
    here = session()
    laneask.remote(here.home, name, "give up")
    limit = arguments.duration(timeout, "--timeout")
    seq = laneask.ask(here.home, name, "down", {"reason": reason.strip()})
    answer = laneask.wait(here.home, seq, timeout_s=limit)
    with Journal.open(here.home) as journal:
        left = [a.job for a in query.open_attempts(journal.conn) if a.lane == name]
    here.out.show(DownReport(name, reason.strip(), answer, tuple(left)))
    if not answer.ok:
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class DownReport(Report):
    """What became of the lane."""

    lane: str
    reason: str
    answer: Answer
    left: tuple[int, ...]

    schema = "lab.lane-down/1"

    def json(self) -> dict[str, Any]:
        return {
            "lane": self.lane,
            "ok": self.answer.ok,
            "reason": self.reason,
            "message": self.answer.message,
            "hint": self.answer.hint,
            "open_jobs": list(self.left),
        }

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok' if self.answer.ok else 'fail')} {human.clean(self.answer.message)}"
        if self.answer.hint:
            yield page.paint(f"  {human.clean(self.answer.hint)}", "dim")
        if self.answer.ok:
            yield page.paint(f"  wanted again: lab lane admit {self.lane}", "dim")

    def brief(self) -> Iterable[str]:
        return [self.lane] if self.answer.ok else []
