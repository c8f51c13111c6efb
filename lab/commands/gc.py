"""`lab gc`: remove what nobody needs any more, after saying what that is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import BadInput, Exit
from lab import arguments
from lab.gc import Collected, Limits, Plan, collect, plan
from lab.output import Column, JsonFace, Page, Report, human, lay_out
from lab.session import session

_MOST_JOBS = 10

EPILOG = """
Examples:
  lab gc --dry-run
  lab gc --older-than 7d --keep-last 50
  lab gc --results-older-than 180d --yes

What a succeeded job's results need stays unless --results-older-than is given. Results that were discarded no longer
answer from the cache; `lab verify` and `lab fetch` say when they went.
"""


def gc_(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Age of attempts that did not succeed, and of batches.")
    ] = "30d",
    keep_last: Annotated[
        int, typer.Option("--keep-last", metavar="N", help="Leave the newest N finished jobs alone.")
    ] = 0,
    results_older_than: Annotated[
        str | None,
        typer.Option("--results-older-than", metavar="AGE", help="Also discard results of succeeded jobs this old."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove leftovers, old attempts and, if asked for, old results.

    It says what goes and asks first. Safe while jobs run.
    """
    here = session()
    if keep_last < 0:
        raise BadInput(f"--keep-last {keep_last} is negative", hint="give a number of jobs")
    age = arguments.duration(older_than, "--older-than")
    results = arguments.duration(results_older_than, "--results-older-than") if results_older_than else None
    limits = Limits(age, min(age, Limits.scratch_s), results, keep_last)
    if dry_run:
        with here.reading() as journal:
            here.out.show(GcReport(plan(here.home, journal.conn, limits)))
        return
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not isinstance(here.out, JsonFace)
    if not yes and not asks:
        raise BadInput("nobody can be asked here whether to remove it", hint="look with --dry-run, then add --yes")
    with here.asking() as journal:
        planned = plan(here.home, journal.conn, limits)
        if not yes and planned.items:
            here.out.show(GcReport(planned))
            typer.confirm("Remove it?", abort=True)
        done = collect(here.home, journal, planned)
    here.out.show(GcReport(Plan(tuple(done.items), limits, planned.now), done))
    if done.kept:
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class GcReport(Report):
    """What would go, or what went."""

    planned: Plan
    done: Collected | None = None

    schema = "lab.gc/1"

    def json(self) -> dict[str, Any]:
        classes = [{"class": c, "count": n, "bytes": size} for c, (n, size) in self.planned.classes().items()]
        jobs = [{"job": j, "bytes": size, "classes": c} for j, (size, c) in self.planned.jobs().items()]
        return {
            "removed": self.done is not None,
            "classes": classes,
            "jobs": jobs,
            "bytes": self.planned.bytes,
            "kept": self.done.kept if self.done is not None else [],
        }

    def text(self, page: Page) -> Iterable[str]:
        if not self.planned.items:
            yield "There is nothing to remove." if self.done is None or not self.done.kept else "Nothing was removed."
        else:
            rows = [(c, f"{n:,}", human.size(size)) for c, (n, size) in self.planned.classes().items()]
            title = "REMOVED" if self.done is not None else "WOULD GO"
            yield from lay_out(page, (Column(title), Column("COUNT", right=True), Column("SIZE", right=True)), rows)
            yield from self._jobs(page)
            yield f"{human.size(self.planned.bytes)} in all"
        for line in self.done.kept if self.done is not None else ():
            yield f"{page.mark('warn')} {human.clean(line)}"

    def _jobs(self, page: Page) -> Iterable[str]:
        jobs = self.planned.jobs()
        if not jobs:
            return
        shown = (Column("JOB", right=True), Column("SIZE", right=True), Column("WHAT"))
        rows = [(str(j), human.size(size), ", ".join(c)) for j, (size, c) in itertools.islice(jobs.items(), _MOST_JOBS)]
        yield ""
        yield from lay_out(page, shown, rows)
        if len(jobs) > _MOST_JOBS:
            yield page.paint(f"and {human.count(len(jobs) - _MOST_JOBS, 'other job')}; --json lists all", "dim")

    def brief(self) -> Iterable[str]:
        return [p for i in self.planned.items for p in i.paths]
