"""How `lab submit --plan` looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.output import Column, Page, Report, human, lay_out
from lab.plan import Planned


@dataclass(frozen=True)
class PlanReport(Report):
    """What a submit would do now."""

    planned: Sequence[Planned]

    schema = "lab.plan/1"

    def json(self) -> dict[str, Any]:
        return {"jobs": [_json(p) for p in self.planned]}

    def text(self, page: Page) -> Iterable[str]:
        columns = (
            Column("JOB", shrink=True),
            Column("KEY"),
            Column("LANE"),
            Column("TAKES", right=True),
            Column("WHAT WOULD HAPPEN"),
        )
        rows = [
            (
                human.clean(f"{p.kind} {p.name if p.name != p.kind else ''}".strip())[:60],
                p.key[:8],
                p.lane or "-",
                "-" if p.cached_id else f"~{human.span(p.expected_s)}" if p.expected_s else "?",
                human.clean(p.why),
            )
            for p in self.planned
        ]
        yield from lay_out(page, columns, rows)
        if len(self.planned) == 1:
            yield from _details(page, self.planned[0])
        for p in self.planned:
            for note in p.notes:
                yield page.paint(f"note: {human.clean(note)}", "warn")
        done = sum(1 for p in self.planned if p.cached_id)
        total = sum(p.expected_s or 0.0 for p in self.planned)
        said = f"{human.count(len(self.planned), 'job')}, {done} answered already"
        known = (
            f"about {human.span(total)} of work, by earlier runs" if total else "how long is not known: never run yet"
        )
        yield ""
        yield page.paint(
            f"{said}; {known if done < len(self.planned) else 'nothing to do'}. Nothing was submitted.", "dim"
        )


def _details(page: Page, p: Planned) -> Iterable[str]:
    facts = [("parameters", human.params(dict(p.params)))]
    facts += [("input", f"{i.name}  {human.size(i.size)}  {i.sha256[:12]}  {i.path}") for i in p.inputs]
    if p.code:
        facts.append(("code", f"{human.count(p.code_files, 'file')}, {human.size(p.code_bytes)}, from {p.code}"))
    yield ""
    for name, text in facts:
        if text:
            yield f"  {page.paint(name.ljust(10), 'dim')}  {human.clean(text)}"


def _json(p: Planned) -> dict[str, Any]:
    return {
        "kind": p.kind,
        "name": p.name,
        "params": dict(p.params),
        "key": p.key,
        "needs": p.needs.model_dump(mode="json"),
        "lane": p.lane,
        "why": p.why,
        "cached_id": p.cached_id,
        "expected_s": p.expected_s,
        "inputs": [i.model_dump(mode="json") for i in p.inputs],
        "code": p.code,
        "code_files": p.code_files,
        "code_bytes": p.code_bytes,
        "notes": list(p.notes),
    }
