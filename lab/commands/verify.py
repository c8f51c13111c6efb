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
from lab.selection import resolve
from lab.session import session

# A sweep is verified as a whole, whatever became of some of its cells.
_ALL = """SELECT id FROM job_state s WHERE sweep IS NULL AND (state = 'succeeded' OR (cells IS NOT NULL AND
    EXISTS (SELECT 1 FROM job_state c WHERE c.sweep = s.id AND c.state = 'succeeded'))) ORDER BY id"""


def verify_(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Only these jobs and sweeps [all that succeeded].",
            autocompletion=completion.finished_job_ids,
        ),
    ] = None,
) -> None:
    """Re-hash results and compare with what was sealed.

    Files of the run directory against their manifest; the manifest and the table parts against the journal. Ends with
    1 if anything differs.
    """
    here = session()
    with here.reading() as journal:
        chosen = resolve(journal.conn, arguments.ids(ids)) or tuple(int(r[0]) for r in journal.conn.execute(_ALL))
        report = VerifyReport(verify(here.home, journal.conn, chosen))
    here.out.show(report)
    if not report.equal:
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class VerifyReport(Report):
    """Each job, and what of it is not as it was committed."""

    jobs: Sequence[Verified]

    schema = "lab.verify/1"

    @property
    def equal(self) -> bool:
        return all(v.ok for v in self.jobs)

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
        return {"jobs": jobs, "equal": self.equal}

    def text(self, page: Page) -> Iterable[str]:
        for v in self.jobs:
            if not v.ok:
                yield f"{page.mark('fail')} job {v.job}" + (f", attempt {v.attempt}" if v.attempt else "")
                yield from (f"    {human.clean(p)}" for p in v.problems)
            if v.notes:
                yield f"{page.mark('cancelled')} job {v.job}"
                yield from (f"    {human.clean(n)}" for n in v.notes)
        bad = sum(1 for v in self.jobs if not v.ok)
        files, parts = sum(v.files for v in self.jobs), sum(v.parts for v in self.jobs)
        hashed = f"{human.count(files, 'file')} and {human.count(parts, 'table part')}"
        if bad:
            yield f"{bad:,} of {human.count(len(self.jobs), 'job')} cannot be believed; `lab rerun ID` makes them again"
        elif not self.jobs:
            yield "No job has succeeded yet: there is nothing to verify."
        else:
            yield f"{page.mark('ok')} {human.count(len(self.jobs), 'job')}, {hashed}: every byte is what was committed"

    def brief(self) -> Iterable[str]:
        return [str(v.job) for v in self.jobs if not v.ok]
