"""Gates on what was measured against what: contract, comparability, leakage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from core.claims import floors
from core.claims.evidence import Cited, Evidence, Row
from core.claims.numbers import NoNumber, Number, evaluate, evaluation_rows
from core.claims.words import Finding, Gate, Rung, capped, missing, passed, refused, worst

_SPLITS = ("train", "reference", "held")
# What must be equal for two numbers to be put in order.
ALIKE = ("contract", "n", "reference", "device_class", "seed")


def payload_sha256(payload: Any) -> str:
    """SHA-256 (hex) over the canonical JSON of an evaluation contract's payload.

    Raises:
        ValueError, TypeError: it has no such form (a number is not finite, say).
    """
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def contract(evidence: Evidence) -> Finding:
    """The contract's hash follows from its payload, that from the bytes, and every evaluation stands under it."""
    gate, made = Gate.CONTRACT, evidence.of("extractor")
    if made is None:
        return missing(gate, evidence.why_not("extractor"))
    said = made.documents.get("contract.json")
    if not isinstance(said, Mapping) or not isinstance(said.get("payload"), Mapping):
        return missing(gate, f"job {made.job} (extractor) has no readable contract.json", (made.job,))
    payload: Mapping[str, Any] = said["payload"]
    try:
        sha256 = payload_sha256(payload)
    except (ValueError, TypeError) as error:
        return missing(gate, f"the contract of job {made.job} has no canonical form: {error}", (made.job,))
    found = list(_payload(evidence, made, payload))
    if said.get("sha256") != sha256:
        found.append(
            refused(
                gate,
                f"contract.json says {str(said.get('sha256'))[:12]}, and its payload gives {sha256[:12]}",
                (made.job,),
            )
        )
    if evidence.claim.contract and evidence.claim.contract != sha256:
        found.append(
            refused(
                gate,
                f"the claim is under contract {evidence.claim.contract[:12]}, and job {made.job} has {sha256[:12]}",
            )
        )
    for judged in evidence.judged:
        found += _under(judged, sha256)
    for audit in evidence.all("contract"):
        found += _checks(audit)
    if not evidence.all("eval"):
        found.append(missing(gate, evidence.why_not("eval")))
    profile = str(payload.get("profile"))
    top = floors.PROFILES.get(profile, Rung.SMOKE)
    reason = f"the extractor's profile is {profile}: it supports {top} at most"
    found.append(capped(gate, top, reason, (), contract=sha256, profile=profile))
    return worst(found, passed(gate, "", contract=sha256))


def _payload(evidence: Evidence, made: Cited, payload: Mapping[str, Any]) -> Iterator[Finding]:
    """Is what the payload names what is there?"""
    gate, jobs = Gate.CONTRACT, (made.job,)
    weights = made.weights.get("extractor.npz")
    if weights is None:
        yield missing(gate, f"the weights of the extractor (job {made.job}) cannot be read", jobs)
    elif payload.get("extractor_sha256") != weights.content:
        said = f"the contract names the extractor {str(payload.get('extractor_sha256'))[:12]}, and its weights give "
        yield refused(gate, f"{said}{weights.content[:12]}", jobs)
    rows = made.series.get("reference.npz:rows")
    if not rows:
        yield missing(gate, f"the reference statistics (reference.npz of job {made.job}) are not there", jobs)
    elif payload.get("reference_n") != int(rows[0]):
        yield refused(
            gate,
            f"the contract says {payload.get('reference_n')} reference images, and reference.npz has {int(rows[0])}",
            jobs,
        )
    kept, named = made.weights.get("reference.npz"), payload.get("reference_features_sha256")
    if named is not None and kept is not None and named != kept.content:
        yield refused(
            gate,
            f"the contract names the statistics {str(named)[:12]}, and reference.npz gives {kept.content[:12]}",
            jobs,
        )
    data = evidence.of("data")
    if data is None:
        yield missing(gate, evidence.why_not("data"))
        return
    reference = data.images.get("reference")
    if reference is None:
        yield missing(gate, f"the reference split of job {data.job} cannot be read", (data.job,))
        return
    if payload.get("reference_sha256") != reference.content:
        said = f"the contract's reference is {str(payload.get('reference_sha256'))[:12]}, and job {data.job} has "
        yield refused(gate, f"{said}{reference.content[:12]}", (made.job, data.job))
    elif rows and int(rows[0]) != reference.count:
        yield refused(
            gate, f"reference.npz has {int(rows[0])} rows for {reference.count} reference images", (made.job, data.job)
        )
    if payload.get("data_sha256") not in data.identities:
        yield refused(gate, f"the contract is of other data than job {data.job} has", (made.job, data.job))


