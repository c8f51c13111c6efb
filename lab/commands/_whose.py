"""Whose rows `lab results` means: of all jobs, of those that were named, or of a study or a tag as a whole.

The first word may be a table, a kind that is asked something, or a study. A table comes before a study of its name,
and a study before a kind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import BadInput, NotFound
from core.journal import query
from lab import arguments
from lab.named import members, study_of
from lab.selection import resolve


@dataclass(frozen=True)
class Whose:
    """The jobs whose rows are meant.

    Attributes:
        table: that was named; with a question it may be a kind.
        ids: in the order given, a sweep as one. all_jobs: none were named.
        ends: the same, but of a study or a tag only the jobs that no other of its jobs waits for: what it leads to.
    """

    table: str | None
    ids: tuple[int, ...]
    all_jobs: bool
    ends: tuple[int, ...]


def whose(
    conn: sqlite3.Connection,
    words: Sequence[str] | None,
    tag: str | None,
    table: str | None,
    *,
    asked: bool = False,
    submitted: bool = False,
) -> Whose:
    """What these words mean.

    Args:
        table: by option. asked: a question is to be answered.
        submitted: the words are all jobs of a submit: those of a study are meant as a whole.

    Raises:
        BadInput: a word is no id and no study, two tables were named, or jobs were chosen in two ways.
        NotFound: a job that does not exist, or a tag that none has.
    """
    words = list(words or ())
    if words and (named := _leading(conn, words[0], table, asked=asked)) is not None:
        if table is not None:
            raise BadInput(f"the tables {named} and {table} were both named", hint="choose one")
        table, words = named, words[1:]
    if words and tag is not None:
        raise BadInput("both jobs and --tag were given", hint="choose the jobs one way")
    if tag is not None:
        found = [job.id for job in query.jobs(conn, tag=tag, newest_first=False, top=True)]
        if not found:
            hint = "`lab status --tag` with one of `lab status --all` lists what there is"
            raise NotFound(f"no job has the tag {tag!r}", hint=hint)
        return Whose(table, tuple(found), False, _ends(conn, found))
    ids: dict[int, None] = {}
    ends: dict[int, None] = {}
    for word in arguments.ids(words):
        these = resolve(conn, [word])
        ids |= dict.fromkeys(these)
        ends |= dict.fromkeys(_ends(conn, these) if word.study else these)
    _refuse_unknown(conn, ids)
    whole = submitted and all(study_of(conn, i) for i in ids)
    return Whose(table, tuple(ids), not words, _ends(conn, list(ids)) if whole else tuple(ends))


def _leading(conn: sqlite3.Connection, word: str, table: str | None, *, asked: bool) -> str | None:
    """The table or kind that the first word is; None: it names jobs."""
    if word.isidentifier():
        there = conn.execute("SELECT 1 FROM part WHERE tbl = ? LIMIT 1", (word,)).fetchone() is not None
        return word if (there and table is None) or not members(conn, word) else None
    if asked and not members(conn, word):
        from core.kind import entry_points

        return word if word in entry_points() else None
    return None


def _ends(conn: sqlite3.Connection, ids: Sequence[int]) -> tuple[int, ...]:
    """Those that no other of them waits for."""
    given = json.dumps(list(ids))
    sql = """SELECT DISTINCT needs FROM dep WHERE needs IN (SELECT value FROM json_each(?))
             AND job IN (SELECT value FROM json_each(?))"""
    waited = {int(row[0]) for row in conn.execute(sql, (given, given))}
    return tuple(i for i in ids if i not in waited)


def _refuse_unknown(conn: sqlite3.Connection, ids: Sequence[int] | dict[int, None]) -> None:
    sql = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM job_state) LIMIT 1"
    for (unknown,) in conn.execute(sql, (json.dumps(list(ids)),)):
        query.job(conn, unknown)  # says it
