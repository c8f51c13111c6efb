"""Jobs that could have been cited in the place of a cited one: alike in all but seeds, checkpoints and the rule's axes.

Two jobs are alike when their kinds and parameters, and those of everything that they were made of, are equal but for
the names that may be chosen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from core.claims.definition import Definition
from core.claims.evidence import Sibling
from core.errors import LabError
from core.fsio import digest
from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.states import JobState
from core.tables import Jobs, read_table, tables_of

_CHOICES = frozenset({"seed", "checkpoint", "checkpoint_step", "step"})
_MOST = 5000  # jobs of one kind that are looked at, the newest


def siblings(home: Home, conn: sqlite3.Connection, claim: Definition, cited: Mapping[str, Job]) -> tuple[Sibling, ...]:
    """The family of the main evaluation, the cited ones among it."""
    main = cited.get("eval")
    if main is None:
        return ()
    names = _CHOICES | set(claim.selection.over)
    making = _Making(conn, names)
    wanted = making.design(main)
    family = [j for j in query.jobs(conn, kind=main.kind, limit=_MOST, newest_first=True) if not j.is_sweep]
    alike = [j for j in reversed(family) if making.design(j) == wanted]
    roles = {j.key: role for role, j in reversed(list(cited.items()))}
    varies = _varying([making.choices(j) for j in alike])
    values = _values(home, conn, alike, claim.selection.by) if claim.selection.by else {}
    out = []
    for job in alike:
        out.append(
            Sibling(
                of="eval",
                job=job.id,
                state=str(job.state),
                finished=_finished(conn, job.id),
                choices=_short(making.choices(job), varies),
                cited=roles.get(job.key, ""),
                value=values.get(job.id),
            )
        )
    return tuple(out)


class _Making:
    """What a job was made of, through all that it took."""

    def __init__(self, conn: sqlite3.Connection, names: frozenset[str]) -> None:
        self._conn, self._names = conn, names
        self._specs: dict[str, dict[str, Any]] = {}
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}

    def design(self, job: Job) -> str:
        return self._made(job)[0]

    def choices(self, job: Job) -> dict[str, Any]:
        """`kind.parameter` -> value, of the job and of all that it was made of."""
        return self._made(job)[1]

    def _made(self, job: Job) -> tuple[str, dict[str, Any]]:
        if job.key not in self._known:
            if job.spec not in self._specs:
                self._specs[job.spec] = query.spec_of(self._conn, job.spec)
            inputs: list[Any] = []
            choices = {f"{job.kind}.{n}": v for n, v in job.params.items() if n in self._names}
            for item in self._specs[job.spec].get("inputs") or ():
                made = item.get("made")
                makers = query.jobs(self._conn, key=made["key"], limit=1) if made else []
                if makers:
                    below, chosen = self._made(makers[0])
                    inputs.append([item["name"], below, made.get("file", "")])
                    choices = {**chosen, **choices}
                else:
                    inputs.append([item["name"], item.get("sha256") or (made or {}).get("key", "")])
            plain = {n: v for n, v in job.params.items() if n not in self._names}
            self._known[job.key] = digest([job.kind, plain, sorted(inputs, key=str)]), choices
        return self._known[job.key]


def _varying(all_choices: list[dict[str, Any]]) -> list[str]:
    names = {n for choices in all_choices for n in choices}
    return sorted(n for n in names if len({str(c.get(n)) for c in all_choices}) > 1)


def _short(choices: Mapping[str, Any], varies: list[str]) -> dict[str, Any]:
    """Parameter -> value, under its plain name; of two with one name the one that varies."""
    out = {name.rpartition(".")[2]: value for name, value in choices.items()}
    return {**out, **{name.rpartition(".")[2]: choices.get(name) for name in varies}}


def _finished(conn: sqlite3.Connection, job: int) -> int | None:
    row = conn.execute("SELECT max(seq) FROM event WHERE job = ? AND kind = 'job-ended'", (job,)).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else None


def _values(home: Home, conn: sqlite3.Connection, jobs: list[Job], metric: str) -> dict[int, float]:
    done = [j.id for j in jobs if j.state is JobState.SUCCEEDED]
    out: dict[int, float] = {}
    for table in tables_of(conn, Jobs.of(done)) if done else ():
        try:
            rows = read_table(home, conn, table, done).to_pylist()
        except (LabError, OSError, ValueError):
            continue
        for row in rows:
            if row.get("metric") == metric and isinstance(row.get("value"), float) and row.get("control", "") == "":
                out[int(row["job"])] = row["value"]
    return out
