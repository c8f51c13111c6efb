"""A lane's ladder for people and programs: each rung a line, with a mark, its evidence, its age and its remedy."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.journal.query import RungRow
from core.rungs import title
from core.states import Rung
from lab.output import human
from lab.output.page import Page
from lab.output.table import fold

_ORDER = [str(rung) for rung in Rung]
WIDE = 13
_LINES = 6
_COMPARED = {"cores": "cores", "memory_mb": "memory", "gpus": "GPUs", "resources": "offers"}


def in_order(rows: Iterable[RungRow]) -> list[RungRow]:
    """Lowest rung first; what is of one role behind what is of all."""
    return sorted(rows, key=lambda r: (_ORDER.index(r.rung) if r.rung in _ORDER else 99, r.role != "", r.role))


def rung_lines(page: Page, row: RungRow, *, indent: int = 0, age: bool = False) -> list[str]:
    """One rung: mark, name, sentence; below it the remedy and the last words of a job that failed."""
    mark = page.mark("ok" if row.ok else "fail")
    name = title(row.rung, row.role).ljust(WIDE)
    old = f"  ({human.age(row.at)} ago)" if age else ""
    left = " " * (indent + WIDE + 4)
    room = (page.width or 10_000) - len(left)
    first, *rest = fold(human.clean(str(row.data.get("message") or "")) + old, room, page, _LINES)
    out = [f"{' ' * indent}{mark} {name}  {first}", *(left + line for line in rest)]
    if not row.ok:
        log = (row.data.get("evidence") or {}).get("log") or ()
        out += [left + page.paint("| " + human.clean(str(line)), "dim") for line in log[-5:]]
        hint = human.clean(str(row.data.get("hint") or ""))
        if hint:
            out += [left + page.paint(line, "dim") for line in fold(hint, room, page, _LINES)]
    return out


def compared_lines(page: Page, compared: Sequence[Mapping[str, Any]], *, indent: int = 0) -> list[str]:
    """Declared against probed, side by side."""
    out = []
    for one in compared:
        name = _COMPARED.get(str(one["name"]), str(one["name"]))
        declared = _value(one["name"], one.get("declared"))
        probed = _value(one["name"], one.get("probed"))
        text = f"{name.ljust(8)} declared {declared or '-'}, probed {probed or '-'}"
        out.append(" " * indent + (text if one.get("ok") else page.paint(text, "warn")))
    return out


def rung_json(row: RungRow, now: float | None = None) -> dict[str, Any]:
    return {
        "rung": row.rung,
        "role": row.role or None,
        "ok": row.ok,
        "message": row.data.get("message") or "",
        "hint": row.data.get("hint") or "",
        "evidence": row.data.get("evidence") or {},
        "at": human.iso(row.at),
        "age_s": round(max(0.0, (time.time() if now is None else now) - row.at), 1),
    }


def _value(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "memory_mb":
        return human.size(float(value) * 1048576)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
