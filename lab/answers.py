"""Is the answer there already? Which finished job stands for a key, and why one that nearly does may not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from core.fsio import read_json, sha256_file
from core.graph import order
from core.home import Home
from core.journal import query
from core.journal.query import Job, Part
from core.made import NotThere, content, makers
from core.made import standing as evidence
from core.states import EventKind

# By key: the finished job that answers it, or None.
Standing = dict[str, int | None]


@dataclass
class Answers:
    """By key.

    Attributes:
        done: the finished job whose results stand.
        why: why a finished job does not answer, where none does.
    """

    done: dict[str, int] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


def answer_in_cache(
    home: Home, conn: sqlite3.Connection, key: str, *, before: int | None = None, standing: Standing | None = None
) -> tuple[Job | None, str]:
    """The finished job that answers `key`, or None and, when one nearly did, why it does not.

    Args:
        before: only jobs below this id.
        standing: what is known already of jobs whose files others take; added to.
    """
    found = answers_for(home, conn, [key], before=before, standing=standing)
    if key in found.done:
        return query.job(conn, found.done[key]), ""
    return None, found.why.get(key, "")


def answers_for(
    home: Home,
    conn: sqlite3.Connection,
    keys: Iterable[str],
    *,
    before: int | None = None,
    standing: Standing | None = None,
) -> Answers:
    """Which of `keys` are answered, all in one go: what many cells share is looked at once.

    A job that read what it had not declared never answers; nor does one whose evidence was discarded or is no longer
    what was committed. A cell that ran in a batch stands on its rows alone. One that took files of other jobs answers
    only as long as those jobs' answers stand and hold the very bytes that it took; what was absent for it must be so.

    Args:
        standing: what is known already of jobs whose files others take; added to.
    """
    candidates = [_Candidate(*r) for r in conn.execute(_DONE, (json.dumps(list(keys)),))]
    if before is not None:
        candidates = [c for c in candidates if c.job < before]
    standing = {} if standing is None else standing
    # Deepest first, not by recursion: a chain of a thousand jobs is no reason to fail.
    for key in _makers_of(conn, candidates, standing):
        own = [_Candidate(*r) for r in conn.execute(_DONE, (json.dumps([key]),))]
        standing[key] = _first_that_stands(home, conn, own, standing).done.get(key)
    return _first_that_stands(home, conn, candidates, standing)


def _makers_of(conn: sqlite3.Connection, candidates: Iterable[_Candidate], known: Standing) -> list[str]:
    """Keys of all jobs on whose files these stand, and of those on whose files those stand, deepest first."""
    needs: dict[str, list[str]] = {}
    todo = [key for c in candidates if c.may_take for key in _made_keys(conn, c.job)]
    while todo:
        key = todo.pop()
        if key in needs or key in known:
            continue
        row = conn.execute(_NEWEST, (key,)).fetchone()
        needs[key] = _made_keys(conn, int(row[0])) if row is not None else []
        todo += needs[key]
    return order(needs)


# All jobs with one key take the same: what they take is part of it.
_NEWEST = "SELECT id FROM job_state WHERE key = ? AND state = 'succeeded' ORDER BY id DESC LIMIT 1"


def _made_keys(conn: sqlite3.Connection, job: int) -> list[str]:
    return [item["made"]["key"] for item in makers(conn, job)]


def _first_that_stands(
    home: Home, conn: sqlite3.Connection, candidates: Sequence[_Candidate], standing: Standing
) -> Answers:
    out = Answers()
    if not candidates:
        return out
    bad = _damaged(home, conn, [c.job for c in candidates])
    for c in candidates:  # newest first
        if c.key in out.done:
            continue
        gone = _why_not(home, conn, c, bad) or (_took_other(home, conn, c, standing) if c.may_take else "")
        if gone:
            out.why.setdefault(c.key, f"job {c.job} is the same but {gone}")
        else:
            out.done[c.key] = c.job
            out.why.pop(c.key, None)
    return out


@dataclass(frozen=True)
class _Candidate:
    key: str
    job: int
    attempt: int | None
    ended: str | None  # kind of the event that ended its attempt
    seq: int | None  # of that event
    manifest: str | None
    undeclared: int
    discarded: int
    sweep: int | None

    @property
    def may_take(self) -> bool:
        """May it have taken files of other jobs? Not cells, and not what ran in a batch."""
        return self.sweep is None and self.ended == EventKind.ATTEMPT_ENDED


_DONE = """SELECT s.key, s.id, a.id % 4096, e.kind, e.seq, e.data ->> '$.manifest',
        coalesce(nullif(w.data ->> '$.undeclared', '[]'), 0) != 0,
        EXISTS (SELECT 1 FROM discarded d WHERE d.job = s.id AND d.attempt = 0), s.sweep
    FROM json_each(?) k CROSS JOIN job_state s ON s.key = k.value
        LEFT JOIN attempt_state a ON a.id BETWEEN s.id * 4096 AND s.id * 4096 + 4095 AND a.state = 'succeeded'
        LEFT JOIN event e ON e.seq = a.ended LEFT JOIN event w ON w.seq = s.news
    WHERE s.state = 'succeeded' AND s.cells IS NULL ORDER BY s.id DESC"""


def _why_not(home: Home, conn: sqlite3.Connection, c: _Candidate, bad: Sequence[tuple[Part, str]]) -> str:
    """Why a succeeded job does not answer, in a few words; "" when it does."""
    if c.undeclared:
        return "read files that were not declared"
    if c.discarded:
        return "its results were discarded"
    if c.attempt is None:
        return "no attempt of it is recorded as committed"
    if c.ended == EventKind.ATTEMPT_ENDED:
        manifest = home.run_dir(c.job, c.attempt).manifest
        try:
            if c.manifest is not None and sha256_file(manifest) != c.manifest:
                return "its manifest is not the one that was committed"
            if c.manifest is None and not manifest.is_file():
                return "its run directory is gone"
        except OSError:
            return "its run directory is gone"
    for part, problem in bad:
        if part.first <= c.job <= part.last and part.table in _tables(conn, c):
            return problem
    return ""


def _took_other(home: Home, conn: sqlite3.Connection, c: _Candidate, standing: Standing) -> str:
    """Why what it took of other jobs is not what they hold now, in a few words; "" when it is."""
    taken = makers(conn, c.job)
    if not taken:
        return ""
    assert c.attempt is not None
    run = home.run_dir(c.job, c.attempt)
    sealed = (read_json(run.manifest, {}).get("files") or {}).get("spec.json") or [None]
    try:
        if sha256_file(run.spec) != sealed[0]:
            return "what it took is not on record: its spec.json is not the one that was sealed"
    except OSError:
        return "what it took is not on record: its spec.json is gone"
    then = {item["name"]: item for item in read_json(run.spec, {}).get("inputs") or ()}
    for item in taken:
        name, made = item["name"], item["made"]
        maker = standing[made["key"]]
        if name not in then:
            if maker is not None:
                return f"its input {name} was absent then, and job {maker} makes it now"
            continue
        was = (then[name].get("made") or {}).get("job")
        if maker is None:
            return f"job {was}, whose files it took as {name}, does not stand any more"
        try:
            if content(evidence(home, conn, maker), made["file"]).sha256 != then[name]["sha256"]:
                return f"it took {name} of job {was}, and job {maker} made it anew and different"
        except NotThere as error:
            return error.message
    return ""


def _damaged(home: Home, conn: sqlite3.Connection, jobs: Sequence[int]) -> list[tuple[Part, str]]:
    """Parts that may hold rows of these jobs and are not what was committed, each with a few words."""
    from core.tables import Jobs, live_parts, part_problems

    parts = live_parts(conn, None, Jobs.of(jobs))
    problems = part_problems(home, conn, parts)
    if problems:  # compaction may just have put them elsewhere
        parts = live_parts(conn, None, Jobs.of(jobs))
        problems = part_problems(home, conn, parts)
    return [
        (p, f"its part of table {p.table} is {'gone' if problems[p.id].endswith('is missing') else 'damaged'}")
        for p in parts
        if p.id in problems
    ]


def _tables(conn: sqlite3.Connection, c: _Candidate) -> set[str]:
    """The tables to which the job gave rows: a part of many jobs spans ids of which it holds none."""
    sql = """SELECT p.value ->> '$.table' FROM event e, json_each(e.data, '$.parts') p WHERE e.seq = ?
        AND ? BETWEEN coalesce(p.value ->> '$.first', ?) AND coalesce(p.value ->> '$.last', ?)"""
    return {str(r[0]) for r in conn.execute(sql, (c.seq, c.job, c.job, c.job))}
