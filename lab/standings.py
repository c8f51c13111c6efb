"""`lab compare` of one sweep or of many jobs: ranked by what they found, and only among those that may be.

A kind says by which numbers its jobs may be ranked, and within what (see `core.kind.Ranking`). Jobs that differ in
their seeds only are one entry with the mean of its runs. How far such runs lie apart is the spread: two entries whose
difference is at most twice that are equal as far as anybody can tell, and share a rank.
"""

from __future__ import annotations

import math
import re
import sqlite3
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from core.errors import BadInput
from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.kind import Absent, Measure, Ranking, load_kind
from core.states import JobState
from core.tables import query as ask

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
FACTOR = 2.0  # so many spreads must lie between two entries

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """All runs that differ in their seeds only.

    Attributes:
        rank: 1 and the number of entries that are better by more than the noise.
        value: mean over the runs.
        spread: standard deviation over the runs; None: there is one only.
        tied: another entry has this rank.
    """

    rank: int
    name: str
    value: float
    spread: float | None
    jobs: tuple[int, ...]
    tied: bool = False


@dataclass(frozen=True)
class Group:
    """Entries that may be ranked against each other, the best first.

    Attributes:
        by: the column; label: what the number is.
        spread: standard deviation within the entries, pooled over those with several runs; None: there are none.
    """

    by: str
    label: str
    greater: bool
    spread: float | None
    entries: tuple[Entry, ...]

    @property
    def noise(self) -> float:
        """Up to this difference two entries are equal."""
        return FACTOR * self.spread if self.spread is not None else 0.0


@dataclass(frozen=True)
class Standings:
    """Attributes:
    kind: of all jobs.
    apart: why there are several groups for one number, in sentences.
    absent: jobs that are not ranked, each with why.
    """

    kind: str
    groups: tuple[Group, ...]
    apart: tuple[str, ...]
    absent: tuple[Absent, ...]
    notes: tuple[str, ...]


def standings(
    home: Home, conn: sqlite3.Connection, asked: Sequence[int], *, warnings: list[str] | None = None
) -> Standings:
    """Rank these jobs and the cells of these sweeps.

    Raises:
        BadInput: they are of several kinds, or of one whose jobs cannot be ranked.
        NotFound: an unknown id.
    """
    for number in asked:
        query.job(conn, number)  # says which is not there
    ids = query.job_ids(conn, asked)
    jobs = [j for j in query.jobs(conn, ids=tuple(ids)) if not j.is_sweep]
    kinds = sorted({job.kind for job in jobs})
    if len(kinds) != 1:
        raise BadInput(
            f"these jobs are of {len(kinds)} kinds ({', '.join(kinds)}), and only jobs of one are ranked",
            hint="a number of one kind is another quantity than a number of another; name jobs of one kind",
        )
    ranking = load_kind(kinds[0]).ranking()
    if ranking is None:
        raise BadInput(
            f"kind {kinds[0]} says nothing by which its jobs could be ranked", hint="compare two: lab compare A B"
        )
    done = [job.id for job in jobs if job.state is JobState.SUCCEEDED]
    rows: list[dict[str, Any]] = []
    if done:
        condition = f"job IN ({', '.join(map(str, done))})"
        try:
            rows = ask(home, conn, ranking.sql.format(jobs=condition), warnings=warnings).to_pylist()
        except BadInput as error:
            raise BadInput(
                f"the results of these {kinds[0]} jobs do not say by what they may be ranked ({error.message})",
                hint="they are of an older version: `lab rerun` makes them again",
            ) from error
    return rank(kinds[0], ranking, rows, jobs)


def rank(kind: str, ranking: Ranking, rows: Sequence[Row], jobs: Sequence[Job] = ()) -> Standings:
    """Put the rows of `ranking.sql` into groups, and each group in order. Pure.

    Args:
        jobs: those that were asked about; what has no row is named with its state.
    """
    missing = _absent(ranking, rows, jobs)
    called = {job.id: job.name for job in jobs}
    groups: list[Group] = []
    apart: list[str] = []
    for measure in ranking.measures:
        found = _groups(measure, ranking.repeats, rows, called)
        groups += found
        if len(found) > 1:
            apart.append(f"{len(found)} rankings by {measure.column}: {measure.apart}")
    notes = []
    if groups and all(g.spread is None for g in groups) and any(len(g.entries) > 1 for g in groups):
        notes.append("nothing was run with several seeds: nobody knows how much of a difference is chance")
    undeclared = [str(j.id) for j in jobs if j.undeclared]
    if undeclared:
        notes.append(f"read undeclared files: {', '.join(undeclared)}")
    return Standings(kind, tuple(groups), tuple(apart), missing, tuple(notes))


