"""How `lab submit --plan` looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.output import Column, Page, Report, human, lay_out
from lab.output.ranking import ranking
from lab.output.table import shorten
from lab.plan import Planned

_LONGEST = 600  # of the parameters: an axis may have a hundred thousand values


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
                shorten(human.clean(f"{p.kind} {p.name if p.name != p.kind else ''}".strip()), 60, page),
                p.key[:8],
                p.lane or "-",
                _takes(p),
                human.clean(_what(p)),
            )
            for p in self.planned
        ]
        yield from lay_out(page, columns, rows)
        if len(self.planned) == 1:
            yield from _details(page, self.planned[0])
            if len(self.planned[0].lanes) > 1:
                yield ""
                if self.planned[0].cells:
                    yield page.paint("Its first cell:", "dim")
                yield from ranking(page, self.planned[0].lanes)
        for p in self.planned:
            for note in p.notes:
                yield page.paint(f"note: {human.clean(note)}", "warn")
        jobs = sum(p.cells or 1 for p in self.planned)
        done = sum(p.done if p.cells else int(p.cached_id is not None) for p in self.planned)
        live = sum(p.live for p in self.planned)
        said = f"{human.count(jobs, 'job')}, {done:,} answered already" + (f", {live:,} under way" if live else "")
        yield ""
        yield page.paint(f"{said}; {self._work()}. Nothing was submitted.", "dim")

    def _work(self) -> str:
        """How long it should take, where that is known."""
        if not any(p.to_run for p in self.planned):
            return "nothing to do"
        total = sum(p.expected_s or 0.0 for p in self.planned)
        if not total:
            return "how long is not known: never run yet"
        wall = sum((p.expected_s or 0.0) / p.at_once for p in self.planned)
        several = max(p.at_once for p in self.planned) if wall < total else 1
        share = f" ({human.span(wall)} with {several:,} at once)" if several > 1 else ""
        return f"about {human.span(total)} of work, by earlier runs{share}"


def _takes(p: Planned) -> str:
    if not p.to_run:
        return "-"
    return f"~{human.span(p.expected_s / p.at_once)}" if p.expected_s else "?"


def _what(p: Planned) -> str:
    if not p.cells:
        return p.why
    parts = [human.count(p.cells, "cell")]
    parts += [f"{n:,} {word}" for n, word in ((p.done, "answered already"), (p.live, "under way")) if n]
    return f"{', '.join(parts)}; {p.why}"


def _details(page: Page, p: Planned) -> Iterable[str]:
    params = human.params(dict(p.params))
    facts = [("parameters", params if len(params) <= _LONGEST else params[: _LONGEST - 3] + "...")]
    for i in p.inputs:
        where = f"{i.lane}:{i.path}" if i.lane else i.path
        facts.append(("input", f"{i.name}  {human.size(i.size)}  {i.sha256[:12]}  {where}"))
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
        "cells": p.cells or None,
        "done": p.done,
        "live": p.live,
        "at_once": p.at_once,
        "lanes": [r.json() for r in p.lanes],
    }
