"""How `lab submit --plan` looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.states import Cond
from lab.output import Column, Page, Report, human, lay_out
from lab.output.ranking import ranking
from lab.output.table import shorten
from lab.plan import Planned

_NAMED = 3  # jobs that another waits for
_LONGEST = 600  # of the parameters: an axis may have a hundred thousand values


@dataclass(frozen=True)
class PlanReport(Report):
    """What a submit would do now."""

    planned: Sequence[Planned]

    schema = "lab.plan/1"

    def json(self) -> dict[str, Any]:
        return {"jobs": [_json(p) for p in self.planned], "notes": self._notes()}

    def text(self, page: Page) -> Iterable[str]:
        columns = (
            Column("JOB", shrink=True),
            Column("KEY"),
            Column("LANE"),
            Column("TAKES", right=True),
            *([Column("AFTER", shrink=True)] if self._waits else []),
            Column("WHAT WOULD HAPPEN"),
        )
        rows = [
            (
                shorten(human.clean(f"{p.kind} {p.name if p.name != p.kind else ''}".strip()), 60, page),
                p.key[:8],
                p.lane or "-",
                _takes(p),
                *([human.clean(_after(p))] if self._waits else []),
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
        for note in self._notes():
            yield page.paint(f"note: {human.clean(note)}", "warn")
        jobs = sum(p.cells or 1 for p in self.planned)
        done = sum(p.done if p.cells else int(p.cached_id is not None) for p in self.planned)
        live = sum(p.live if p.cells else int(p.live_id is not None) for p in self.planned)
        said = f"{human.count(jobs, 'job')}, {done:,} answered already" + (f", {live:,} under way" if live else "")
        if self._waits and jobs > done + live:
            said += f", {jobs - done - live:,} to run"
        yield ""
        yield page.paint(f"{said}; {self._work()}. Nothing was submitted.", "dim")

    @property
    def _waits(self) -> bool:
        """Does any of them wait for another?"""
        return len(self.planned) > 1 and any(p.after for p in self.planned)

    def _notes(self) -> list[str]:
        return [note for p in self.planned for note in p.said]

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


def _after(p: Planned) -> str:
    """What it waits for, within its study by the short names; `any` need only have ended."""
    names = [str(what).removeprefix(f"{p.study}/") for _, what in p.after]
    optional = [cond is Cond.ANY for cond, _ in p.after]
    if len(names) > _NAMED:
        some = f"{sum(optional)} of them may fail" if any(optional) and not all(optional) else ""
        some = "all of which may fail" if all(optional) else some
        return f"{names[0]}, {names[1]} and {len(names) - 2} more" + (f", {some}" if some else "")
    return ", ".join(f"{name} (may fail)" if may else name for name, may in zip(names, optional, strict=True))


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
        if i.made is not None:
            facts.append(("input", f"{i.name}  {i.made.file or 'all files'} of {i.made.label}"))
            continue
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
        "live_id": p.live_id,
        "after": [{"job": what, "must": "end" if cond is Cond.ANY else "succeed"} for cond, what in p.after],
        "takes": [{"name": t.name, "job": t.job, "file": t.file, "optional": t.optional} for t in p.takes],
        "study": p.study or None,
        "at_once": p.at_once,
        "lanes": [r.json() for r in p.lanes],
    }
