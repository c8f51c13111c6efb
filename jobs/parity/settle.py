"""What finished tables mean for the job. Roles count here, and only here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import CheckCannotFail, JobFailed
from jobs.parity.words import Role, Verdict

Row = Mapping[str, Any]
EXAMINATION = "examination"


def settle(rows: Sequence[Row], taps: Sequence[Row] = (), batches: Sequence[Row] = ()) -> None:
    """Return if the run may count as a success.

    Args:
        rows: of the table `parity`; `taps` and `batches` of the tables `taps` and `patches`.

    Raises:
        CheckCannotFail: a known-bad candidate was not caught, or not for its own reason, or could not be judged; or a
            tap does not move. This comes first: what the same check says of the others is then worth nothing.
        JobFailed: a candidate failed, was blocked, or worked on other inputs.
    """
    uncaught = uncaught_controls(rows) | unmoved_taps(taps)
    if uncaught:
        raise CheckCannotFail(
            f"the parity check proves nothing: {_some([f'{name} ({why})' for name, why in uncaught.items()])}",
            hint="lower the tolerance if it was raised, else repair judge or tap; no verdict of this run counts",
        )
    bad = [r for r in rows if r["role"] == Role.CANDIDATE and r["verdict"] != Verdict.PASS]
    if bad:
        bad.sort(key=_badness)
        phrases = [f"{_where(r)}: {r['verdict']}, {r['reason']}" for r in bad]
        raise JobFailed(
            f"{len(bad)} of {sum(r['role'] == Role.CANDIDATE for r in rows)} cells did not pass: {_some(phrases)}",
            hint="the table and parity.png of this attempt show every cell",
        )
    bad = [r for r in taps if r["role"] == Role.CANDIDATE and r["verdict"] != Verdict.PASS]
    if bad:
        phrases = [f"{r['candidate']} {_tap(r)}: {r['verdict']}, {r['reason']}" for r in bad]
        raise JobFailed(f"{len(bad)} taps differ from the oracle's: {_some(phrases)}", hint="the table taps shows all")
    bad = [r for r in batches if r["role"] == Role.CANDIDATE and r["verdict"] != Verdict.PASS]
    if bad:
        phrases = [f"{_where(r)}, {r['phase']} batch {r['batch_index']}: {r['reason']}" for r in bad]
        raise JobFailed(
            f"{len(bad)} batches of predictions are no good: {_some(phrases)}", hint="see the table patches"
        )


def uncaught_controls(rows: Sequence[Row]) -> dict[str, str]:
    """Name -> why, of each known-bad candidate that this run did not catch."""
    uncaught: dict[str, str] = {}
    # None of them at all would be none that was missed. The examination has known-bad gates, which are no candidates.
    tried = {r["role"] for r in rows if r["role"] == Role.GATE or r["case"] != EXAMINATION}
    for role in (Role.MUTANT, Role.GATE) if rows else ():
        if role not in tried:
            uncaught[f"no {role}"] = "nothing known to be bad was tried"
    for row in rows:
        if row["role"] == Role.MUTANT and row["verdict"] != Verdict.FAIL:
            uncaught.setdefault(row["candidate"], f"known bad, {row['verdict']} at {_cell(row)}: {row['reason']}")
        elif row["role"] == Role.MUTANT and not row["own_reason"]:
            why = f"failed at {_cell(row)}, but not by the harm that it is known for: {row['reason']}"
            uncaught.setdefault(row["candidate"], why)
        if row["role"] == Role.GATE and row["verdict"] != Verdict.PASS:
            uncaught.setdefault(row["candidate"], f"the judge itself {row['reason']}")
    # A control may be right in some cells (a bug that needs a large batch), but somewhere it must be caught.
    for name in dict.fromkeys(r["candidate"] for r in rows if r["role"] == Role.CONTROL):
        mine = [r["verdict"] for r in rows if r["role"] == Role.CONTROL and r["candidate"] == name]
        if Verdict.FAIL not in mine:
            uncaught[name] = f"registered as a control, {' and '.join(sorted(set(mine)))} in all {len(mine)} cells"
    return uncaught


def unmoved_taps(taps: Sequence[Row]) -> dict[str, str]:
    """Candidate and tap -> why, of each tap that says the same whatever it is given."""
    still: dict[str, str] = {}
    for row in taps:
        # A side that could not run has said nothing: its cells are blocked, which is another matter.
        if row["role"] == Role.GATE and row["verdict"] == Verdict.FAIL:
            still.setdefault(f"{row['candidate']} {_tap(row)}", row["reason"])
    return still


def _badness(row: Row) -> tuple[bool, float]:
    """Failures before what could not run, largest error first."""
    error = row["max_rel"]
    return row["verdict"] != Verdict.FAIL, -(error if error is not None and error == error else float("inf"))


def _where(row: Row) -> str:
    return f"{row['candidate']} at {_cell(row)}"


def _cell(row: Row) -> str:
    return f"{row['case']} {row['dtype']} {row['batch']}×{row['channels']}"


def _tap(row: Row) -> str:
    return f"tap {row['tap']} {row['field']} at {row['tag']} [{row['slow']}, {row['fast']}]"


def _some(phrases: Sequence[str], limit: int = 3) -> str:
    more = f"; and {len(phrases) - limit} more" if len(phrases) > limit else ""
    return "; ".join(phrases[:limit]) + more
