"""The words of claims: rungs, outcomes, gates, findings. A label is made of findings each time it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Rung(StrEnum):
    """The ladder of labels, lowest first. (That of lanes is `core.states.Rung`.)"""

    SMOKE = "smoke"
    EXPERIMENTAL = "experimental"
    CLOSEST_FEASIBLE = "closest-feasible"
    PAPER_FAITHFUL = "paper-faithful"

    @property
    def height(self) -> int:
        return list(Rung).index(self)


def lowest(rungs: Mapping[Any, Rung] | tuple[Rung, ...] | list[Rung]) -> Rung:
    """The lowest of these; the top of the ladder where there are none."""
    found = list(rungs.values()) if isinstance(rungs, Mapping) else list(rungs)
    return min(found, key=lambda r: r.height, default=Rung.PAPER_FAITHFUL)


class Outcome(StrEnum):
    """What a gate found, and what becomes of a claim."""

    PASSED = "passed"
    CAPPED = "capped"  # there is evidence, and it carries no more than the cap
    MISSING = "missing"  # no evidence, or none that can be read: it closes nothing
    DEFERRED = "deferred"  # a gate or decision that people left open
    REFUSED = "refused"  # the evidence contradicts the claim


class Gate(StrEnum):
    """What is asked of a claim, in the order in which it is told."""

    IDENTITY = "identity"
    BYTES = "bytes"
    LINEAGE = "lineage"
    COUNTS = "counts"
    CONTRACT = "contract"
    OVERRIDE = "override"
    TRAINED = "trained"
    LIVE_KNOB = "live-knob"
    NO_LEAKAGE = "no-leakage"
    MEMORISATION = "memorisation"
    COMPARABILITY = "comparability"
    COMPLETE = "complete"
    STATEMENT = "statement"
    DECIDED = "decided"
    INDEPENDENT = "independent"
    DEMOTION = "demotion"


# What a person may relax for a run, with a reason. Bytes, counts, hashes and decisions are so or not so.
WAIVABLE = (
    Gate.IDENTITY,
    Gate.OVERRIDE,
    Gate.TRAINED,
    Gate.LIVE_KNOB,
    Gate.MEMORISATION,
    Gate.COMPLETE,
    Gate.INDEPENDENT,
)
WAIVED_CAP = Rung.EXPERIMENTAL


@dataclass(frozen=True)
class Waiver:
    """Somebody relaxed a check for a run, and says why.

    Attributes:
        at: wall clock, for people; seq: of the journal, None where the run itself wrote it.
    """

    gate: str
    job: int
    who: str
    why: str
    at: float | None = None
    seq: int | None = None


@dataclass(frozen=True)
class Change:
    """Something that is not what it was. `old` or `new` is empty where there was none, or is none any more."""

    what: str
    old: str
    new: str
    job: int | None = None

    def said(self) -> str:
        whose = f"job {self.job}: " if self.job is not None else ""
        if not self.new:
            return f"{whose}{self.what} is gone (was {_short(self.old)})"
        return f"{whose}{self.what} was {_short(self.old) or 'not there'}, is {_short(self.new)}"


@dataclass(frozen=True)
class Finding:
    """What one gate says.

    Attributes:
        cap: the claim gets no more than this; None: no cap (passed), or nothing at all (refused).
        reason: a sentence.
        numbers: what it was judged by.
        jobs: that it speaks of.
        lifted: by which waiver the cap was lifted, if it was.
    """

    gate: Gate
    outcome: Outcome
    reason: str
    cap: Rung | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[int, ...] = ()
    changed: tuple[Change, ...] = ()
    lifted: Waiver | None = None


@dataclass(frozen=True)
class Label:
    """The label of a claim, with everything that made it.

    Attributes:
        rung: what it may be called; None: it is refused.
        outcome: PASSED where it reached what it wants; CAPPED, MISSING, DEFERRED or REFUSED where not, by the first
            of `by`.
        by: the findings that keep it from more, the strongest first.
        inert: knobs that were found without effect.
        demoted_from: it once had this label, and has a lower one now.
        changed: what is not as it was then.
    """

    wants: Rung
    rung: Rung | None
    outcome: Outcome
    findings: tuple[Finding, ...]
    by: tuple[Finding, ...] = ()
    inert: tuple[str, ...] = ()
    demoted_from: Rung | None = None
    changed: tuple[Change, ...] = ()

    @property
    def reached(self) -> bool:
        return self.outcome is Outcome.PASSED

    @property
    def word(self) -> str:
        """As it stands beside every number."""
        if self.rung is None:
            return str(Outcome.REFUSED)
        inert = f", inert: {' '.join(self.inert)}" if self.inert else ""
        deferred = f", {self.wants} deferred" if self.outcome is Outcome.DEFERRED else ""
        return f"{self.rung}{deferred}{inert}"


def passed(gate: Gate, reason: str, **numbers: Any) -> Finding:
    return Finding(gate, Outcome.PASSED, reason, None, numbers)


def capped(gate: Gate, cap: Rung, reason: str, jobs: tuple[int, ...] = (), **numbers: Any) -> Finding:
    return Finding(gate, Outcome.CAPPED, reason, cap, numbers, jobs)


def missing(gate: Gate, reason: str, jobs: tuple[int, ...] = (), **numbers: Any) -> Finding:
    """No evidence leaves a claim where every claim begins: at the lowest rung."""
    return Finding(gate, Outcome.MISSING, reason, Rung.SMOKE, numbers, jobs)


def refused(gate: Gate, reason: str, jobs: tuple[int, ...] = (), **numbers: Any) -> Finding:
    return Finding(gate, Outcome.REFUSED, reason, None, numbers, jobs)


def worst(findings: list[Finding], otherwise: Finding) -> Finding:
    """Of the findings of one gate the one that counts: refused, then the lowest cap. `otherwise`: there is none."""

    def rank(f: Finding) -> tuple[int, int]:
        return (0 if f.outcome is Outcome.REFUSED else 1, (f.cap or Rung.PAPER_FAITHFUL).height)

    if not findings:
        return otherwise
    first = min(findings, key=rank)
    more = [f for f in findings if f is not first and f.outcome is not Outcome.PASSED]
    if not more:
        return first
    said = "; ".join([first.reason, *(f.reason for f in more[:3])]) + ("; ..." if len(more) > 3 else "")
    jobs = tuple(dict.fromkeys(j for f in [first, *more] for j in f.jobs))
    changed = tuple(c for f in [first, *more] for c in f.changed)
    numbers = {**{k: v for f in reversed(more) for k, v in f.numbers.items()}, **first.numbers}
    return Finding(first.gate, first.outcome, said, first.cap, numbers, jobs, changed)


def _short(digest: str) -> str:
    return digest[:12] if len(digest) == 64 else digest
