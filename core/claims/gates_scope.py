"""Gates on the claim as a whole: complete, decided, independent, demotion."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.claims.definition import Rule, Selection
from core.claims.evidence import Cited, Evidence, Node, Sibling
from core.claims.words import Change, Finding, Gate, Outcome, Rung, capped, missing, passed, refused, worst

_FLOAT = 1e-6
_ENDS = re.compile(r"[.:/ ]")


def complete(evidence: Evidence) -> Finding:
    """Every node has ended, the summary lists those that failed, and the rule was there before the results."""
    gate = Gate.COMPLETE
    found = [*_nodes(evidence), *_stated_before(evidence), *_selected(evidence)]
    failed = sum(n.ended and n.state != "succeeded" for n in evidence.nodes)
    said = f"{len(evidence.nodes)} nodes have ended, {failed} of them failed and are listed; the rule was stated before"
    return worst(found, passed(gate, said, nodes=len(evidence.nodes), failed=failed))


def _nodes(evidence: Evidence) -> Iterator[Finding]:
    gate = Gate.COMPLETE
    if not evidence.nodes:
        yield missing(gate, evidence.nodes_problem or "the claim names no package (`package: NAME`) or `nodes`")
        return
    for node in evidence.nodes:
        if not node.ended:
            yield missing(gate, f"job {node.job} ({node.name}) is {node.state}", (node.job,))
    failed = [n for n in evidence.nodes if n.ended and n.state != "succeeded"]
    if not failed:
        return
    summary = evidence.of("summary")
    if summary is None:
        names = ", ".join(f"{n.name} {n.state}" for n in failed[:3])
        yield missing(gate, f"{names}, and no summary is cited that lists it")
        return
    rows = [r for t in summary.tables.values() for r in t if "state" in r]
    for node in failed:
        if not any(_lists(row, node) for row in rows):
            said = f"job {node.job} ({node.name}) {node.state}, and the summary (job {summary.job}) does not list it"
            yield refused(gate, said, (node.job, summary.job))


def _lists(row: Mapping[str, Any], node: Node) -> bool:
    short = node.name.rpartition("/")[2]
    named = {str(row.get(c)) for c in ("node", "name", "job_name") if row.get(c)}
    return bool(named & {node.name, short}) and row.get("state") == node.state


def _stated_before(evidence: Evidence) -> Iterator[Finding]:
    late = [c for c in evidence.cited if c.own == "eval" and c.finished is not None and c.finished <= evidence.stated]
    if late:
        jobs = tuple(c.job for c in late)
        said = (
            f"the claim was stated (event {evidence.stated}) after job {jobs[0]} had ended (event {late[0].finished})"
        )
        yield capped(Gate.COMPLETE, Rung.EXPERIMENTAL, f"{said}: its rule was not there before the result", jobs)


def _selected(evidence: Evidence) -> Iterator[Finding]:
    """Were the cited jobs the ones that the rule names, and were others there to be chosen?"""
    gate, rule = Gate.COMPLETE, evidence.claim.selection
    for sibling in evidence.siblings:
        if sibling.cited or _outside(evidence, sibling):
            continue
        chosen = ", ".join(f"{k} {v}" for k, v in sibling.choices.items()) or "the same"
        said = f"job {sibling.job} ({chosen}) could have been cited as {sibling.of}"
        if rule.rule is Rule.ONLY:
            said += f" and had ended before the claim was stated: the rule {rule.rule} does not say why it was not"
            yield refused(gate, said, (sibling.job,))
        elif sibling.state == "succeeded":
            said += f": the rule {rule.rule} names it, or it was known, and it is not cited"
            yield refused(gate, said, (sibling.job,))
    if rule.rule is Rule.BEST:
        yield from _best(evidence, rule)
    yield from _values(evidence, rule)


def _outside(evidence: Evidence, sibling: Sibling) -> bool:
    """Is it none that could have been chosen: not named by the rule, and not known when the rule was stated?"""
    rule, main = evidence.claim.selection, evidence.of("eval")
    chosen = next((s.choices for s in evidence.siblings if main is not None and s.job == main.job), {})
    late = main is not None and main.finished is not None and main.finished <= evidence.stated
    known = late and sibling.state == "succeeded" and sibling.finished is not None
    if known and sibling.finished is not None and sibling.finished <= evidence.stated:
        return False
    # Named: at a value of each axis of the rule, and as the main one in everything else.
    return rule.rule is Rule.ONLY or not all(
        any(_equal(value, each) for each in rule.over[name]) if name in rule.over else _equal(value, chosen.get(name))
        for name, value in sibling.choices.items()
    )


def _best(evidence: Evidence, rule: Selection) -> Iterator[Finding]:
    values = {s.job: s.value for s in evidence.siblings if s.of == "eval" and s.value is not None}
    main = evidence.of("eval")
    own = (
        next((r["value"] for r in main.metrics(rule.by) if r.get("control", "") == ""), None)
        if main is not None
        else None
    )
    if main is None or own is None:
        yield missing(Gate.COMPLETE, f"nothing says what {rule.by} the chosen evaluation has")
        return
    better = [j for j, v in values.items() if (v < own if rule.lower else v > own)]
    if better:
        said = f"the rule takes the best {rule.by}, and job {better[0]} has {values[better[0]]:.6g} where job "
        said += f"{main.job} has "
        yield refused(Gate.COMPLETE, f"{said}{own:.6g}", (better[0], main.job))
    if main.finished is not None and main.finished <= evidence.stated:
        said = f"the best was chosen by a rule that was stated (event {evidence.stated}) after the results (event "
        yield refused(Gate.COMPLETE, f"{said}{main.finished})", (main.job,))


def _values(evidence: Evidence, rule: Selection) -> Iterator[Finding]:
    """Rule all: each value that it names was there and is cited."""
    if rule.rule is not Rule.ALL:
        return
    for name, values in rule.over.items():
        cited = [s.choices.get(name) for s in evidence.siblings if s.cited]
        for value in values:
            if not any(_equal(value, each) for each in cited):
                yield missing(Gate.COMPLETE, f"the rule names {name} {value}, and no cited evaluation is of it")


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) or str(a) == str(b)


def decided(evidence: Evidence) -> Finding:
    """No gate was put off and no decision left open in the claim's scope."""
    gate, scope = Gate.DECIDED, evidence.claim.scope
    items = [("deferred", i) for i in scope.deferred] + [("open", i) for i in scope.open]
    if not items:
        closed = f" ({len(scope.closed)} were closed)" if scope.closed else ""
        return passed(gate, f"nothing is deferred or undecided{closed}")
    cap = min((i.caps for _, i in items), key=lambda r: r.height)
    said = "; ".join(f"{i.name} is {word}{f' ({i.why})' if i.why else ''}" for word, i in items)
    return Finding(
        gate, Outcome.DEFERRED, f"{said}: nothing is promoted above {cap} while it stands", cap, {"items": len(items)}
    )


