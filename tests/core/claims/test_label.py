"""The rule that makes a label: the lowest cap wins, nothing missing closes a gate, nothing crashes into a pass."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from core.claims import Evidence, Finding, Gate, Outcome, Rung, Waiver, label, read
from core.claims.evidence import Earlier
from core.claims.label import GATES, findings, lifted
from core.claims.words import WAIVABLE, capped, missing, passed, refused, worst

CLAIM = {"name": "c", "statement": "FID {eval.fid}", "wants": "paper-faithful", "cites": {"eval": 1}}


def evidence(wants: Rung = Rung.PAPER_FAITHFUL, **more: object) -> Evidence:
    return Evidence(claim=read({**CLAIM, "wants": str(wants)}), stated=1, cited=(), **more)  # type: ignore[arg-type]


def all_pass(**but: Finding) -> list[Finding]:
    found = {gate: passed(gate, "well") for gate in Gate}
    return list({**found, **{f.gate: f for f in but.values()}}.values())


def test_every_gate_has_its_function() -> None:
    assert set(GATES) == set(Gate)


def test_without_evidence_it_is_at_the_lowest_rung() -> None:
    found = label(evidence())
    assert found.rung is Rung.SMOKE
    assert found.outcome is Outcome.MISSING
    closed = {f.gate for f in found.findings if f.outcome is Outcome.PASSED}
    assert closed == {Gate.OVERRIDE, Gate.LIVE_KNOB, Gate.COMPARABILITY, Gate.DECIDED, Gate.DEMOTION}


def test_a_gate_that_was_not_asked_closes_nothing() -> None:
    for gate in Gate:
        found = label(evidence(), [f for f in all_pass() if f.gate is not gate])
        assert (found.rung, found.reached) == (Rung.SMOKE, False)
    assert label(evidence(), all_pass()).rung is Rung.PAPER_FAITHFUL


@pytest.mark.parametrize(("wants", "cap"), list(itertools.product(Rung, Rung)))
def test_the_lowest_cap_wins_and_no_claim_gets_more_than_it_wants(wants: Rung, cap: Rung) -> None:
    found = label(evidence(wants), all_pass(a=capped(Gate.COUNTS, cap, "few"), b=capped(Gate.TRAINED, wants, "so")))
    assert found.rung is min(wants, cap, key=lambda r: r.height)
    assert found.reached is (cap.height >= wants.height)
    assert [f.gate for f in found.by] == ([] if found.reached else [Gate.COUNTS])


def test_one_refusal_refuses() -> None:
    found = label(evidence(), all_pass(a=refused(Gate.BYTES, "no"), b=capped(Gate.COUNTS, Rung.SMOKE, "few")))
    assert (found.rung, found.outcome, found.word) == (None, Outcome.REFUSED, "refused")
    assert [f.gate for f in found.by] == [Gate.BYTES, Gate.COUNTS]


def test_deferred_only_where_nothing_else_keeps_it_down() -> None:
    later = Finding(Gate.DECIDED, Outcome.DEFERRED, "later", Rung.EXPERIMENTAL)
    assert label(evidence(), all_pass(a=later)).outcome is Outcome.DEFERRED
    assert label(evidence(), all_pass(a=later, b=missing(Gate.BYTES, "gone"))).outcome is Outcome.MISSING
    assert label(evidence(Rung.EXPERIMENTAL), all_pass(a=later)).reached


def test_a_gate_that_crashes_has_passed_nothing() -> None:
    def broken(_: Evidence) -> Finding:
        raise ZeroDivisionError("never mind")

    (found,) = findings(evidence(), {Gate.COUNTS: broken})
    assert (found.outcome, found.cap) == (Outcome.MISSING, Rung.SMOKE)
    assert "ZeroDivisionError" in found.reason


def test_what_a_waiver_lifts() -> None:
    waiver = Waiver("trained", 7, "ann", "it is a smoke test")
    low = capped(Gate.TRAINED, Rung.SMOKE, "few steps", (7,))
    up = lifted(low, [waiver])
    assert (up.cap, up.lifted) == (Rung.EXPERIMENTAL, waiver)
    assert lifted(replace(low, jobs=(7, 8)), [waiver]).cap is Rung.SMOKE, "job 8 has no waiver"
    assert lifted(replace(low, gate=Gate.COUNTS), [replace(waiver, gate="counts")]).cap is Rung.SMOKE
    assert lifted(refused(Gate.TRAINED, "no", (7,)), [waiver]).outcome is Outcome.REFUSED
    high = capped(Gate.TRAINED, Rung.CLOSEST_FEASIBLE, "few steps", (7,))
    assert lifted(high, [waiver]) == high, "a waiver lowers nothing"
    assert set(WAIVABLE).isdisjoint({Gate.BYTES, Gate.LINEAGE, Gate.COUNTS, Gate.CONTRACT, Gate.NO_LEAKAGE})


def test_demotion_is_told_against_the_last_time_it_was_reached() -> None:
    earlier = Earlier(9, Rung.CLOSEST_FEASIBLE, True, {"gates": "a", "job 3 artifacts/m.npz": "b"})
    now = evidence(Rung.CLOSEST_FEASIBLE, earlier=earlier, current={"gates": "a", "job 3 artifacts/m.npz": "c"})
    found = label(now)
    assert found.demoted_from is Rung.CLOSEST_FEASIBLE
    assert [(c.job, c.what, c.old, c.new) for c in found.changed] == [(3, "artifacts/m.npz", "b", "c")]
    same = label(now, all_pass())
    assert (same.demoted_from, same.reached) == (None, True)


def test_of_several_findings_the_worst_counts() -> None:
    few = capped(Gate.COUNTS, Rung.EXPERIMENTAL, "few", (1,))
    fewer = capped(Gate.COUNTS, Rung.SMOKE, "fewer", (2,))
    good = passed(Gate.COUNTS, "well")
    assert worst([], good) is good
    both = worst([few, fewer], good)
    assert (both.cap, both.jobs) == (Rung.SMOKE, (2, 1))
    assert "fewer; few" in both.reason
    assert worst([few, refused(Gate.COUNTS, "forged", (3,))], good).outcome is Outcome.REFUSED
