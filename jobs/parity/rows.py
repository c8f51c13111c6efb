"""From a report to a row of the `parity` table. Role and name are joined to the judge's answer here, and only here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.parity import verdict
from jobs.parity.adapter import Adapter, Array, Given, Mutant
from jobs.parity.exchange import load
from jobs.parity.schema import PARITY
from jobs.parity.sides import PROGRAM, Report, Task
from jobs.parity.verdict import Judgement, Reference
from jobs.parity.words import Role, Verdict
from kernels.metrics import Errors

Row = dict[str, Any]


def row(adapter: Adapter, mutants: Mapping[str, Mutant], report: Report, threads: int) -> tuple[Row, Array | None]:
    """Judge one report. Returns the row, and the candidate's values where they were looked at."""
    task, raw = report.task, report.raw
    given = adapter.given(task.cell)
    values: Array | None = None
    judgement = before_the_judge(adapter, report, given)
    if judgement is None:
        assert report.output is not None
        values = _values(adapter, report)
        judgement = judged(report, given, values)
    own = None
    if task.role is Role.MUTANT and values is not None:
        own = by_its_own_harm(mutants[task.candidate], given, values)
    seen = report.seen
    told = {
        **identity(adapter.name, task),
        **measures(judgement),
        "own_reason": own,
        "tolerance": given.tolerance,
        "seconds": raw.get("seconds"),
        "first_seconds": raw.get("first_seconds"),
        "peak_mb": raw.get("peak_mb"),
        "threads": threads,
        "ran_on": (raw.get("evidence") or {}).get("name") or raw.get("device"),
        "input_digest": given.digest,
        "candidate_digest": raw.get("digest"),
        "settings": json.dumps(dict(given.inputs.settings), sort_keys=True),
        "env": json.dumps({**raw.get("env", {}), **{f"ran:{k}": v for k, v in (raw.get("evidence") or {}).items()}}),
        "versions": json.dumps(raw.get("versions", {})),
        "error": report.error,
    }
    if seen is not None:
        told |= {
            "undeclared": json.dumps([str(f) for f in seen.undeclared]),
            "left": json.dumps(list(seen.left)),
            "watch": seen.note,
        }
    if values is not None:
        told |= _checksums(values)
    return told, values


def before_the_judge(adapter: Adapter, report: Report, given: Given) -> Judgement | None:
    """What ends the comparison before anything is compared: other inputs first, then no answer."""
    if report.mismatch:
        return Judgement(Verdict.INPUT_MISMATCH, report.mismatch)
    if report.raw.get("digest") is not None:
        why = _mismatch(adapter, report, given)
        if why:
            return Judgement(Verdict.INPUT_MISMATCH, why)
    if report.error is not None or report.output is None:
        return Judgement(Verdict.BLOCKED, report.reason or "it left no output")
    if report.raw.get("digest") is None:
        return Judgement(Verdict.INPUT_MISMATCH, "it did not say what it worked on")
    return None


def _mismatch(adapter: Adapter, report: Report, given: Given) -> str:
    """Why the side did not work on our inputs, or ""."""
    pairs = [("input", given.digest, report.raw.get("digest"))]
    warm = adapter.warm(report.task.cell)
    if warm is not None and "before_digest" in report.raw:
        pairs.append(("first input", adapter.given(warm).digest, report.raw["before_digest"]))
    for what, ours, theirs in pairs:
        if ours != theirs:
            return f"the {what} is {ours[:12]} here and {str(theirs)[:12]} in the side's process"
    return ""


def _values(adapter: Adapter, report: Report) -> Array:
    assert report.output is not None
    values = load(report.output)
    return adapter.from_program(report.task.cell, values) if report.task.target == PROGRAM else values


def judged(report: Report, given: Given, values: Array) -> Judgement:
    reference = given.reference
    if given.by_peer:
        if report.peer is None:
            return Judgement(Verdict.FAIL, "it gave nothing to compare itself with")
        peer = load(report.peer)
        reference = Reference(peer, np.abs(peer))
    judgement = verdict.judge(reference, values, given.tolerance)
    if judgement.verdict is Verdict.PASS:
        counts = verdict.same_counts(given.counts, report.raw.get("counts") or {})
        if counts and report.task.target.startswith("backend:"):  # others make an image, and count nothing
            return Judgement(Verdict.FAIL, counts, judgement.errors, judgement.statistics, judgement.patches)
    return judgement


def by_its_own_harm(mutant: Mutant, given: Given, values: Array) -> bool:
    """A symptom that cannot even be looked for, because the shape is another, is not there."""
    try:
        return bool(mutant.symptom(given, values, given.tolerance))
    except (ValueError, IndexError):
        return False


def identity(kernel: str, task: Task) -> Row:
    """A row that has nothing but its name."""
    cell = task.cell
    return {
        **dict.fromkeys(PARITY.names),
        "kernel": kernel,
        "candidate": task.candidate,
        "role": str(task.role),
        "case": str(cell.case),
        "dtype": cell.dtype,
        "device": task.device,
        "batch": cell.batch,
        "channels": cell.channels,
        "height": cell.height,
        "width": cell.width,
        "size": cell.size,
        "cell": task.id,
    }


def measures(judgement: Judgement) -> Row:
    """The columns that come from the judge."""
    patches = judgement.patches
    told: Row = {"verdict": str(judgement.verdict), "reason": judgement.reason}
    if judgement.statistics is not None:
        told["statistics"] = str(judgement.statistics)
    if patches is not None:
        told |= {"contrast": patches.contrast, "level": patches.level}
    return told | (_errors(judgement.errors) if judgement.errors is not None else {})


def _errors(found: Errors) -> Row:
    names = ("max_abs", "max_rel", "rmse", "correlation", "sum_ratio", "edge_error", "centre_error")
    worst = dict(zip(("worst_image", "worst_y", "worst_x"), found.worst, strict=True))
    return {**{name: getattr(found, name) for name in names}, **worst}


def _checksums(values: Array) -> Row:
    """So that two runs can be laid side by side when the arrays are gone."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    whole = hashlib.sha256(f"{little.dtype.str} {little.shape}\n".encode())
    whole.update(little.tobytes())
    with np.errstate(all="ignore"):
        amplitude = np.abs(values.astype(np.complex128 if np.iscomplexobj(values) else np.float64))
        rms = float(np.sqrt(np.mean(amplitude**2))) if amplitude.size else None
        return {"output_digest": whole.hexdigest(), "output_sum": float(amplitude.sum()), "output_rms": rms}
