"""`lab floor`: the current floor, every submission's verdict with the rule that decided, and the gap to rivals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import NotFound
from lab.floor import (
    VIEWS,
    Candidate,
    Floor,
    Rival,
    Verdict,
    evaluators_apart,
    find_floor,
    read_rivals,
    read_scorings,
)
from lab.hypotheses import Hypothesis, read_hypotheses, together
from lab.output import Column, Page, Report, human, lay_out
from lab.session import session

EPILOG = """
Verdicts:
  promote     beat the floor of its time by more than the noise of repeated scoring
  close miss  equal within the noise, or ahead by a value that only ranks
  reject      worse than the floor
  cut         behind by a value that only ranks: not worth the scorer
  unranked    the floor has no value under its contract

A proxy, a lane without the role `promote` when it ran, and a job that read undeclared files never promote.
What trainings say of their artefacts stands below, as hypotheses: it is no score, and is ranked with none.
Rivals are a YAML file: - {name: NAME, score: 1.9}
"""

_RULE_LINES = 5  # a rule is what people came for: it is not cut short
_MOST = 5  # hypotheses of a group that people are shown
_MARKS = {
    Verdict.PROMOTE: "ok",
    Verdict.CLOSE_MISS: "warn",
    Verdict.REJECT: "fail",
    Verdict.CUT: "cancelled",
    Verdict.UNRANKED: "queued",
}


def floor_(
    rivals: Annotated[
        Path | None, typer.Option("--rivals", metavar="FILE", help="Rivals and their scores, as YAML.")
    ] = None,
    view: Annotated[
        str,
        typer.Option("--view", metavar="|".join(VIEWS), help="Whose bytes count.", autocompletion=lambda: list(VIEWS)),
    ] = VIEWS[0],
    contract: Annotated[
        str, typer.Option("--contract", metavar="SHA", help="The contract [of the newest that may promote].")
    ] = "",
) -> None:
    """Show the floor, the verdict on every submission, and the gap to rivals.

    Made from committed results alone.
    """
    here = session()
    listed = read_rivals(rivals) if rivals is not None else []
    warnings: list[str] = []
    with here.reading() as journal:
        scorings = read_scorings(here.home, journal.conn, view, warnings)
        hypotheses = read_hypotheses(here.home, journal.conn, warnings)
    if not scorings and not hypotheses and not warnings:
        raise NotFound("nothing was scored yet, so there is no floor", hint="`lab submit score --set ...` scores one")
    found = find_floor(scorings, view=view, contract=contract)
    if not contract and len(found.contracts) > 1:
        warnings.append(
            f"there are {len(found.contracts)} contracts (evaluators, videos, devices): this is the newest, "
            f"{found.contract[:12]}; the others: {', '.join(c[:12] for c in found.contracts[:-1])} (--contract)"
        )
    apart = evaluators_apart(found)
    if apart:
        warnings.append(
            f"the evaluators under this contract differ in their packages, and the values may by it: {apart}"
        )
    for line in warnings:
        here.out.remark(f"lab: warning: {human.clean(line)}")
    here.out.show(FloorReport(found, listed, hypotheses, warnings))


@dataclass(frozen=True)
class FloorReport(Report):
    """The floor, the candidates, the rivals, the hypotheses."""

    found: Floor
    rivals: Sequence[Rival]
    hypotheses: Sequence[Hypothesis] = ()
    warnings: Sequence[str] = ()

    schema = "lab.floor/1"

    def json(self) -> dict[str, Any]:
        floor = self.found.floor
        return {
            "view": self.found.view,
            "contract": self.found.contract or None,
            "contracts": list(self.found.contracts),
            "floor": _json(floor) if floor is not None else None,
            "noise": {"spread": self.found.noise.value, "submissions_scored_again": self.found.noise.repeated},
            "candidates": [_json(c) for c in self.found.candidates],
            "rivals": [
                {"name": r.name, "score": r.score, "rounding": r.rounding, "behind": self._behind(r)}
                for r in self.rivals
            ],
            "hypotheses": [_hypothesis_json(h) for h in self.hypotheses],
            "warnings": list(self.warnings),
        }

    def text(self, page: Page) -> Iterable[str]:
        floor, noise = self.found.floor, self.found.noise
        if floor is None:
            scored = "nothing that was scored may promote" if self.found.candidates else "nothing was scored yet"
            yield f"there is no floor: {scored}"
        else:
            said = f"{floor.standing.value:.8f}  {human.clean(floor.name)}  {floor.bytes:,} B  {floor.authority.word}"
            yield f"{page.paint('floor', 'head')}  {said}  {_jobs(floor)}"
            if noise.value is None:
                yield "noise  unknown: no submission was scored twice"
            else:
                yield f"noise  {noise.value:.3g}, of {human.count(noise.repeated, 'submission')} scored again"
        if self.found.candidates:
            yield ""
            yield from _table(page, self.found.candidates)
        if self.rivals:
            yield ""
            yield from self._rivals(page)
        for group in together(self.hypotheses):
            yield ""
            yield from _hypotheses(page, group)

    def brief(self) -> Iterable[str]:
        return [f"{self.found.floor.standing.value!r}"] if self.found.floor is not None else []

    def _behind(self, rival: Rival) -> float | None:
        """How much the floor is worse than the rival; less than 0: better."""
        return self.found.floor.standing.value - rival.score if self.found.floor is not None else None

    def _rivals(self, page: Page) -> Iterable[str]:
        rows = []
        for r in self.rivals:
            behind = self._behind(r)
            word = "" if behind is None else "behind" if behind > 0 else "ahead"
            if behind is not None and abs(behind) <= r.rounding:
                word = "equal, as theirs is rounded"
            rows.append((human.clean(r.name), f"{r.score:g}", "-" if behind is None else f"{-behind:+.4f}", word))
        shown = (Column("RIVAL", shrink=True), Column("SCORE", right=True), Column("GAP", right=True), Column("WE ARE"))
        return lay_out(page, shown, rows)


def _table(page: Page, candidates: Sequence[Candidate]) -> Iterable[str]:
    columns = (
        Column("VERDICT"),
        Column("VALUE", right=True),
        Column("GAIN", right=True),
        Column("BYTES", right=True),
        Column("SCORED", right=True),
        Column("JOB"),
        Column("BY"),
        Column("NAME", shrink=True),
        Column("RULE"),
    )
    rows = []
    for c in candidates:
        assert c.judged is not None
        mark = f"{page.mark(_MARKS[c.judged.verdict])} {c.judged.verdict}"
        rows.append(
            (
                mark + (" (floor)" if c.is_floor else ""),
                f"{c.standing.value:.6f}",
                "" if c.judged.gain is None else f"{c.judged.gain:+.5f}",
                f"{c.bytes:,}",
                f"{len(c.jobs)}",
                str(c.jobs[-1]),
                c.authority.word,
                human.clean(c.name),
                human.clean(c.judged.rule),
            )
        )
    return lay_out(page, columns, rows, lines_most=_RULE_LINES)


def _hypotheses(page: Page, group: Sequence[Hypothesis]) -> Iterable[str]:
    """Of one quantity on the same pairs."""
    quantity = human.clean(group[0].quantity)
    pairs = human.clean(group[0].alike[0][:12])
    yield f"{page.paint('hypotheses', 'head')}  {quantity} on the fixed pairs {pairs}: no score, ranked with none"
    columns = (
        Column("VALUE", right=True),
        Column("PSNR GAIN", right=True),
        Column("BYTES", right=True),
        Column("JOB"),
        Column("SCORED IN"),
        Column("NAME", shrink=True),
        Column("NOTE"),
    )
    rows = [
        (
            f"{h.value:.6g}",
            f"{h.gain_db:+.3f} dB",
            f"{h.bytes:,}",
            str(h.job),
            ", ".join(f"job {n}" for n in h.scored),
            human.clean(h.name),
            "it read files that were not declared" if h.undeclared else "",
        )
        for h in group[:_MOST]
    ]
    yield from lay_out(page, columns, rows)
    if len(group) > _MOST:
        yield page.paint(f"and {len(group) - _MOST} more that are worse (--json has all)", "dim")


def _hypothesis_json(h: Hypothesis) -> dict[str, Any]:
    return {
        "quantity": h.quantity,
        "value": h.value,
        "psnr": h.psnr,
        "gain_db": h.gain_db,
        "bytes": h.bytes,
        "authority": h.authority.word,
        "name": h.name,
        "branch": h.branch,
        "job": h.job,
        "lane": h.lane,
        "shipped": h.shipped,
        "scored_in": list(h.scored),
        "undeclared": h.undeclared,
        "fixed_pairs": h.alike[0],
        "made_of": h.alike[1],
    }


def _jobs(candidate: Candidate) -> str:
    ids = ", ".join(str(j) for j in candidate.jobs)
    return f"job{'s' if len(candidate.jobs) > 1 else ''} {ids}"


def _json(c: Candidate) -> dict[str, Any]:
    assert c.judged is not None
    return {
        "verdict": str(c.judged.verdict),
        "rule": c.judged.rule,
        "floor": c.is_floor,
        "value": c.standing.value,
        "gain": c.judged.gain,
        "resolution": c.standing.resolution,
        "spread": c.spread,
        "bytes": c.bytes,
        "authority": c.authority.word,
        "ranks_only": list(c.standing.bars),
        "name": c.name,
        "jobs": list(c.jobs),
        "lanes": list(c.lanes),
        "bundle": c.bundle,
        "contract": c.contract,
    }