def absent(jobs: Sequence[Job], ranked: frozenset[int]) -> tuple[Absent, ...]:
    """Those of `jobs` that are not in `ranked`, each with its state and cause."""
    from lab.output import job as look

    out = []
    for job in jobs:
        if job.id not in ranked:
            why = look.why(job) if job.state is not JobState.SUCCEEDED else "without a result"
            said = str(job.state) if not why or why == job.state else f"{job.state}: {why}"
            out.append(Absent(job.id, job.name or look.label(job), said))
    return tuple(out)


def _absent(ranking: Ranking, rows: Sequence[Row], jobs: Sequence[Job]) -> tuple[Absent, ...]:
    """Jobs without a row, and those whose row does not say within what it may be ranked."""
    out = list(absent(jobs, frozenset(int(row["job"]) for row in rows)))
    for row in rows:
        unknown = [n for n in (*(m.within for m in ranking.measures), ranking.repeats) if row[n] is None]
        odd = [m.column for m in ranking.measures if not _is_number(row[m.column])]
        said = f"its table does not say {', '.join(unknown)}" if unknown else f"its {', '.join(odd)} is no number"
        if unknown or odd:
            out.append(Absent(int(row["job"]), str(row["name"]), said))
    return tuple(sorted(out, key=lambda one: one.job))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _groups(measure: Measure, repeats: str, rows: Sequence[Row], called: Mapping[int, str]) -> list[Group]:
    within: dict[str, list[Row]] = {}
    for row in rows:
        if row[measure.within] is not None and row[repeats] is not None and _is_number(row[measure.column]):
            within.setdefault(str(row[measure.within]), []).append(row)
    found = [_group(measure, repeats, some, called) for some in within.values()]
    return sorted(found, key=lambda g: (_natural(g.label), min(job for e in g.entries for job in e.jobs)))


def _group(measure: Measure, repeats: str, rows: Sequence[Row], called: Mapping[int, str]) -> Group:
    runs: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        # A job is one run, however often it was named.
        runs.setdefault((str(row["name"]), str(row[repeats])), {})[int(row["job"])] = float(row[measure.column])
    spread = _pooled([tuple(some.values()) for some in runs.values()])
    means = {key: statistics.fmean(some.values()) for key, some in runs.items()}
    noise = FACTOR * spread if spread is not None else 0.0
    sign = -1.0 if measure.greater else 1.0
    ranks = {key: 1 + sum(sign * (mean - other) > noise for other in means.values()) for key, mean in means.items()}
    entries = [
        Entry(
            ranks[key],
            _name(key[0], [called.get(job, "") for job in some]),
            means[key],
            statistics.stdev(some.values()) if len(some) > 1 else None,
            tuple(sorted(some)),
            list(ranks.values()).count(ranks[key]) > 1,
        )
        for key, some in runs.items()
    ]
    entries.sort(key=lambda e: (sign * e.value, e.jobs))
    return Group(measure.column, str(rows[0][measure.label]), measure.greater, spread, tuple(entries))


def _natural(text: str) -> list[tuple[float, str]]:
    """So that 5 comes before 20."""
    return [(float(part), "") if number else (0.0, part) for number, part in zip(cycle((0, 1)), _NUMBER.split(text))]  # noqa: B905 (endless)


def _name(name: str, called: Sequence[str]) -> str:
    """What the kind calls it, and the words that the names of all its runs have in common: `... rate=0.001`."""
    first, *others = (each.split() for each in called)
    more = [word for word in first if word != name and all(word in words for words in others)]
    return " ".join([name, *more])


def _pooled(runs: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation within entries, over all that have two runs or more."""
    several = [some for some in runs if len(some) > 1]
    freedom = sum(len(some) - 1 for some in several)
    if not freedom:
        return None
    return math.sqrt(sum(statistics.variance(some) * (len(some) - 1) for some in several) / freedom)