def _under(judged: Cited, sha256: str) -> Iterator[Finding]:
    rows = [r for r in judged.metrics() if "contract" in r]
    if not rows:
        yield missing(Gate.CONTRACT, f"no row of job {judged.job} ({judged.role}) names its contract", (judged.job,))
    for row in rows:
        if row["contract"] != sha256:
            said = (
                f"job {judged.job} ({judged.role}): {row['metric']} is under contract {str(row['contract'])[:12]}, not "
            )
            yield refused(Gate.CONTRACT, f"{said}{sha256[:12]}", (judged.job,))
            return


def _checks(audit: Cited) -> Iterator[Finding]:
    """A contract audit's rows, judged by what they expected and found; what they say of themselves is not looked at."""
    rows = [r for r in audit.rows("check") if "expected" in r and "found" in r]
    if not audit.succeeded:
        yield refused(Gate.CONTRACT, f"the contract audit (job {audit.job}) {audit.state}", (audit.job,))
    elif not rows:
        yield missing(Gate.CONTRACT, f"the contract audit (job {audit.job}) has no rows", (audit.job,))
    for row in rows:
        if row.get("passed") is False:
            yield refused(Gate.CONTRACT, f"the contract audit (job {audit.job}) failed at {row['check']}", (audit.job,))
            return


def comparability(evidence: Evidence) -> Finding:
    """What is put in order has contract, n, reference, device class and seed policy in common, and is in that order."""
    gate = Gate.COMPARABILITY
    found: list[Finding] = []
    for comparison in evidence.claim.comparisons:
        try:
            a, b = evaluate(evidence, comparison.a), evaluate(evidence, comparison.b)
        except NoNumber as error:
            found.append(missing(gate, str(error)))
            continue
        found += _ranked(comparison.a, a, comparison.b, b)
        better = a.value < b.value if comparison.lower else a.value > b.value
        if not better:
            word = "lower" if comparison.lower else "greater"
            said = f"{comparison.a} is {a.text}, which is not {word} than {comparison.b}, {b.text}"
            found.append(refused(gate, said, tuple(s.job for s in (*a.sources, *b.sources))))
    for note in evidence.claim.notes:
        left, slash, right = note.of.partition(" / ")
        if slash:
            found += _noted(evidence, left, right)
    pair = control_pair(evidence)
    if pair is not None:
        found += _ranked(f"eval.{evidence.claim.metric}", pair[0], f"control.{evidence.claim.metric}", pair[1])
    n = len(evidence.claim.comparisons)
    return worst(
        found, passed(gate, f"{n} comparisons, each among equals" if n else "nothing is ranked but the control")
    )


def control_pair(evidence: Evidence) -> tuple[Number, Number] | None:
    """The metric of the main evaluation and of the untrained control, where there are both."""
    try:
        metric = evidence.claim.metric
        return evaluate(evidence, f"eval.{metric}"), evaluate(evidence, f"control.{metric}")
    except NoNumber:
        return None


def _noted(evidence: Evidence, left: str, right: str) -> Iterator[Finding]:
    try:
        a, b = evaluate(evidence, left.strip()), evaluate(evidence, right.strip())
    except NoNumber:
        return  # the gate on the statement says so
    if any("metric" in r for r in (*a.rows, *b.rows)):
        yield from _ranked(left, a, right, b)


