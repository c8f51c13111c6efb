"""From findings to a label: the lowest cap wins, and what was not asked closes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from core.claims import gates_bytes, gates_contract, gates_lineage, gates_scope, gates_text, gates_training
from core.claims.evidence import Evidence
from core.claims.words import WAIVABLE, WAIVED_CAP, Finding, Gate, Label, Outcome, Rung, Waiver, missing

GATES: Mapping[Gate, Callable[[Evidence], Finding]] = {
    Gate.IDENTITY: gates_bytes.identity,
    Gate.BYTES: gates_bytes.bytes_,
    Gate.LINEAGE: gates_lineage.lineage,
    Gate.COUNTS: gates_lineage.counts,
    Gate.CONTRACT: gates_contract.contract,
    Gate.OVERRIDE: gates_bytes.override,
    Gate.TRAINED: gates_training.trained,
    Gate.LIVE_KNOB: gates_training.live_knob,
    Gate.NO_LEAKAGE: gates_contract.no_leakage,
    Gate.MEMORISATION: gates_training.memorisation,
    Gate.COMPARABILITY: gates_contract.comparability,
    Gate.COMPLETE: gates_scope.complete,
    Gate.STATEMENT: gates_text.statement,
    Gate.DECIDED: gates_scope.decided,
    Gate.INDEPENDENT: gates_scope.independent,
    Gate.DEMOTION: gates_scope.demotion,
}
# Of several reasons, the strongest first.
_FIRST = (Outcome.REFUSED, Outcome.MISSING, Outcome.CAPPED, Outcome.DEFERRED, Outcome.PASSED)


def findings(evidence: Evidence, gates: Mapping[Gate, Callable[[Evidence], Finding]] = GATES) -> tuple[Finding, ...]:
    """What every gate finds. One that cannot cope with the evidence has found none: it never passes."""
    out = []
    for name, gate in gates.items():
        try:
            found = gate(evidence)
        except Exception as error:
            found = missing(name, f"the evidence is not of a form that can be judged ({type(error).__name__}: {error})")
        out.append(lifted(found, evidence.waivers))
    return tuple(out)


def lifted(finding: Finding, waivers: Sequence[Waiver]) -> Finding:
    """The finding with its cap lifted by waivers for all jobs that it speaks of, never above what waivers allow.

    Contradicted evidence is not lifted, nor is a gate that nobody may waive.
    """
    own = [w for w in waivers if w.gate == finding.gate]
    if not own or finding.gate not in WAIVABLE or finding.cap is None or finding.cap.height >= WAIVED_CAP.height:
        return finding
    if finding.outcome not in (Outcome.MISSING, Outcome.CAPPED) or set(finding.jobs) - {w.job for w in own}:
        return finding
    said = f"{finding.reason} (waived by {own[-1].who}: {own[-1].why})"
    return replace(finding, outcome=Outcome.CAPPED, cap=WAIVED_CAP, reason=said, lifted=own[-1])


def label(evidence: Evidence, found: Sequence[Finding] | None = None) -> Label:
    """The label of a claim. Pure: equal evidence gives an equal label.

    Args:
        found: what the gates say; None: they are asked. A gate that is not among them was not passed.
    """
    known = list(findings(evidence) if found is None else found)
    asked = {f.gate for f in known}
    known += [missing(gate, "this gate was not asked") for gate in Gate if gate not in asked]
    wants = evidence.claim.wants
    cap = min((f.cap for f in known if f.cap is not None), key=lambda r: r.height, default=Rung.PAPER_FAITHFUL)
    inert = tuple(str(k) for f in known if f.gate is Gate.LIVE_KNOB for k in f.numbers.get("inert") or ())
    short = [f for f in known if f.cap is not None and f.cap.height < wants.height]
    short.sort(key=lambda f: (f.cap.height if f.cap else 0, _FIRST.index(f.outcome)))
    by = [f for f in known if f.outcome is Outcome.REFUSED] + short
    rung = None if by and by[0].outcome is Outcome.REFUSED else min(cap, wants, key=lambda r: r.height)
    outcome = Outcome.PASSED if not by else _short_of(by)
    earlier = evidence.earlier
    fallen = earlier is not None and earlier.rung is not None and (rung is None or rung.height < earlier.rung.height)
    changed = next((f.changed for f in known if f.gate is Gate.DEMOTION), ())
    return Label(
        wants=wants,
        rung=rung,
        outcome=outcome,
        findings=tuple(known),
        by=tuple(by),
        inert=inert,
        demoted_from=earlier.rung if fallen and earlier is not None else None,
        changed=changed,
    )


def _short_of(by: Sequence[Finding]) -> Outcome:
    """Deferred where nothing but what people left open keeps it down; else what the lowest cap says."""
    if all(f.outcome is Outcome.DEFERRED for f in by):
        return Outcome.DEFERRED
    return next(f.outcome for f in by if f.outcome is not Outcome.DEFERRED)
