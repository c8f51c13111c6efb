"""What lies around the judge, examined in every run with made-up reports to which the answer is known.

A judge that makes no mistake is worth nothing if its answer is not asked for, if digests are not compared, or if a
tap is held against itself. So each of these is shown what it has to refuse.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jobs.parity import predictions, rows, taps, verdict
from jobs.parity.adapter import Adapter, Cell, Given, sha256
from jobs.parity.exchange import save
from jobs.parity.sides import Report, Task
from jobs.parity.words import Phase, Role, Verdict

NOBODY = "backend:nobody"
OTHER = sha256("other words")


def examine(adapter: Adapter) -> dict[str, str]:
    """The mistakes: what was asked -> phrase; empty if all is well."""
    # A backend has cells of its own, such as tiles held against the whole.
    cells = [cell for name in ("", *adapter.params.candidates) for cell in adapter.cells(name)]
    mistakes = _counts()
    for cell in {adapter.given(c).by_peer: c for c in cells}.values():
        mistakes |= _before(adapter, cell) | _judged(adapter, cell)
    warm = next((c for c in cells if adapter.warm(c) is not None), None)
    mistakes |= _before(adapter, warm) if warm is not None else {}
    return mistakes | _harm(adapter)


def examine_taps(adapter: Adapter, cell: Cell) -> list[str]:
    """The mistakes of the comparison of taps, as phrases: it is shown the oracle's records, each number another."""
    tapping = adapter.tapping(cell)
    task = Task(0, "nobody", Role.CANDIDATE, NOBODY, cell)
    wrong = {label: [{**r, "values": _other(r["values"])} for r in told] for label, told in tapping.records.items()}
    found = taps.rows(adapter, Report(task, None, None, "", {"taps": wrong}))
    mistakes = [
        f"tap {r['tap']} {r['field']} passed with another value"
        for r in found
        if r["role"] == Role.CANDIDATE and r["verdict"] != Verdict.FAIL and r["oracle"] is not None
    ]
    right: dict[str, Any] = {"taps": dict(tapping.records), "digests": {"": OTHER}}
    found = taps.rows(adapter, Report(task, None, None, "", right))
    if any(r["verdict"] != Verdict.INPUT_MISMATCH for r in found):
        mistakes.append("taps of another input were compared")
    moved = {tap for p in tapping.perturbations.values() for tap, _, _ in p.moves}
    controlled = {r["tap"] for r in taps.constant_rows(adapter, cell)}
    for tap in sorted({int(r["tap"]) for r in tapping.records[""]} - (moved & controlled)):
        mistakes.append(f"tap {tap} has no negative control")
    return mistakes


def _before(adapter: Adapter, cell: Cell) -> dict[str, str]:
    """Other inputs have to end the comparison."""
    given = adapter.given(cell)
    told: dict[str, dict[str, Any]] = {"no digest": {}, "another digest": {"digest": OTHER}}
    if adapter.warm(cell) is not None:
        told["another first digest"] = {"digest": given.digest, "before_digest": OTHER}
    reports = {about: _report(cell, raw) for about, raw in told.items()}
    reports["an undeclared file"] = _report(cell, {"digest": given.digest}, mismatch="it opened a file")
    mistakes = {}
    for about, report in reports.items():
        found = rows.before_the_judge(adapter, report, given)
        if found is None or found.verdict is not Verdict.INPUT_MISMATCH or found.errors is not None:
            mistakes[about] = f"compared in spite of {about}"
    return mistakes


def _judged(adapter: Adapter, cell: Cell) -> dict[str, str]:
    """What is half too much has to fail, also as a candidate's; and an answer unlike the same candidate's other one."""
    given = adapter.given(cell)
    right = given.reference.values.astype(cell.dtype)
    if not np.any(right):
        return {}
    wrong = (1.5 * right).astype(cell.dtype)
    peer = adapter.folder / "peer.npy"
    save(peer, wrong)
    report = _report(cell, {"digest": given.digest, "counts": dict(given.counts)}, peer=peer if given.by_peer else None)
    mistakes = {}
    if rows.judged(report, given, right if given.by_peer else wrong).verdict is not Verdict.FAIL:
        mistakes["judged"] = f"what is half too much is not failed at {cell}"
    batch = predictions.Batch(report.task, Phase.INFERENCE, 0)
    if any(
        r["verdict"] != Verdict.FAIL
        for r in predictions.rows(adapter, [batch], report, (1e-4 * right).astype(cell.dtype))
    ):
        mistakes["statistics"] = f"a batch that has collapsed is not failed at {cell}"
    peer.unlink()
    return mistakes


def _counts() -> dict[str, str]:
    told: tuple[Mapping[str, Any], ...] = ({"lookups": 3}, {}, {"lookups": "4"})
    bad = [counts for counts in told if not verdict.same_counts({"lookups": 4}, counts)]
    return {"counts": f"the counts {bad[0]} passed for 4 lookups"} if bad else {}


def _harm(adapter: Adapter) -> dict[str, str]:
    """What is right shows no bug's harm."""
    mistakes = {}
    for name, mutant in adapter.mutants().items():
        given: Given = adapter.given(mutant.cells[0])
        right = given.reference.values.astype(mutant.cells[0].dtype)
        if rows.by_its_own_harm(mutant, given, right):
            mistakes[f"harm of {name}"] = f"saw the harm of {name} in what is right"
    return mistakes


def _report(cell: Cell, raw: Mapping[str, Any], *, mismatch: str = "", peer: Path | None = None) -> Report:
    task = Task(0, "nobody", Role.CANDIDATE, NOBODY, cell)
    return Report(task, Path(os.devnull), None, "", raw, mismatch=mismatch, peer=peer)


def _other(value: Any) -> Any:
    """The same structure, each number another one."""
    if isinstance(value, Mapping):
        return {name: _other(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_other(v) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return value + 1 if isinstance(value, int) else 1.5 * value + 1