def independent(evidence: Evidence) -> Finding:
    """Another job, by other code, recomputed everything from these very bytes, and found the same."""
    gate, audit = Gate.INDEPENDENT, evidence.of("audit")
    if audit is None:
        return missing(gate, evidence.why_not("audit"))
    jobs = (audit.job,)
    if not audit.succeeded:
        return refused(gate, f"the audit (job {audit.job}) {audit.state}", jobs)
    found: list[Finding] = []
    makers = [c for role in ("eval", "sample", "nn", "train") if (c := evidence.of(role)) is not None]
    for maker in makers:
        if maker.job == audit.job or maker.kind == audit.kind:
            found.append(
                missing(gate, f"job {audit.job} is no audit of job {maker.job}: both are of kind {audit.kind}", jobs)
            )
        shared = {c.digest for c in maker.code} & {c.digest for c in audit.code}
        if shared and maker.kind != audit.kind:
            found.append(
                missing(gate, f"the audit (job {audit.job}) ran the very code of job {maker.job} ({maker.role})", jobs)
            )
    taken = {t.maker for t in audit.taken}
    for role in ("eval", "sample", "extractor", "data"):
        cited = evidence.of(role)
        if cited is not None and cited.job not in taken:
            found.append(
                missing(gate, f"the audit (job {audit.job}) did not take what job {cited.job} ({role}) made", jobs)
            )
    for stale in (t for t in audit.taken if t.now != t.recorded):
        found.append(
            refused(gate, f"the audit (job {audit.job}) saw other bytes of {stale.name} than there are now", jobs)
        )
    found += _recomputed(evidence, audit)
    return worst(found, passed(gate, f"job {audit.job} recomputed them from the same bytes by code of its own"))


