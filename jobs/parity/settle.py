"""What a finished table means for the job. Roles count here, and only here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import CheckCannotFail, JobFailed
from jobs.parity.words import Role, Verdict

Row = Mapping[str, Any]


def settle(rows: Sequence[Row]) -> None:
    """Return if the run may count as a success.

    Raises:
        CheckCannotFail: a known-bad candidate was not caught, or could not be judged. This comes first: what
            the same check says of the others is then worth nothing.
        JobFailed: a candidate failed, was blocked, or worked on other inputs.
    """
    uncaught = uncaught_controls(rows)
    if uncaught:
        raise CheckCannotFail(
            f"the parity check proves nothing: {_some([f'{name} ({why})' for name, why in uncaught.items()])}",
            hint="lower the tolerance if it was raised, else repair the judge; no verdict of this run counts",
        )
    bad = [r for r in rows if r["role"] == Role.CANDIDATE and r["verdict"] != Verdict.PASS]
    if bad:
        bad.sort(key=_badness)
        phrases = [f"{_where(r)}: {r['verdict']}, {r['reason']}" for r in bad]
        raise JobFailed(
            f"{len(bad)} of {sum(r['role'] == Role.CANDIDATE for r in rows)} cells did not pass: {_some(phrases)}",
            hint="the table and parity.png of this attempt show every cell",
        )


def uncaught_controls(rows: Sequence[Row]) -> dict[str, str]:
    """Name -> why, of each known-bad candidate that this run did not catch."""
    uncaught: dict[str, str] = {}
    for row in rows:
        if row["role"] == Role.MUTANT and row["verdict"] != Verdict.FAIL:
            uncaught.setdefault(row["candidate"], f"known bad, {row['verdict']} at {_cell(row)}: {row['reason']}")
        if row["role"] == Role.GATE and row["verdict"] != Verdict.PASS:
            uncaught.setdefault(row["candidate"], f"the judge itself {row['reason']}")
    # A control may be right in some cells (a bug that needs a large batch), but somewhere it must be caught.
    for name in dict.fromkeys(r["candidate"] for r in rows if r["role"] == Role.CONTROL):
        mine = [r["verdict"] for r in rows if r["role"] == Role.CONTROL and r["candidate"] == name]
        if Verdict.FAIL not in mine:
            uncaught[name] = f"registered as a control, {' and '.join(sorted(set(mine)))} in all {len(mine)} cells"
    return uncaught


def _badness(row: Row) -> tuple[bool, float]:
    """Failures before what could not run, largest error first."""
    error = row["max_rel"]
    return row["verdict"] != Verdict.FAIL, -(error if error is not None and error == error else float("inf"))


def _where(row: Row) -> str:
    return f"{row['candidate']} at {_cell(row)}"


def _cell(row: Row) -> str:
    return f"{row['case']} {row['dtype']} {row['batch']}×{row['channels']}"


def _some(phrases: Sequence[str], limit: int = 3) -> str:
    more = f"; and {len(phrases) - limit} more" if len(phrases) > limit else ""
    return "; ".join(phrases[:limit]) + more
