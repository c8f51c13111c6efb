"""What trainings say of what they would ship: hypotheses, beside the floor and never in it.

A training measures its candidates on pairs of its own, by an objective of its own. Its value is no score, whatever the
objective; it says which artefact is worth a scoring. Values are put in order only where they are of one quantity, made
of the same things, on the same pairs.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import NotFound
from core.home import Home
from core.journal import query
from core.tables import read_table
from jobs.score.proxy import Authority

_FILES = "score_files"
_AS_SHIPPED = "average-int8"


@dataclass(frozen=True)
class Hypothesis:
    """What one training would ship.

    Attributes:
        quantity: what the value is called; lower is better.
        bytes: of the int8 file; shipped: its SHA-256.
        alike: only values that are equal in it may be put in order.
        scored: the jobs that scored a submission with that very file in it.
    """

    job: int
    lane: str
    name: str
    branch: str
    quantity: str
    value: float
    psnr: float
    gain_db: float
    bytes: int
    shipped: str
    alike: tuple[str, ...]
    undeclared: bool = False
    scored: tuple[int, ...] = ()

    @property
    def authority(self) -> Authority:
        return Authority.TRAINING


def read_hypotheses(home: Home, conn: sqlite3.Connection, warnings: list[str]) -> list[Hypothesis]:
    """Of all trainings that were committed: those of one quantity and of the same pairs together, the best first."""
    jobs = [j.id for j in query.jobs(conn, kind="train")]
    trained = _rows(home, conn, "training", jobs, warnings)
    if not trained:
        return []
    measured: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in _rows(home, conn, "candidates", jobs, warnings):
        measured.setdefault((row["job"], row["attempt"]), []).append(row)
    scored: dict[str, list[int]] = {}
    for row in _rows(home, conn, _FILES, [j.id for j in query.jobs(conn, kind="score")], warnings):
        scored.setdefault(row["sha256"], []).append(row["job"])
    found = []
    for row in trained:
        try:
            one = _hypothesis(conn, row, measured.get((row["job"], row["attempt"]), []), scored)
        except (KeyError, TypeError, ValueError) as error:
            warnings.append(f"the training of job {row.get('job')} is left out: {_said(error)}")
            continue
        found.append(one)
    return sorted(found, key=lambda h: (h.quantity, h.alike, h.value, h.job))


def together(hypotheses: Sequence[Hypothesis]) -> list[list[Hypothesis]]:
    """In groups within which values may be put in order."""
    groups: dict[tuple[str, ...], list[Hypothesis]] = {}
    for one in hypotheses:
        groups.setdefault((one.quantity, *one.alike), []).append(one)
    return list(groups.values())


def _hypothesis(
    conn: sqlite3.Connection,
    row: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
    scored: Mapping[str, Sequence[int]],
) -> Hypothesis:
    (chosen,) = (c for c in measured if c["chosen"] and c["weights"] == _AS_SHIPPED)
    (decoded,) = (c for c in measured if c["weights"] == "decoded")
    if chosen["quantity"] != row["quantity"]:
        raise ValueError(f"its candidate has a {chosen['quantity']} and it a {row['quantity']}")
    if not math.isfinite(chosen["evaluation_value"]):
        raise ValueError("its value is no number")
    job = query.job(conn, row["job"])
    return Hypothesis(
        job=row["job"],
        lane=row["lane"],
        name=job.name or row["branch"],
        branch=row["branch"],
        quantity=row["quantity"],
        value=chosen["evaluation_value"],
        psnr=chosen["psnr"],
        gain_db=chosen["psnr"] - decoded["psnr"],
        bytes=row["bundle_bytes"],
        shipped=row["shipped_sha256"],
        alike=(row["evaluation_sha256"], row["value_sha256"]),
        undeclared=bool(job.undeclared),
        scored=tuple(dict.fromkeys(scored.get(row["shipped_sha256"], ()))),
    )


def _rows(
    home: Home, conn: sqlite3.Connection, table: str, jobs: Sequence[int], warnings: list[str]
) -> list[Mapping[str, Any]]:
    """The committed rows of a table; none where there is no such table, or nothing in it."""
    if not jobs:
        return []
    try:
        return list(read_table(home, conn, table, jobs, warnings=warnings).to_pylist())
    except NotFound:
        return []


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no column {error}"
    text = " ".join(str(error).split())
    return "it has not one chosen candidate and one of the decoded frames" if "unpack" in text else text
