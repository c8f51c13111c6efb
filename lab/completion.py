"""Completion of job ids, lanes, kinds, states and tags, from the journal and from package metadata.

A completer never fails and never waits: what cannot be read completes to nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

Suggestion = str | tuple[str, str]

_MOST = 200


def answer(group: Any, instruction: str) -> int:
    """Serve the shell's request in $_LAB_COMPLETE (`complete_bash`, `source_zsh`, ...). Returns the exit code."""
    from typer._completion_classes import completion_init
    from typer.completion import shell_complete

    completion_init()
    return int(shell_complete(group, {}, "lab", "_LAB_COMPLETE", instruction))


def script() -> str:
    """What the shell around us must be told."""
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name="lab", complete_var="_LAB_COMPLETE", shell=_shell())


def install() -> str:
    """Tell the shell around us in its own start-up file. Returns what was done."""
    from typer._completion_shared import install as write

    shell, path = write(shell=_shell(), prog_name="lab", complete_var="_LAB_COMPLETE")
    return f"completion for {shell} is in {path}; it works in the next shell that you open"


def _shell() -> str:
    from typer._completion_shared import _get_shell_name

    from core.errors import BadInput

    name = _get_shell_name()
    if name not in ("bash", "zsh", "fish"):
        raise BadInput(
            f"completion for the shell {name or 'around this command'} is not known", hint="use bash, zsh or fish"
        )
    return name


def job_ids(incomplete: str) -> list[Suggestion]:
    """Newest jobs first, with what they are."""
    return _from_journal(_ids, incomplete, "")


def live_job_ids(incomplete: str) -> list[Suggestion]:
    return _from_journal(_ids, incomplete, "ended IS NULL AND ")


def held_job_ids(incomplete: str) -> list[Suggestion]:
    return _from_journal(_ids, incomplete, "state = 'held' AND ")


def finished_job_ids(incomplete: str) -> list[Suggestion]:
    return _from_journal(_ids, incomplete, "ended IS NOT NULL AND ")


def jobs_or_studies(incomplete: str) -> list[Suggestion]:
    """Jobs, and names of studies."""
    return job_ids(incomplete) + _from_journal(_studies, incomplete, "")


def finished_jobs_or_studies(incomplete: str) -> list[Suggestion]:
    return finished_job_ids(incomplete) + _from_journal(_studies, incomplete, "")


def lanes(incomplete: str) -> list[Suggestion]:
    """Lanes of cluster.yaml, with what they are."""
    from core.cluster import load
    from core.errors import LabError
    from lab.session import session

    try:
        found = load(session().home.cluster_file).lanes
    except (LabError, OSError):
        return []
    return [(lane.name, lane.about or lane.transport) for lane in found if lane.name.startswith(incomplete)]


def kinds(incomplete: str) -> list[Suggestion]:
    """Registered kinds, from metadata alone: no kind is imported."""
    import importlib.metadata

    found = importlib.metadata.entry_points(group="lab.kinds")
    return sorted({e.name: (e.name, e.value) for e in found if e.name.startswith(incomplete)}.values())


def states(incomplete: str) -> list[Suggestion]:
    from core.states import JobState

    return [s for s in [*map(str, JobState), "live", "finished"] if s.startswith(incomplete)]


def causes(incomplete: str) -> list[Suggestion]:
    from core.states import Cause

    return [f"{c}=" for c in Cause if c.startswith(incomplete)]


def roles(incomplete: str) -> list[Suggestion]:
    from core.cluster import ROLES

    return [r for r in ROLES if r.startswith(incomplete)]


def parameters(ctx: Any, incomplete: str) -> list[Suggestion]:
    """`NAME=` of the kind that was typed."""
    return _parameters(ctx, incomplete, set())


def axes(ctx: Any, incomplete: str) -> list[Suggestion]:
    """`NAME=` of the kind that was typed, but for what is given already."""
    return _parameters(ctx, incomplete, {word.partition("=")[0] for word in _typed() if "=" in word})


def _parameters(ctx: Any, incomplete: str, given: set[str]) -> list[Suggestion]:
    from core.errors import LabError
    from core.kind import load_kind

    # An option whose value is being typed ends the parsing: the kind is then among what is left over.
    words = [ctx.params.get("kind"), *ctx.args]
    try:
        fields = load_kind(next((str(w) for w in words if w), "")).Params.model_fields
    except LabError:
        return []
    found = [(f.alias or name, f.description or "") for name, f in fields.items()]
    return [(f"{name}=", about) for name, about in found if name.startswith(incomplete) and name not in given]


