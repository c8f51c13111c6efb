"""Taps: intermediate numbers of a backend beside the oracle's, field by field; and proof that each tap can move.

A tap that always says the same agrees with the oracle by luck, or with nothing. So every record is taken again under
perturbations (the geometry, the grid, the configuration), and the fields that a perturbation must change have to
change. One that does not is failed, and fails the run: whatever it agreed on before proves nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.parity.adapter import Adapter, Cell, Record, Tapping
from jobs.parity.schema import TAPS
from jobs.parity.sides import Report, Task
from jobs.parity.words import Role, Verdict

Row = dict[str, Any]
Fields = dict[str, float | int | str | bool | None]
Key = tuple[int, str]  # tap and place
ORACLE = "numpy"
CONSTANT = "constant-taps"


def planned(adapter: Adapter, tasks: Sequence[Task], cells: Sequence[Cell]) -> int:
    """How many rows there will be: known from the oracle's records before anything else has run."""
    count = {cell: len(list(_names(adapter, adapter.tapping(cell)))) for cell in cells}
    moves = {cell: len(list(_moves(adapter, adapter.tapping(cell)))) for cell in cells}
    return sum(count[t.cell] + moves[t.cell] for t in tasks) + sum(moves.values())


def oracle_rows(adapter: Adapter, cells: Sequence[Cell]) -> list[Row]:
    """The oracle's own taps have to move as well."""
    out = []
    for cell in cells:
        tapping = adapter.tapping(cell)
        found = {label: flattened(adapter, records) for label, records in tapping.records.items()}
        out += list(_gates(adapter, tapping, cell, ORACLE, found))
    return out


def constant_rows(adapter: Adapter, cell: Cell) -> list[Row]:
    """The gates of taps that are known bad: whatever is perturbed, they say what the oracle says without it."""
    tapping = adapter.tapping(cell)
    always = flattened(adapter, tapping.records[""])
    return list(_gates(adapter, tapping, cell, CONSTANT, dict.fromkeys(tapping.records, always)))


def rows(adapter: Adapter, report: Report) -> list[Row]:
    """All rows of one side and cell, blocked ones included."""
    task = report.task
    tapping = adapter.tapping(task.cell)
    mine = dict[str, dict[Key, Fields]]()
    verdict, reason = _before(adapter, tapping, report)
    if not verdict:
        mine = {label: flattened(adapter, records) for label, records in report.raw["taps"].items()}
    out = []
    for record, name, want in _names(adapter, tapping):
        key = _key(record)
        told = mine.get("", {}).get(key, {})
        row = _row(tapping, task.cell, task.candidate, Role.CANDIDATE, key, name, record)
        _fill(row, want, told.get(name))
        if verdict:
            row |= {"verdict": str(verdict), "reason": reason}
        elif name not in told:
            row |= {"verdict": str(Verdict.FAIL), "reason": "the field is missing"}
        else:
            why = difference(want, told[name], tapping.tolerance)
            row |= {"verdict": str(Verdict.FAIL if why else Verdict.PASS), "reason": why or "as the oracle's"}
        out.append(row)
    gates = list(_gates(adapter, tapping, task.cell, task.candidate, mine))
    if verdict:
        gates = [{**g, "verdict": str(verdict), "reason": reason} for g in gates]
    return out + gates


def document(adapter: Adapter, report: Report) -> dict[str, Any]:
    """What a side said, as it is kept: every record, without and with perturbations."""
    return {"candidate": report.task.candidate, "cell": str(report.task.cell), "records": report.raw.get("taps")}


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Edge and centre side by side, for fields that both have, computed from the rows."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for r in rows:
        if r["role"] == Role.CANDIDATE and r["tag"] in ("edge", "centre") and r["value"] is not None:
            # Taps 2 and 3 are one quantity at two places.
            quantity = "omega" if r["tap"] in (2, 3) else str(r["tap"])
            found.setdefault((r["candidate"], r["case"], f"{quantity}:{r['field']}"), {})[r["tag"]] = r["value"]
    out = []
    for (candidate, case, name), sides in found.items():
        if len(sides) == 2:
            gap = sides["edge"] - sides["centre"]
            out.append({"candidate": candidate, "case": case, "field": name, **sides, "edge_minus_centre": gap})
    return out


