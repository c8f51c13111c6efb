"""`lab verify`: re-hash what was sealed and committed, and name every difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import Exit
from lab import arguments, completion
from lab.evidence import Verified, verify
from lab.output import Page, Report, human
from lab.output.table import fold
from lab.selection import resolve
from lab.session import session
from lab.verifying import Section, whole


def verify_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Only these jobs and sweeps [everything].",
            autocompletion=completion.finished_job_ids,
        ),
    ] = None,
) -> None:
    """Re-hash results and compare with what was sealed.

    Files of every attempt against their manifest; manifests and table parts against the journal. Without ID also the
    journal against its events and witness, stored code, batches, what jobs took of others, pins, and remembered
    digests. Ends with 1 if anything differs.
    """
    here = session()
    with here.reading() as journal:
        chosen = resolve(journal.conn, arguments.ids(ids))
        if chosen:
            report = VerifyReport(verify(here.home, journal.conn, chosen))
        else:
            found = whole(here.home, journal.conn)
            report = VerifyReport(found.jobs, found.sections)
    here.out.show(report)
    if not report.equal:
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class VerifyReport(Report):
    """Each job, and what of it is not as it was committed."""

    jobs: Sequence[Verified]
    sections: Sequence[Section] = ()

    schema = "lab.verify/1"

    @property
    def equal(self) -> bool:
        return all(v.ok for v in self.jobs) and not any(s.problems for s in self.sections)

    def json(self) -> dict[str, Any]:
        jobs = [
            {
                "job": v.job,
                "attempt": v.attempt,
                "files": v.files,
                "parts": v.parts,
                "ok": v.ok,
                "problems": list(v.problems),
                "notes": list(v.notes),
            }
            for v in self.jobs
        ]
        home = [
            {"what": s.what, "checked": s.checked, "problems": list(s.problems), "notes": list(s.notes)}
            for s in self.sections
        ]
        return {"jobs": jobs, "home": home, "equal": self.equal}

    def text(self, page: Page) -> Iterable[str]:
        for v in self.jobs:
            if not v.ok:
                yield f"{page.mark('fail')} job {v.job}" + (f", attempt {v.attempt}" if v.attempt else "")
                yield from (f"    {human.clean(p)}" for p in v.problems)
            if v.notes:
                yield f"{page.mark('cancelled')} job {v.job}"
                yield from (f"    {human.clean(n)}" for n in v.notes)
        for s in self.sections:
            yield from (f"{page.mark('fail')} {human.clean(p)}" for p in s.problems)
            yield from (f"{page.mark('warn')} {human.clean(n)}" for n in s.notes)
        yield from self._summed_up(page)

    def _summed_up(self, page: Page) -> Iterable[str]:
        bad = sum(1 for v in self.jobs if not v.ok)
        files, parts = sum(v.files for v in self.jobs), sum(v.parts for v in self.jobs)
        hashed = f"{human.count(files, 'file')} and {human.count(parts, 'table part')}"
        if bad:
            yield f"{bad:,} of {human.count(len(self.jobs), 'job')} cannot be believed; `lab rerun ID` makes them again"
        elif not self.jobs:
            yield "No job has succeeded yet: there is nothing to verify."
        else:
            yield f"{page.mark('ok')} {human.count(len(self.jobs), 'job')}, {hashed}: every byte is what was committed"
        wrong = sum(len(s.problems) for s in self.sections)
        looked = ", ".join(human.count(s.checked, s.what) for s in self.sections if s.checked)
        if wrong:
            yield f"{human.count(wrong, 'difference')} beside the jobs, among {looked}"
        elif looked:
            yield from fold(f"{page.mark('ok')} beside the jobs: {looked}", page.width or 0, page, 5)

    def brief(self) -> Iterable[str]:
        return [str(v.job) for v in self.jobs if not v.ok]
