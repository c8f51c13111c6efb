"""`lab gc`: remove what nobody needs any more, after saying what that is."""

from __future__ import annotations

import itertools
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core import cluster
from core.errors import BadInput, Exit
from core.kind import entry_points
from core.retention import Quota, quota_word
from lab import arguments
from lab.gc import Collected, Limits, Plan, collect, plan
from lab.output import Column, JsonFace, Page, Report, human, lay_out
from lab.output.table import fold
from lab.params import unknown_name
from lab.pins import Pin, pin, pinned, unpin
from lab.quota import Verdict
from lab.selection import resolve
from lab.session import Session, session

_MOST_JOBS = 10

EPILOG = """
Examples:
  lab gc --dry-run
  lab gc --older-than 7d --keep-last 50
  lab gc --results-older-than 180d --yes
  lab gc --quota bytes=200G --quota train:jobs=20 --dry-run
  lab gc --pin 17 --why "figure 3 of the paper"

What a succeeded job's results need stays unless --results-older-than is given. Results that were discarded no longer
answer from the cache; `lab verify` and `lab fetch` say when they went.

For a quota more goes, whatever its age, until it is met: working folders, attempts that did not succeed, superseded
checkpoints, batch folders, results that a newer success replaced; with --no-keep-answers then all other results. The
oldest day first, of one day the largest first.

Never: what has not ended; what unfinished jobs wait for or take files of, however far back; what is pinned, and the
jobs from which that took files; the newest --keep-last jobs. Limits may stand in cluster.yaml too, under `retention:`.

Ends with 5 if a quota is not met, with 1 if something could not be removed.
"""