def flattened(adapter: Adapter, records: Sequence[Record]) -> dict[Key, Fields]:
    """Fields by tap and place."""
    return {_key(r): adapter.fields(r) for r in records}


def difference(want: Any, told: Any, tolerance: float) -> str:
    """Why two fields are not the same, or "". Integers, flags and words exactly; floats within the tolerance."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (want, told))
    if numbers and (isinstance(want, float) or isinstance(told, float)):
        gap = abs(float(told) - float(want))
        if math.isfinite(gap) and gap <= tolerance * abs(float(want)):
            return ""
        return "" if want == told else f"off by {gap:.3g}, relative {gap / abs(want) if want else math.inf:.3g}"
    return "" if type(want) is type(told) and want == told else f"{told!r} where the oracle has {want!r}"


def moved(before: Any, after: Any) -> bool:
    """Is it another value? A number that is none has not moved: it says nothing."""
    if before is None or after is None:
        return False
    if any(isinstance(v, float) and math.isnan(v) for v in (before, after)):
        return False
    return bool(before != after)


def _before(adapter: Adapter, tapping: Tapping, report: Report) -> tuple[Verdict | None, str]:
    if report.mismatch:
        return Verdict.INPUT_MISMATCH, report.mismatch
    from jobs.parity.adapter import sha256

    wanted = {"": tapping.inputs, **{name: p.inputs for name, p in tapping.perturbations.items()}}
    for label, told in (report.raw.get("digests") or {}).items():
        ours = sha256(adapter.effective(wanted[label]))
        if told != ours:
            return Verdict.INPUT_MISMATCH, f"the input is {ours[:12]} here and {told[:12]} in the side's process"
    if report.error is not None or "taps" not in report.raw:
        return Verdict.BLOCKED, report.reason or "it left no taps"
    return None, ""


def _names(adapter: Adapter, tapping: Tapping) -> Iterator[tuple[Record, str, Any]]:
    """Every field of the oracle's records: what has to be compared."""
    for record in tapping.records[""]:
        for name, value in adapter.fields(record).items():
            yield record, name, value


def _moves(adapter: Adapter, tapping: Tapping) -> Iterator[tuple[str, Key, str]]:
    """(perturbation, tap and place, field) of everything that must move."""
    known = flattened(adapter, tapping.records[""])
    for label, p in tapping.perturbations.items():
        for tap, place, name in p.moves:
            if name not in known[tap, place]:
                raise LookupError(f"tap {tap} at {place} has no field {name}")
            yield label, (tap, place), name


def _gates(
    adapter: Adapter, tapping: Tapping, cell: Cell, candidate: str, found: Mapping[str, Mapping[Key, Fields]]
) -> Iterator[Row]:
    places = {_key(r): r for r in tapping.records[""]}
    for label, key, name in _moves(adapter, tapping):
        before = found.get("", {}).get(key, {}).get(name)
        after = found.get(label, {}).get(key, {}).get(name)
        row = _row(tapping, cell, candidate, Role.GATE, key, name, places[key])
        _fill(row, before, after)
        ok = moved(before, after)
        reason = f"moves with the {label}" if ok else f"does not move with the {label}"
        yield {**row, "perturbed": label, "verdict": str(Verdict.PASS if ok else Verdict.FAIL), "reason": reason}


def _row(tapping: Tapping, cell: Cell, candidate: str, role: Role, key: Key, name: str, record: Record) -> Row:
    slow, fast = record["pixel"]
    return {
        **dict.fromkeys(TAPS.names),
        "candidate": candidate,
        "role": str(role),
        "case": cell.case,
        "tap": key[0],
        "tag": key[1],
        "field": name,
        "perturbed": "",
        "slow": int(slow),
        "fast": int(fast),
        "oversample": int(record["oversample"]),
        "utc": str(record["utc"]),
    }


def _fill(row: Row, want: Any, told: Any) -> None:
    for column, value in (("oracle", want), ("value", told)):
        if isinstance(value, int | float) and not isinstance(value, bool):
            row[column] = float(value)
        elif value is not None:
            row[f"{column}_text"] = value if isinstance(value, str) else json.dumps(value)
    if row["oracle"] is not None and row["value"] is not None:
        row["difference"] = row["value"] - row["oracle"]


def _key(record: Record) -> Key:
    return int(record["tap"]), str(record["place"])
