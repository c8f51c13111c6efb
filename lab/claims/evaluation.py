"""A claim and the label that it has at this moment."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from core.claims.definition import Definition, read
from core.claims.evidence import Evidence
from core.claims.label import label
from core.claims.words import Label
from core.home import Home
from core.journal import query
from core.journal.query import ClaimRow
from lab.claims.collect import collect


@dataclass(frozen=True)
class Evaluated:
    """A claim, what it stands on, and its label."""

    row: ClaimRow
    claim: Definition
    evidence: Evidence
    label: Label


def evaluate(home: Home, conn: sqlite3.Connection, name: str) -> Evaluated:
    """Collect the evidence of a claim and judge it, now. Writes nothing.

    Raises:
        NotFound: no such claim.
        BadInput: it was stated by another version, in words that this one does not know.
    """
    row = query.claim(conn, name)
    claim = read(row.definition, f"the claim {name}")
    evidence = collect(home, conn, row, claim)
    return Evaluated(row, claim, evidence, label(evidence))
