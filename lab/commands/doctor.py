"""`lab doctor`: is this installation and this home all right, and if not, what to do. `--recover`: the way back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import Exit
from lab.checks import Check, all_checks
from lab.output import Page, Report, human
from lab.output.table import fold
from lab.session import session


def doctor_(
    recover: Annotated[
        bool, typer.Option("--recover", help="Rebuild a damaged journal; the damaged files are kept.")
    ] = False,
) -> None:
    """Check this installation and home; recover a journal.

    Ends with 1 if a check fails.
    """
    here = session()
    if recover:
        from core.journal.recover import recover as rebuild

        found = rebuild(here.home)
        here.out.show(RecoverReport(str(here.home.path), list(found.lines), found.lost))
        return
    report = DoctorReport(list(all_checks(here.home)))
    here.out.show(report)
    if any(c.verdict == "fail" for c in report.checks):
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class DoctorReport(Report):
    """Every check with its verdict."""

    checks: Sequence[Check]

    schema = "lab.doctor/1"

    def json(self) -> dict[str, Any]:
        checks = [{"name": c.name, "verdict": c.verdict, "said": c.said, "hint": c.hint} for c in self.checks]
        return {"checks": checks, "ok": all(c.verdict != "fail" for c in self.checks)}

    def text(self, page: Page) -> Iterable[str]:
        wide = max(len(c.name) for c in self.checks)
        room = (page.width or 10_000) - wide - 8
        for c in self.checks:
            first, *rest = fold(human.clean(c.said), room, page, 4)
            yield f"{page.state(c.verdict).ljust(6 + _paint(page, c))}  {c.name.ljust(wide)}  {first}"
            yield from (" " * (wide + 10) + line for line in rest)
            if c.hint and c.verdict != "ok":
                yield " " * (wide + 10) + page.paint(human.clean(c.hint), "dim")
        bad = sum(1 for c in self.checks if c.verdict == "fail")
        odd = sum(1 for c in self.checks if c.verdict == "warn")
        yield ""
        yield f"{human.count(len(self.checks), 'check')}: {bad} failed, {odd} to look at"

    def brief(self) -> Iterable[str]:
        return [c.name for c in self.checks if c.verdict == "fail"]


@dataclass(frozen=True)
class RecoverReport(Report):
    """What the recovery did."""

    home: str
    lines: Sequence[str]
    lost: int

    schema = "lab.recover/1"

    def json(self) -> dict[str, Any]:
        return {"home": self.home, "lines": list(self.lines), "lost_events": self.lost}

    def text(self, page: Page) -> Iterable[str]:
        for line in self.lines:
            yield from fold(f"{page.dot} {human.clean(line)}", page.width or 0, page, 20)
        if self.lost:
            yield page.paint(f"{human.count(self.lost, 'acknowledged event')} could not be found again.", "warn")
        yield f"{page.mark('ok')} the journal of {self.home} can be used again; next: lab status"


def _paint(page: Page, c: Check) -> int:
    """How many characters of a painted verdict take no room."""
    from lab.output.page import cells

    painted = page.state(c.verdict)
    return len(painted) - cells(painted)