def _typed() -> list[str]:
    """The words of the line that is being completed."""
    import os

    return (os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or "").split()


def tags(incomplete: str) -> list[Suggestion]:
    return _from_journal(_tags, incomplete, "")


def tables(incomplete: str) -> list[Suggestion]:
    return _from_journal(_tables, incomplete, "")


def dependencies(incomplete: str) -> list[Suggestion]:
    """`ok:ID`, `any:ID`."""
    head, colon, tail = incomplete.rpartition(":")
    if not colon:
        return [s for s in ("ok:", "any:") if s.startswith(incomplete)] + job_ids(incomplete)
    return [(f"{head}:{i[0]}", i[1]) for i in job_ids(tail) if isinstance(i, tuple)]


def claims(incomplete: str) -> list[Suggestion]:
    return _from_journal(_claims, incomplete, "")


def gates(incomplete: str) -> list[Suggestion]:
    """Gates that may be waived."""
    from core.claims.words import WAIVABLE

    return [str(g) for g in WAIVABLE if g.startswith(incomplete)]


def _claims(conn: sqlite3.Connection, incomplete: str, where: str) -> list[Suggestion]:
    found = conn.execute("SELECT name FROM claim WHERE withdrawn IS NULL ORDER BY stated DESC")
    return [str(r[0]) for r in found if str(r[0]).startswith(incomplete)]


def _from_journal(
    read: Callable[[sqlite3.Connection, str, str], list[Suggestion]], incomplete: str, where: str
) -> list[Suggestion]:
    from core.errors import LabError
    from core.journal import Journal
    from lab.session import session

    try:
        with Journal.open(session().home) as journal:
            return read(journal.conn, incomplete, where)
    except (LabError, OSError, sqlite3.Error):
        return []


def _ids(conn: sqlite3.Connection, incomplete: str, where: str) -> list[Suggestion]:
    """Jobs and sweeps; after `17.` the cells of sweep 17."""
    sweep, dot, number = incomplete.partition(".")
    if dot and sweep.isdigit() and (number.isdigit() or not number):
        sql = f"""SELECT id - sweep, kind, name, state FROM job
                  WHERE {where}sweep = ? AND CAST(id - sweep AS TEXT) LIKE ? ORDER BY id LIMIT ?"""
        cells = conn.execute(sql, (int(sweep), number + "%", _MOST))
        return [(f"{sweep}.{r[0]}", f"{r[1]} {r[2]}, {r[3]}") for r in cells]
    if incomplete and not incomplete.isdigit():
        return []
    sql = f"""SELECT id, kind, name, state FROM job
              WHERE {where}sweep IS NULL AND CAST(id AS TEXT) LIKE ? ORDER BY id DESC LIMIT ?"""
    found = conn.execute(sql, (incomplete + "%", _MOST))
    return [(str(r[0]), f"{r[1]} {r[2] if r[2] != r[1] else ''}".strip() + f", {r[3]}") for r in found]


def _tags(conn: sqlite3.Connection, incomplete: str, where: str) -> list[Suggestion]:
    newest = "SELECT tags FROM job WHERE tags != '[]' ORDER BY id DESC LIMIT 5000"
    sql = f"SELECT DISTINCT t.value FROM ({newest}) j, json_each(j.tags) t"
    found = sorted(str(r[0]) for r in conn.execute(sql) if str(r[0]).startswith(incomplete))
    return [*found[:_MOST]]


def _studies(conn: sqlite3.Connection, incomplete: str, where: str) -> list[Suggestion]:
    """Names of studies, those submitted last first."""
    newest = """SELECT e.data ->> '$.study' FROM job_state s JOIN event e ON e.seq = s.submit
                WHERE s.sweep IS NULL ORDER BY s.id DESC LIMIT 5000"""
    names = dict.fromkeys(str(row[0]).rpartition("@")[0] for row in conn.execute(newest) if row[0])
    return [*[name for name in names if name.startswith(incomplete)][:_MOST]]


def _tables(conn: sqlite3.Connection, incomplete: str, where: str) -> list[Suggestion]:
    found = conn.execute("SELECT DISTINCT tbl FROM part ORDER BY tbl")
    return [str(r[0]) for r in found if str(r[0]).startswith(incomplete)]