def _recomputed(evidence: Evidence, audit: Cited) -> Iterator[Finding]:
    """The audit's rows, judged anew: what it recomputed must be what the evaluation says."""
    gate, main, jobs = Gate.INDEPENDENT, evidence.of("eval"), (audit.job,)
    rows = [r for r in audit.rows("check") if "found" in r]
    if not rows:
        yield missing(gate, f"the audit (job {audit.job}) has no rows", jobs)
        return
    bad = next((r for r in rows if r.get("passed") is False), None)
    if bad is not None:
        yield refused(gate, f"the audit (job {audit.job}) failed at {bad['check']}", jobs)
    if main is None:
        return
    for name in sorted(
        {str(r["metric"]) for r in main.metrics() if r.get("control", "") == ""}
        & {evidence.claim.metric, "is_mean", "accuracy"}
    ):
        own = next(float(r["value"]) for r in main.metrics(name) if r.get("control", "") == "")
        told = [r for r in rows if r.get("metric") == name or _about(str(r["check"]), name)]
        numbers = [v for r in told for c in ("expected", "found") if (v := _number(r.get(c))) is not None]
        if not numbers:
            yield missing(gate, f"the audit (job {audit.job}) did not recompute {name}", jobs)
            continue
        off = next((v for v in numbers if not math.isclose(v, own, rel_tol=_FLOAT, abs_tol=_FLOAT)), None)
        if off is not None:
            said = f"the audit (job {audit.job}) has {name} = {off:.6g}, job {main.job} says {own:.6g}"
            yield refused(gate, said, (audit.job, main.job))


def _about(check: str, name: str) -> bool:
    """Is it the check of a metric's value: `fid`, `eval.fid`, `fid: value`?"""
    words = [w for w in _ENDS.split(check) if w]
    return bool(words) and (words[-1] == name or (words[-1] == "value" and name in words))


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def demotion(evidence: Evidence) -> Finding:
    """What is not as it was when the claim last had what it wants. The other gates judge what is there now."""
    gate, earlier = Gate.DEMOTION, evidence.earlier
    if earlier is None:
        return passed(gate, "it never had more than it has now")
    changes = tuple(changed(earlier.items, evidence.current))
    if not changes:
        return passed(gate, f"nothing has changed since it was evaluated (event {earlier.seq})")
    said = "; ".join(c.said() for c in changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
    return Finding(
        gate, Outcome.PASSED, f"since event {earlier.seq}: {said}", None, {"changes": len(changes)}, (), changes
    )


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    """Differences between two sets of named digests. Names are `job N FILE`, `gates`, `contract`, ..."""
    for name in sorted(then.keys() | now.keys()):
        if then.get(name, "") != now.get(name, ""):
            words = name.split(" ", 2)
            job = int(words[1]) if words[0] == "job" and len(words) == 3 and words[1].isdigit() else None
            yield Change(words[2] if job is not None else name, then.get(name, ""), now.get(name, ""), job)
