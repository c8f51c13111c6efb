"""How a claim with its label is shown: for people, for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.claims.words import Finding, Label, Outcome, Rung
from lab.claims.evaluation import Evaluated
from lab.claims.render import demoted, notes, numbers, sentence, verdict
from lab.output import Column, Page, Report, human, lay_out

_MARKS = {
    Outcome.PASSED: "ok",
    Outcome.CAPPED: "warn",
    Outcome.MISSING: "warn",
    Outcome.DEFERRED: "held",
    Outcome.REFUSED: "fail",
}
_LINES = 6  # a reason is what people came for: it is not cut short


@dataclass(frozen=True)
class ClaimReport(Report):
    """A claim, its label as it is now, and what made it.

    Attributes:
        whole: every gate, also those that allow what the claim wants.
    """

    evaluated: Evaluated
    whole: bool = False

    schema = "lab.claim/1"

    def json(self) -> dict[str, Any]:
        e = self.evaluated
        return {
            "name": e.row.name,
            "stated": {"event": e.row.stated, "at": human.iso(e.row.at), "by": e.row.by, "digest": e.row.digest},
            "withdrawn": e.row.withdrawn,
            "statement": e.claim.statement,
            "text": sentence(e),
            "notes": notes(e),
            **label_json(e.label),
            "demoted": demoted(e) or None,
            "changed": [{"job": c.job, "what": c.what, "old": c.old, "new": c.new} for c in e.label.changed],
            "numbers": [
                {
                    "reference": reference,
                    "value": number.value if number is not None else None,
                    "text": number.text if number is not None else None,
                    "why_not": why or None,
                    "label": e.label.word,
                    "cells": [
                        {"job": s.job, "role": s.role, "table": s.table, "row": s.row, "column": s.column}
                        for s in (number.sources if number is not None else ())
                    ],
                }
                for reference, number, why in numbers(e)
            ],
            "cited": [{"role": c.role, "job": c.job, "kind": c.kind, "state": c.state} for c in e.evidence.cited],
            "unresolved": dict(e.evidence.unresolved),
            "waivers": [
                {"gate": w.gate, "job": w.job, "by": w.who, "why": w.why, "at": human.iso(w.at)}
                for w in e.evidence.waivers
            ],
            "scope": {
                "current": e.claim.scope.current,
                "deferred": [{"name": i.name, "why": i.why, "caps": str(i.caps)} for i in e.claim.scope.deferred],
                "open": [{"name": i.name, "why": i.why, "caps": str(i.caps)} for i in e.claim.scope.open],
                "closed": list(e.claim.scope.closed),
                "policy": e.claim.scope.policy,
            },
        }

    def text(self, page: Page) -> Iterable[str]:
        e = self.evaluated
        mark = _MARKS[e.label.outcome]
        yield f"{page.mark(mark)} {page.paint(e.row.name, 'head')}  {e.label.word}  (wants {e.claim.wants})"
        if e.row.withdrawn is not None:
            yield page.paint(f"withdrawn: {human.clean(e.row.withdrawn)}", "warn")
        fallen = demoted(e)
        if fallen:
            yield page.paint(human.clean(fallen), "bad")
        yield ""
        yield human.clean(sentence(e))
        for note in notes(e):
            yield f"  note: {human.clean(note)}"
        yield ""
        yield human.clean(verdict(e.label))
        for reference, _, why in numbers(e):
            if why:
                yield page.paint(f"no number for {{{reference}}}: {human.clean(why)}", "warn")
        shown = e.label.findings if self.whole else e.label.by
        if shown:
            yield ""
            yield from _table(page, shown, e.claim.wants)
        if not self.whole and len(shown) < len(e.label.findings):
            rest = len(e.label.findings) - len(shown)
            yield page.paint(f"{rest} other gates allow it (`lab claim check {e.row.name}` shows them)", "dim")
        for waiver in e.evidence.waivers:
            yield f"waived: {waiver.gate} for job {waiver.job} by {human.clean(waiver.who)}: {human.clean(waiver.why)}"

    def brief(self) -> Iterable[str]:
        return [self.evaluated.label.word]


def label_json(label: Label) -> dict[str, Any]:
    """A label, for programs."""
    return {
        "label": label.word,
        "rung": str(label.rung) if label.rung is not None else None,
        "wants": str(label.wants),
        "outcome": str(label.outcome),
        "reached": label.reached,
        "inert": list(label.inert),
        "demoted_from": str(label.demoted_from) if label.demoted_from is not None else None,
        "by": [str(f.gate) for f in label.by],
        "gates": [_finding(f) for f in label.findings],
    }


def _finding(f: Finding) -> dict[str, Any]:
    return {
        "gate": str(f.gate),
        "outcome": str(f.outcome),
        "cap": str(f.cap) if f.cap is not None else None,
        "reason": f.reason,
        "numbers": dict(f.numbers),
        "jobs": list(f.jobs),
        "changed": [{"job": c.job, "what": c.what, "old": c.old, "new": c.new} for c in f.changed],
        "waived": f.lifted.who if f.lifted is not None else None,
    }


def _table(page: Page, found: Iterable[Finding], wants: Rung) -> Iterable[str]:
    rows = []
    for f in found:
        allows = f.outcome is not Outcome.REFUSED and (f.cap is None or f.cap.height >= wants.height)
        mark = page.mark("ok" if allows else _MARKS[f.outcome])
        cap = str(f.cap) if f.cap is not None else ""
        rows.append((f"{mark} {f.gate}", str(f.outcome), cap, human.clean(f.reason)))
    columns = (Column("GATE"), Column("FOUND"), Column("CAP"), Column("WHY"))
    return lay_out(page, columns, rows, lines_most=_LINES)