def gc_(
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Age of attempts that did not succeed, and of batches [30d]."),
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", metavar="N", help="Leave the newest N finished jobs alone [0].")
    ] = None,
    results_older_than: Annotated[
        str | None,
        typer.Option("--results-older-than", metavar="AGE", help="Also discard results of succeeded jobs this old."),
    ] = None,
    quotas: Annotated[
        list[str] | None,
        typer.Option(
            "--quota",
            metavar="LIMIT",
            help="bytes=200G of the home, or KIND:bytes=50G, KIND:jobs=20, KIND:age=90d. Repeatable.",
        ),
    ] = None,
    keep_answers: Annotated[
        bool | None,
        typer.Option(
            "--keep-answers/--no-keep-answers",
            help="Whether what answers the cache stays [yes for quotas, no for --results-older-than].",
        ),
    ] = None,
    pins: Annotated[
        list[str] | None, typer.Option("--pin", metavar="ID", help="Remove nothing: pin these jobs. Needs --why.")
    ] = None,
    why: Annotated[str | None, typer.Option("--why", metavar="TEXT", help="Why they are pinned.")] = None,
    unpins: Annotated[
        list[str] | None, typer.Option("--unpin", metavar="ID", help="Remove nothing: take back pins made by --pin.")
    ] = None,
    list_pins: Annotated[bool, typer.Option("--pins", help="Remove nothing: list what is pinned, and why.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "--plan", "-n", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove leftovers, old attempts and, if asked for, old results.

    It says what goes and asks first. Safe while jobs run.
    """
    here = session()
    if pins or unpins or list_pins or why is not None:
        others = (older_than, keep_last, results_older_than, quotas, keep_answers)
        if dry_run or yes or any(o is not None for o in others):
            raise BadInput("pins were given together with what removes", hint="give them in a command of their own")
        _pin(here, pins, unpins, why)
        return
    limits = _limits(here, older_than, results_older_than, keep_last, keep_answers, quotas)
    if dry_run:
        with here.reading() as journal:
            _known(journal.conn, limits.quotas)
            report = GcReport(plan(here.home, journal.conn, limits))
        here.out.show(report)
        if not report.planned.met:
            raise typer.Exit(Exit.NO_RESOURCE)
        return
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not isinstance(here.out, JsonFace)
    if not yes and not asks:
        raise BadInput("nobody can be asked here whether to remove it", hint="look with --dry-run, then add --yes")
    with here.asking() as journal:
        _known(journal.conn, limits.quotas)
        planned = plan(here.home, journal.conn, limits)
        if not yes and planned.items:
            here.out.show(GcReport(planned))
            typer.confirm("Remove it?", abort=True)
        done = collect(here.home, journal, planned)
        # What the home holds now, as it is seen now.
        verdicts = plan(here.home, journal.conn, limits).verdicts if limits.quotas else ()
    report = GcReport(Plan(tuple(done.items), limits, planned.now, verdicts), done)
    here.out.show(report)
    if done.kept:
        raise typer.Exit(Exit.JOB_FAILED)
    if not report.planned.met:
        raise typer.Exit(Exit.NO_RESOURCE)


def _pin(here: Session, pins: Sequence[str] | None, unpins: Sequence[str] | None, why: str | None) -> None:
    if why is not None and not pins:
        raise BadInput("--why was given, and nothing to pin", hint="add --pin ID")
    if pins or unpins:
        with here.asking() as journal:
            mine = resolve(journal.conn, arguments.ids(pins))
            theirs = resolve(journal.conn, arguments.ids(unpins))
            if mine:
                pin(journal, mine, why or "")
            if theirs:
                unpin(journal, theirs)
            here.out.show(PinsReport(pinned(here.home, journal.conn)))
        return
    with here.reading() as journal:
        here.out.show(PinsReport(pinned(here.home, journal.conn)))


def _limits(
    here: Session,
    older_than: str | None,
    results_older_than: str | None,
    keep_last: int | None,
    keep_answers: bool | None,
    words: Sequence[str] | None,
) -> Limits:
    """What cluster.yaml says, and in its place what the options say."""
    said = cluster.load(here.home.cluster_file).retention
    said = said.with_quotas(tuple(quota_word(w) for w in words or ()))
    keep = keep_last if keep_last is not None else said.keep_last or 0
    if keep < 0:
        raise BadInput(f"--keep-last {keep} is negative", hint="give a number of jobs")
    age = said.older_than_s if said.older_than_s is not None else Limits.older_than_s
    if older_than is not None:
        age = arguments.duration(older_than, "--older-than")
    results = said.results_older_than_s
    if results_older_than is not None:
        results = arguments.duration(results_older_than, "--results-older-than")
    answers = keep_answers if keep_answers is not None else said.keep_answers
    return Limits(age, min(age, Limits.scratch_s), results, keep, answers, said.quotas)


def _known(conn: sqlite3.Connection, quotas: Sequence[Quota]) -> None:
    """A misspelt kind limits nothing, and nobody would notice."""
    known = list(entry_points()) if quotas else []
    sql = "SELECT 1 FROM job_state WHERE kind = ? LIMIT 1"
    for q in quotas:
        if q.kind and q.kind not in known and conn.execute(sql, (q.kind,)).fetchone() is None:
            raise BadInput(f"{q.where}: there is no kind {q.kind!r}", hint=unknown_name(q.kind, known))


@dataclass(frozen=True)
class PinsReport(Report):
    """What is pinned, by whom."""

    pins: Sequence[Pin]

    schema = "lab.pins/1"

    def json(self) -> dict[str, Any]:
        return {"pins": [{"job": p.job, "claim": p.claim or None, "why": p.why, "at": p.at} for p in self.pins]}

    def text(self, page: Page) -> Iterable[str]:
        if not self.pins:
            yield "Nothing is pinned."
            return
        shown = (Column("JOB", right=True), Column("SINCE"), Column("PINNED"))
        yield from lay_out(page, shown, [(str(p.job), human.when(p.at), human.clean(p.by)) for p in self.pins])

    def brief(self) -> Iterable[str]:
        return [str(p.job) for p in self.pins]


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
            "quotas": [self._quota(v) for v in self.planned.verdicts],
        }

    def _quota(self, v: Verdict) -> dict[str, Any]:
        return {
            "kind": v.quota.kind or None,
            "limit": v.quota.limit,
            "most": v.quota.most,
            "holds": v.holds,
            "left": v.left,
            "met": v.met,
            "said": v.said(done=self.done is not None),
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
        for v in self.planned.verdicts:
            sentence = human.clean(v.said(done=self.done is not None))
            yield from fold(f"{page.mark('ok' if v.met else 'fail')} {sentence}", page.width or 0, page, 20)
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
