"""Which jobs a claim speaks of: by id, or by the name that a job has in its study."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.claims.definition import Definition
from core.claims.evidence import Node
from core.errors import NotFound
from core.journal import query
from core.journal.query import Job
from core.states import JobState
from lab.named import members, study_of


@dataclass
class Resolved:
    """role -> job, and role -> why there is none."""

    jobs: dict[str, Job] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def resolve(conn: sqlite3.Connection, claim: Definition, stated: int) -> Resolved:
    """The jobs that a claim cites, as they are now."""
    out = Resolved()
    for role, what in claim.cites.items():
        try:
            out.jobs[role] = query.job(conn, what) if isinstance(what, int) else _named(conn, what, stated)
        except NotFound as error:
            out.problems[role] = error.message
    return out


def _named(conn: sqlite3.Connection, name: str, stated: int) -> Job:
    """The job of this name: of those that had not ended when the claim was stated, else of all.

    Raises:
        NotFound: there is none, or several different ones have succeeded.
    """
    ids = [(int(r[0]), r[1]) for r in conn.execute(_NAMED, (name,))]
    if not ids:
        raise NotFound(f"no job is called {name!r}")
    later = [i for i, ended in ids if ended is None or int(ended) > stated]
    found = query.jobs(conn, ids=tuple(later or [i for i, _ in ids]), newest_first=False)
    done = [j for j in found if j.state is JobState.SUCCEEDED]
    if len({j.key for j in done}) > 1:
        listed = ", ".join(str(j.id) for j in done)
        raise NotFound(f"{len(done)} different jobs are called {name!r} and have succeeded ({listed}): cite one by id")
    return done[0] if done else found[-1]


_NAMED = """SELECT s.id, (SELECT max(x.seq) FROM event x WHERE x.job = s.id AND x.kind = 'job-ended')
    FROM job_state s JOIN event e ON e.seq = s.submit
    WHERE s.sweep IS NULL AND e.data ->> '$.name' = ? ORDER BY s.id"""


def nodes(
    conn: sqlite3.Connection, claim: Definition, cited: Sequence[Job], stated: int
) -> tuple[tuple[Node, ...], str]:
    """(the nodes of the claim's package, why there are none)."""
    if claim.package:
        ids = _instance(conn, claim.package, cited) or members(conn, claim.package)
        if not ids:
            return (), f"no study {claim.package!r} was submitted"
    else:
        ids = []
        for what in claim.nodes:
            try:
                ids.append(query.job(conn, what).id if isinstance(what, int) else _named(conn, what, stated).id)
            except NotFound as error:
                return (), error.message
    ids = sorted({*ids, *(j.id for j in cited)} if ids else set())
    return tuple(_node(query.job(conn, i)) for i in ids), "the claim names no package (`package: NAME`) and no `nodes`"


def _instance(conn: sqlite3.Connection, package: str, cited: Sequence[Job]) -> list[int]:
    """The jobs of the very submit of the study that a cited job is of: of a node that ran again the newest."""
    for job in cited:
        word = study_of(conn, job.id)
        if word.startswith(f"{package}@"):
            newest: dict[str, int] = {str(name): int(i) for i, name in conn.execute(_OF, (word,))}
            return sorted(newest.values())
    return []


_OF = """SELECT s.id, e.data ->> '$.name' FROM job_state s JOIN event e ON e.seq = s.submit
    WHERE s.sweep IS NULL AND e.data ->> '$.study' = ? ORDER BY s.id"""


def _node(job: Job) -> Node:
    return Node(job.id, job.name, str(job.state), job.reason or "")
