"""The inputs of an attempt that other jobs make: which job's files they are, and what is absent.

Decided when the attempt starts, from rows that do not change any more: a start that is sent twice says the same.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.made import NotThere, Standing, content, made_inputs, standing, succeeded
from core.states import JobState


def with_made_inputs(home: Home, conn: sqlite3.Connection, job: Job, spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` with a real path, digest and size for each input that another job makes.

    Those that may be absent and are lie in `absent`, as the spec has them, with how their maker ended: `state`, `why`.

    Raises:
        NotThere: one that must be there is not; its sentence names the input.
    """
    if not made_inputs(spec):
        return spec
    inputs: list[dict[str, Any]] = []
    absent: list[dict[str, Any]] = []
    for item in spec["inputs"]:
        if not item.get("made"):
            inputs.append(item)
            continue
        try:
            found = _maker(home, conn, job, item["made"])
            if found is None:
                absent.append({**item, "made": {**item["made"], **_ended(conn, job, item["made"])}})
            else:
                inputs.append(_filled(item, found))
        except NotThere as error:
            hint = f": {error.hint}" if error.hint else ""
            raise NotThere(f"the input {item['name']!r} cannot be taken: {error.message}{hint}") from None
    return {**spec, "inputs": inputs, "absent": absent}


def _maker(home: Home, conn: sqlite3.Connection, job: Job, made: dict[str, Any]) -> Standing | None:
    """The job whose files are taken; None: it did not succeed, and need not have."""
    wrong: NotThere | None = None
    waited = conn.execute(_WAITED, (job.id, made["key"])).fetchall()
    for maker, state in waited:
        if state == JobState.SUCCEEDED:
            try:
                return standing(home, conn, int(maker))
            except NotThere as error:
                wrong = wrong or error
    if waited and wrong is None and made["optional"]:
        return None
    # After a recovery a job waits for nothing; and what was discarded may be there once more.
    for maker in succeeded(conn, made["key"]):
        try:
            return standing(home, conn, maker)
        except NotThere as error:
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    if made["optional"]:
        return None
    label = f" ({made['label']})" if made.get("label") else ""
    raise NotThere(f"no job that makes it{label} has succeeded", hint="submit it anew, together with that job")


_WAITED = """SELECT u.id, u.state FROM dep d JOIN job_state u ON u.id = d.needs
    WHERE d.job = ? AND u.key = ? ORDER BY u.id DESC"""


def _ended(conn: sqlite3.Connection, job: Job, made: dict[str, Any]) -> dict[str, str]:
    """How the job ended that was waited for (`state`, and `why` in words); the newest, where there are several."""
    waited = conn.execute(_WAITED, (job.id, made["key"])).fetchone()
    if waited is None:
        return {}
    maker = query.job(conn, int(waited[0]))
    why = f"{maker.name} {maker.state}" + (f": {maker.reason}" if maker.reason else "")
    return {"state": str(maker.state), "why": why}


def _filled(item: dict[str, Any], found: Standing) -> dict[str, Any]:
    file = item["made"]["file"]
    what = content(found, file)
    return {
        **item,
        "path": str(found.run / "artifacts" / file) if file else str(found.run / "artifacts"),
        "sha256": what.sha256,
        "size": what.size,
        "tree": what.tree,
        "made": {**item["made"], "job": found.job, "attempt": found.attempt},
    }
