"""`lab lanes`: the lanes as declared, as the controller last saw them, and what runs on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core import cluster
from core.cluster import LaneConfig
from core.errors import NotFound
from core.journal import query
from core.journal.query import Attempt, Batch, Lane
from core.states import LaneState
from lab.output import Column, Page, Report, human, lay_out
from lab.session import Session, session


def lanes_(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Everything that is known of each.")] = False,
) -> None:
    """Show the lanes and what runs on them.

    A lane is a machine, or a part of one. What is declared in cluster.yaml is not used until it is admitted.
    """
    here = session()
    here.out.show(look_up(here, verbose=verbose))


@dataclass(frozen=True)
class LaneShown:
    """One lane: what is declared, what the controller knows, what holds its slots."""

    config: LaneConfig
    known: Lane | None
    attempts: Sequence[Attempt]
    batches: Sequence[Batch] = ()

    @property
    def state(self) -> LaneState:
        return self.known.state if self.known is not None else LaneState.DECLARED


@dataclass(frozen=True)
class LanesReport(Report):
    """All lanes."""

    lanes: Sequence[LaneShown]
    controller: bool
    source: str
    verbose: bool

    schema = "lab.lanes/1"

    def json(self) -> dict[str, Any]:
        return {
            "lanes": [_json(lane) for lane in self.lanes],
            "controller": "running" if self.controller else "not running",
            "cluster_file": self.source or None,
        }

    def text(self, page: Page) -> Iterable[str]:
        columns = (
            Column("LANE"),
            Column("STATE"),
            Column("REACHED BY"),
            Column("CORES", right=True),
            Column("MEMORY", right=True),
            Column("GPUS", right=True),
            Column("RUNNING", right=True),
            Column("NOTE"),
        )
        yield from lay_out(page, columns, [_row(page, lane) for lane in self.lanes])
        if self.verbose:
            for lane in self.lanes:
                yield ""
                yield from _details(page, lane)
            yield ""
            yield page.paint(
                f"declared in {self.source}" if self.source else "no cluster.yaml: the one lane of this machine", "dim"
            )
        if not self.controller:
            yield page.paint("The controller is not running: states are the last known. `lab up` starts it.", "warn")

    def brief(self) -> Iterable[str]:
        return [lane.config.name for lane in self.lanes]


def look_up(here: Session, *, verbose: bool = False) -> LanesReport:
    """All lanes, declared or only known to the journal."""
    from lanes.start import controller_alive

    declared = cluster.load(here.home.cluster_file)
    known: dict[str, Lane] = {}
    running: dict[str, list[Attempt]] = {}
    batches: dict[str, list[Batch]] = {}
    try:
        with here.reading() as journal:
            known = {lane.name: lane for lane in query.lanes(journal.conn)}
            for attempt in query.open_attempts(journal.conn):
                running.setdefault(attempt.lane, []).append(attempt)
            for batch in query.open_batches(journal.conn):
                batches.setdefault(batch.lane, []).append(batch)
    except NotFound:
        pass  # nothing was submitted yet: the lanes are as declared

    def one(config: LaneConfig, lane: Lane | None) -> LaneShown:
        return LaneShown(config, lane, running.get(config.name, []), batches.get(config.name, []))

    shown = [one(c, known.pop(c.name, None)) for c in declared.lanes]
    shown += [one(LaneConfig(name, about="no longer in cluster.yaml"), lane) for name, lane in known.items()]
    return LanesReport(shown, controller_alive(here.home), str(declared.path or ""), verbose)


def _row(page: Page, lane: LaneShown) -> tuple[str, ...]:
    config, info = lane.config, (lane.known.info if lane.known is not None else {})
    memory = config.memory_mb if config.memory_mb is not None else info.get("memory_mb")
    gpus = config.gpus if config.gpus is not None else len(info.get("gpus") or ())
    wish = {"drain": "drain asked", "resume": "resume asked"}.get(
        (lane.known.wish or "") if lane.known is not None else "", ""
    )
    said = "; ".join(p for p in (wish, lane.known.reason if lane.known is not None else "") if p) or config.about
    return (
        config.name,
        page.state(lane.state),
        config.transport,
        str(config.cores or info.get("cores") or ""),
        human.size(memory * 1048576) if memory else "",
        str(gpus) if gpus else "",
        str(len(lane.attempts) + len(lane.batches)) if lane.attempts or lane.batches else "",
        human.clean(said),
    )


def _details(page: Page, lane: LaneShown) -> Iterable[str]:
    config, info = lane.config, (lane.known.info if lane.known is not None else {})
    facts = {
        "about": config.about,
        "host": " ".join(
            str(p) for p in (*config.prefix, f"{config.user or ''}{'@' if config.user else ''}{config.host or ''}") if p
        ),
        "roles": ", ".join(config.roles),
        "offers": ", ".join(config.resources),
        "machine": ", ".join(str(info[k]) for k in ("hostname", "platform", "python") if info.get(k)),
        "gpus": ", ".join(str(g.get("name", g)) if isinstance(g, dict) else str(g) for g in info.get("gpus") or ()),
        "disk free": human.size(info.get("disk_free")),
        "runs": ", ".join(
            [f"job {a.job}, attempt {a.n} ({a.state})" for a in lane.attempts]
            + [f"a batch of {human.count(_cells(b), 'cell')}" for b in lane.batches]
        ),
        "reason": lane.known.reason if lane.known is not None else "",
    }
    yield f"{page.paint(config.name, 'head')}  {page.state(lane.state)}"
    for name, text in facts.items():
        if text:
            yield f"    {page.paint(name.ljust(10), 'dim')}  {human.clean(text)}"


def _cells(batch: Batch) -> int:
    return sum(last - first + 1 for first, last, _ in batch.cells)


def _json(lane: LaneShown) -> dict[str, Any]:
    config = lane.config
    return {
        "name": config.name,
        "state": str(lane.state),
        "reason": lane.known.reason if lane.known is not None else "",
        "wish": lane.known.wish if lane.known is not None else None,
        "transport": config.transport,
        "host": config.host,
        "roles": list(config.roles),
        "resources": list(config.resources),
        "about": config.about,
        "found": lane.known.info if lane.known is not None else {},
        "attempts": [{"job": a.job, "n": a.n, "state": str(a.state), "grant": a.grant} for a in lane.attempts],
        "batches": [{"dir": b.dir, "cells": _cells(b), "grant": b.grant} for b in lane.batches],
    }