def _ranked(a: str, left: Number, b: str, right: Number) -> Iterator[Finding]:
    apart = differences(left.rows, right.rows)
    if apart:
        jobs = tuple(dict.fromkeys(s.job for s in (*left.sources, *right.sources)))
        said = "; ".join(f"{name} is {x} there and {y} here" for name, (x, y) in apart.items())
        yield refused(Gate.COMPARABILITY, f"{a} cannot be ranked against {b}: {said}", jobs, apart=sorted(apart))


def differences(a: tuple[Row, ...], b: tuple[Row, ...]) -> dict[str, tuple[str, str]]:
    """In what two sets of rows differ that must be equal for them to be ranked; what is not said is no equality."""
    out: dict[str, tuple[str, str]] = {}
    for name in ALIKE:
        left = sorted(str(r.get(name)) for r in a)
        right = sorted(str(r.get(name)) for r in b)
        same = left == right if name == "seed" else set(left) == set(right)
        if not same or any(r.get(name) is None for r in (*a, *b)):
            out[name] = (_few(left), _few(right))
    return out


def _few(values: list[str]) -> str:
    different = sorted(set(values))
    return ", ".join(v[:12] for v in different[:4]) + (", ..." if len(different) > 4 else "")


def no_leakage(evidence: Evidence) -> Finding:
    """What judges was not trained with, and what is judged against was not trained on."""
    gate = Gate.NO_LEAKAGE
    found = [*_encoders(evidence), *_splits(evidence)]
    return worst(found, passed(gate, "the evaluation's extractor is none of the training's encoders, and no reference "
                                     "image is among the training images"))  # fmt: skip


def _encoders(evidence: Evidence) -> Iterator[Finding]:
    gate, made = Gate.NO_LEAKAGE, evidence.of("extractor")
    judge = made.weights.get("extractor.npz") if made is not None else None
    if made is None or judge is None:
        yield missing(
            gate, evidence.why_not("extractor") if made is None else f"the extractor of job {made.job} cannot be read"
        )
        return
    trainings = evidence.all("train")
    if not trainings:
        yield missing(gate, evidence.why_not("train"))
    for train in trainings:
        config = train.documents.get("config.json")
        named = config.get("training_encoder_sha256") if isinstance(config, Mapping) else None
        used = train.weights.get("encoder.npz")
        jobs = (train.job, made.job)
        if judge.content in (named, used.content if used is not None else None):
            yield refused(
                gate, f"job {train.job} ({train.role}) was trained with the very extractor that judges it", jobs
            )
        elif used is not None and (same := set(used.arrays.values()) & set(judge.arrays.values())):
            yield refused(
                gate,
                f"{len(same)} arrays of the extractor are in the encoder that job {train.job} was trained with",
                jobs,
            )
        elif used is None and any("encoder.npz" in p for p in train.problems):
            yield missing(gate, f"the encoder of job {train.job} cannot be read", jobs)


def _splits(evidence: Evidence) -> Iterator[Finding]:
    gate, data = Gate.NO_LEAKAGE, evidence.of("data")
    if data is None:
        yield missing(gate, evidence.why_not("data"))
        return
    known = {name: set(data.images[name].digests) for name in _SPLITS if name in data.images}
    for name in _SPLITS:
        if name not in known:
            yield missing(gate, f"the {name} split of job {data.job} cannot be read", (data.job,))
    for name in ("reference", "held"):
        shared = known.get(name, set()) & known.get("train", set())
        if shared:
            yield refused(
                gate,
                f"{len(shared)} images of the {name} split are in the train split of job {data.job}",
                (data.job,),
                shared=len(shared),
            )
    for judged in evidence.judged:
        for _, _, row in evaluation_rows(judged, evidence.claim.metric):
            reference = data.images.get("reference")
            if reference is not None and row.get("reference") != reference.content:
                said = (
                    f"job {judged.job} ({judged.role}) was judged against {str(row.get('reference'))[:12]}, which is "
                )
                said += f"not the reference split of job {data.job}"
                yield refused(gate, said, (judged.job,))
