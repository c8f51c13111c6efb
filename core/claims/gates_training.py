"""Gates on the model: was it trained, does the knob do anything, does it repeat what it saw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from core.claims import floors
from core.claims.evidence import Cited, Evidence, Row
from core.claims.gates_contract import control_pair, differences
from core.claims.numbers import evaluation_rows
from core.claims.words import Finding, Gate, Rung, capped, missing, passed, refused, worst

_NOISE = ("noise", "random", "gaussian", "uniform")
_FLOAT = 1e-6  # a mean recomputed from float32 columns


def trained(evidence: Evidence) -> Finding:
    """All planned steps, several negatives a group, finite losses, real data, better than the untrained control."""
    gate = Gate.TRAINED
    trainings = evidence.all("train")
    if not trainings:
        return missing(gate, evidence.why_not("train"))
    found: list[Finding] = []
    least = math.inf
    for train in trainings:
        rows = _steps(train)
        if not rows:
            found.append(missing(gate, f"job {train.job} ({train.role}) has no table of its steps", (train.job,)))
            continue
        last = max(int(r["step"]) for r in rows)
        least = min(least, last)
        found += _run(train, rows, last)
    pair = control_pair(evidence)
    numbers: dict[str, Any] = {}
    if pair is None:
        found.append(missing(gate, f"there is no untrained control to compare with: {evidence.why_not('control')}"))
    elif any(r.get("control") != "untrained" for r in pair[1].rows):
        said = "what is cited as control is not an untrained model's evaluation (its rows do not say `untrained`)"
        found.append(missing(gate, said, tuple(s.job for s in pair[1].sources)))
    elif differences(pair[0].rows, pair[1].rows):
        found.append(missing(gate, "the untrained control is not comparable with the evaluation"))
    else:
        value, control = pair[0].value, pair[1].value
        part = 1 - value / control if control > 0 else -math.inf
        numbers = {"value": value, "control": control, "better_by": part, "margin": evidence.claim.margins.control}
        if not part >= evidence.claim.margins.control:
            said = f"{evidence.claim.metric} is {pair[0].text}, the untrained control's {pair[1].text}: better by "
            said += f"{100 * part:.1f}%, less than the stated {100 * evidence.claim.margins.control:g}%"
            found.append(capped(gate, Rung.SMOKE, said, tuple(s.job for s in (*pair[0].sources, *pair[1].sources))))
    if math.isfinite(least) and floors.next_floor(least, floors.STEPS):
        said = f"{int(least):,} steps: {floors.next_floor(least, floors.STEPS)}"
        found.append(capped(gate, floors.rung_for(least, floors.STEPS), said, (), steps=int(least)))
    good = passed(
        gate, f"{int(least) if math.isfinite(least) else 0:,} steps, finite, on real data, better than the control"
    )
    one = worst(found, good)
    return Finding(gate, one.outcome, one.reason, one.cap, {**numbers, **one.numbers}, one.jobs, one.changed)


def _steps(train: Cited) -> list[Row]:
    return [r for r in train.rows("loss") if isinstance(r.get("step"), int)]


def _run(train: Cited, rows: list[Row], last: int) -> Iterator[Finding]:
    gate, who, jobs = Gate.TRAINED, f"job {train.job} ({train.role})", (train.job,)
    asked = train.params.get("steps")
    plan = train.planned.get("last_step")
    wanted = [n for n in (asked, plan) if isinstance(n, int)]
    if not wanted:
        yield missing(gate, f"{who} does not say how many steps it planned", jobs)
    # Steps may be counted from 0 or from 1.
    elif last < max(wanted) - 1:
        yield refused(gate, f"{who} ended at step {last:,} of {max(wanted):,}", jobs, last=last)
    odd = [r for r in rows if not _finite(r.get("loss")) or ("drift_norm" in r and not _finite(r["drift_norm"]))]
    if odd:
        yield refused(gate, f"{who} has {len(odd)} steps whose loss or drift is not finite", jobs)
    negatives = [r["negatives_per_group"] for r in rows if "negatives_per_group" in r]
    if not negatives:
        yield missing(gate, f"{who} does not say how many negatives a group had", jobs)
    elif not all(_finite(n) and n > 1 for n in negatives):
        said = f"{who} had {min(negatives)} negatives a group: with one there is nothing to drift away from"
        yield capped(gate, Rung.SMOKE, said, jobs, negatives=min(negatives))
    config = train.documents.get("config.json")
    named = [
        str(w) for w in (train.params.get("real"), config.get("real") if isinstance(config, Mapping) else None) if w
    ]
    if any(word.lower() in _NOISE for word in named):
        yield capped(gate, Rung.SMOKE, f"{who} was trained on {named[0]}, not on data", jobs)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def live_knob(evidence: Evidence) -> Finding:
    """Each knob of the claim enters the computation, and results move with it by more than between seeds."""
    gate = Gate.LIVE_KNOB
    found: list[Finding] = []
    inert: list[str] = []
    for knob in evidence.claim.knobs:
        one = _knob(evidence, knob)
        found.append(one)
        if one.numbers.get("inert"):
            inert.append(knob)
    used = _alphas(evidence) if "alpha" not in evidence.claim.knobs else set()
    if used - {1.0}:
        said = (
            f"alpha is {', '.join(f'{a:g}' for a in sorted(used))}, and the claim does not show that it does anything"
        )
        found.append(capped(gate, Rung.EXPERIMENTAL, f"{said} (`knobs: [alpha]` and a sweep would)"))
    one = worst(
        [f for f in found if f.outcome.value != "passed"], found[0] if found else passed(gate, "no knob is turned")
    )
    return Finding(gate, one.outcome, one.reason, one.cap, {**one.numbers, "inert": inert}, one.jobs)


def _alphas(evidence: Evidence) -> set[float]:
    rows = [r for c in evidence.all("eval") for r in c.rows("alpha") if r.get("control") != "held"]
    return {float(r["alpha"]) for r in rows if _finite(r["alpha"])}


def _knob(evidence: Evidence, knob: str) -> Finding:
    gate = Gate.LIVE_KNOB
    if knob == "alpha":
        for train in evidence.all("train"):
            weights = [r["unconditional_weight_mean"] for r in train.rows("unconditional_weight_mean")]
            if not weights:
                return missing(
                    gate,
                    f"job {train.job} ({train.role}) does not say the weight of unconditional negatives",
                    (train.job,),
                )
            if not max((w for w in weights if _finite(w)), default=0.0) > 0:
                said = f"alpha is inert: job {train.job} ({train.role}) gave unconditional negatives the weight 0"
                return capped(gate, Rung.SMOKE, said, (train.job,), inert=True)
    moved = {
        metric: m
        for metric in ("fid", "is_mean", "accuracy", evidence.claim.metric)
        if (m := _moved(evidence, knob, metric))
    }
    if not moved:
        return missing(gate, f"no sweep over {knob} is cited with several values, and seeds to compare with")
    metric, (effect, noise, seeds) = max(
        moved.items(), key=lambda kv: kv[1][0] / kv[1][1] if kv[1][1] > 0 else math.inf * (kv[1][0] > 0)
    )
    numbers = {"metric": metric, "effect": effect, "noise": noise, "seeds": seeds}
    if not effect > noise:
        said = (
            f"{knob} is inert: {metric} moves by {effect:.4g} over the sweep, and by {noise:.4g} between {seeds} seeds"
        )
        return capped(gate, Rung.SMOKE, said, (), inert=True, **numbers)
    said = f"{metric} moves by {effect:.4g} with {knob}, and by {noise:.4g} between {seeds} seeds"
    if floors.next_floor(seeds, floors.SEEDS):
        return capped(
            gate,
            floors.rung_for(seeds, floors.SEEDS),
            f"{said}: {floors.next_floor(seeds, floors.SEEDS)}",
            (),
            **numbers,
        )
    return passed(gate, said, **numbers)


def _moved(evidence: Evidence, knob: str, metric: str) -> tuple[float, float, int] | None:
    """(how far the means over seeds are apart, how far seeds at one value are, the most seeds at one value)."""
    values: dict[float, dict[tuple[str, ...], float]] = {}
    models = {c.job for c in evidence.all("train")}
    for judged in evidence.all("eval", "sweep"):
        if not models & {t.maker for t in judged.taken}:
            continue  # of another model: what it has is not the knob's doing
        for _, _, row in evaluation_rows(judged, metric):
            at = row.get(knob)
            if isinstance(at, int | float) and _finite(at) and _finite(row["value"]) and row.get("control", "") == "":
                # A sample set is one observation, however many jobs judged it.
                values.setdefault(float(at), {})[(str(row.get("samples")),)] = float(row["value"])
    if len(values) < 2:
        return None
    spreads = [max(v.values()) - min(v.values()) for v in values.values() if len(v) > 1]
    seeds = max(len(v) for v in values.values())
    if not spreads:
        return None
    means = [statistics.fmean(v.values()) for v in values.values()]
    return max(means) - min(means), max(spreads), seeds


def memorisation(evidence: Evidence) -> Finding:
    """Samples are no nearer to the train split than held-out real images, on enough of them."""
    gate = Gate.MEMORISATION
    audits = evidence.all("nn")
    if not audits:
        return missing(gate, evidence.why_not("nn"))
    found = [f for audit in audits for f in _neighbours(evidence, audit)]
    first = next(
        (f for f in found if f.outcome.value == "passed"), passed(gate, "no sample is nearer than real images are")
    )
    return worst([f for f in found if f.outcome.value != "passed"], first)


def _neighbours(evidence: Evidence, audit: Cited) -> Iterator[Finding]:
    gate, who, jobs = Gate.MEMORISATION, f"job {audit.job} ({audit.role})", (audit.job,)
    rows = {str(r["which"]): r for r in audit.rows("which") if "p95" in r}
    if set(rows) < {"samples", "held"}:
        yield missing(gate, f"{who} has no rows of samples and of held-out real images", jobs)
        return
    for name in ("samples", "held"):
        row = rows[name]
        if row.get("against") != "train":
            yield missing(gate, f"{who} looked for neighbours in {row.get('against')!r}, not in the train split", jobs)
        column = audit.series.get(f"nn.npz:{name}_cosine")
        if column is None:
            yield missing(gate, f"the cosines of {who} cannot be read", jobs)
            continue
        values = sorted(column)
        again = (
            {"n": len(values), "mean": statistics.fmean(values), "p95": _quantile(values, 0.95)} if values else {"n": 0}
        )
        for what, value in again.items():
            if not _finite(row.get(what)) or abs(row[what] - value) > _FLOAT * max(1.0, abs(value)):
                yield refused(
                    gate, f"{who} says {what} = {row.get(what)!r} of {name}, and its cosines give {value:.6g}", jobs
                )
                return
    data = evidence.of("data")
    train = data.images.get("train") if data is not None else None
    against = min(int(rows["samples"].get("n_against") or 0), train.count if train is not None else 0)
    p95, held = float(rows["samples"]["p95"]), float(rows["held"]["p95"])
    n = min(int(rows["samples"]["n"]), int(rows["held"]["n"]))
    numbers = {
        "p95": p95,
        "held_p95": held,
        "margin": evidence.claim.margins.memorisation,
        "n": n,
        "n_against": against,
    }
    if rows["samples"].get("n") != rows["held"].get("n"):
        yield missing(
            gate, f"{who} compares {rows['samples'].get('n')} samples with {rows['held'].get('n')} real images", jobs
        )
    if p95 > held + evidence.claim.margins.memorisation:
        said = f"{who}: samples come as near as {p95:.4f} to the train split (p95), held-out real images {held:.4f}"
        yield capped(gate, Rung.SMOKE, f"{said}, {evidence.claim.margins.memorisation:g} is allowed", jobs, **numbers)
    for count, floor, what in ((n, floors.NEIGHBOURS, "samples"), (against, floors.AGAINST, "training images")):
        if floors.next_floor(count, floor):
            said = f"{who} looked at {count:,} {what}: {floors.next_floor(count, floor)}"
            yield capped(gate, floors.rung_for(count, floor), said, jobs, **numbers)
    yield passed(gate, f"p95 {p95:.4f} against {held:.4f} of held-out real images, {n:,} of each", **numbers)


def _quantile(values: list[float], q: float) -> float:
    """Linear between the two nearest of sorted values."""
    at = q * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])
