"""`lab lanes`: the lanes as declared, as the controller last saw them, and what runs on them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import typer

from core import cluster
from core.cluster import LaneConfig
from core.errors import NotFound
from core.journal import query
from core.journal.query import Attempt, Batch, Lane, RungRow
from core.live import read_lanes
from core.rungs import title
from core.states import LaneState
from lab import control
from lab.output import Column, Page, Report, human, lay_out
from lab.output.ladder import compared_lines, in_order, rung_json, rung_lines
from lab.session import Session, session
from lanes import switched

_NOT_USED = (LaneState.DOWN, LaneState.QUARANTINED)
_QUIET_S = 3.0  # a lane that was heard more recently than this is simply there


def lanes_(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Everything that is known of each, with its ladder of admission.")
    ] = False,
) -> None:
    """Show the lanes and what runs on them.

    A lane is a machine, or a part of one. What is declared in cluster.yaml is not used until it is admitted.
    """
    here = session()
    here.out.show(look_up(here, verbose=verbose))


@dataclass(frozen=True)
class LaneShown:
    """One lane: what is declared, what the controller knows, what holds its slots.

    Attributes:
        live: the newest of live.db: "age_s" since it was heard, "link" while the way to it is down.
        admitted: the roles that it has earned; of this machine those that it is declared for.
        rungs: the newest word on each rung of its ladder.
        joins: it can join the Ray of the controller that runs.
        controller: one runs.
        told: how it is reached is known.
    """

    config: LaneConfig
    known: Lane | None
    attempts: Sequence[Attempt]
    batches: Sequence[Batch] = ()
    live: Mapping[str, Any] = field(default_factory=dict)
    admitted: Sequence[str] = ()
    rungs: Sequence[RungRow] = ()
    joins: bool = True
    controller: bool = False
    told: bool = True

    @property
    def state(self) -> LaneState:
        return self.known.state if self.known is not None else LaneState.DECLARED

    @property
    def seen(self) -> str:
        """Its state as people see it: until the first attempt to connect has failed, it is not out of reach."""
        begins = self.known is not None and self.known.reason == switched.NOT_YET
        return "connecting" if begins and self.controller and self.state is LaneState.UNREACHABLE else self.state

    @property
    def age_s(self) -> float | None:
        """Seconds since it said anything; None: never, or not since the head was started."""
        age = self.live.get("age_s")
        return float(age) if age is not None else None

    @property
    def link(self) -> Mapping[str, Any]:
        """What is known of the way to it while it is down; empty while it answers."""
        return self.live.get("link") or {}

    @property
    def failed(self) -> RungRow | None:
        """The lowest rung that does not hold."""
        return next((r for r in in_order(self.rungs) if not r.ok), None)

    @property
    def other(self) -> str:
        """Why it is not what cluster.yaml says now; empty where it is."""
        known = self.known.info.get(switched.DECLARED) if self.known is not None else None
        old = cluster.as_it_was(self.config.name, known) if isinstance(known, dict) else None
        runs = [f"job {a.job} attempt {a.n}" for a in self.attempts] + ["a batch of cells"] * bool(self.batches)
        if old is None or not runs or old.remote == self.config.remote:
            return ""
        return switched.refusal(old, self.config, runs)

    @property
    def trouble(self) -> str:
        """Why it does not answer, in one phrase."""
        refused = self.link.get("refused") or {}
        return str(refused.get("message") or self.link.get("error") or "")


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
            Column("HEARD", right=True),
            Column("ADMITTED FOR"),
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
    rungs: dict[str, list[RungRow]] = {}
    admitted: dict[str, frozenset[str]] = {}
    live = read_lanes(here.home)
    alive, joins = controller_alive(here.home), control.joins_now(here.home)
    try:
        with here.reading() as journal:
            known = {lane.name: lane for lane in query.lanes(journal.conn)}
            for attempt in query.open_attempts(journal.conn):
                running.setdefault(attempt.lane, []).append(attempt)
            for batch in query.open_batches(journal.conn):
                batches.setdefault(batch.lane, []).append(batch)
            admitted = query.admitted(journal.conn)
            for row in query.rungs(journal.conn):
                rungs.setdefault(row.lane, []).append(row)
    except NotFound:
        pass  # nothing was submitted yet: the lanes are as declared

    def one(config: LaneConfig, lane: Lane | None) -> LaneShown:
        name = config.name
        has = admitted.get(name, frozenset()) if config.remote else frozenset(config.roles)
        return LaneShown(
            config,
            lane,
            running.get(name, []),
            batches.get(name, []),
            live.get(name, {}) if alive else {},  # ages that nobody brings up to date say nothing
            [r for r in config.roles if r in has],
            rungs.get(name, []),
            joins or config.transport != "joined",
            alive,
        )

    shown = [one(c, known.pop(c.name, None)) for c in declared.lanes]
    shown += [replace(one(_gone(lane), lane), told=switched.DECLARED in lane.info) for lane in known.values()]
    return LanesReport(shown, alive, str(declared.path or ""), verbose)


def _gone(lane: Lane) -> LaneConfig:
    """What is known of a lane that cluster.yaml has no longer."""
    told = lane.info.get(switched.DECLARED)
    old = cluster.as_it_was(lane.name, told) if isinstance(told, dict) else None
    return replace(old or LaneConfig(lane.name), about="no longer in cluster.yaml")


def _row(page: Page, lane: LaneShown) -> tuple[str, ...]:
    config, info = lane.config, (lane.known.info if lane.known is not None else {})
    memory = config.memory_mb if config.memory_mb is not None else info.get("memory_mb")
    gpus = config.gpus if config.gpus is not None else len(info.get("gpus") or ())
    wish = {"drain": "drain asked", "resume": "resume asked"}.get(
        (lane.known.wish or "") if lane.known is not None else "", ""
    )
    reason = lane.known.reason if lane.known is not None and lane.seen != "connecting" else ""
    failed = lane.failed
    climbed = (
        f"{title(failed.rung, failed.role)}: {failed.data.get('message') or ''}"
        if failed is not None and config.remote
        else ""
    )
    # Who decided something about a lane gave a reason for it; else what is wrong with the way to it says more.
    decided = reason if lane.state in _NOT_USED else ""
    said = "; ".join(p for p in (wish, lane.other or decided or lane.trouble or reason) if p) or climbed or config.about
    heard = lane.age_s if lane.state not in (LaneState.DECLARED, *_NOT_USED) or lane.link else None
    return (
        config.name,
        page.state(lane.seen),
        config.transport if lane.told else "",
        str(config.cores or info.get("cores") or ""),
        human.size(memory * 1048576) if memory else "",
        str(gpus) if gpus else "",
        str(len(lane.attempts) + len(lane.batches)) if lane.attempts or lane.batches else "",
        _heard(heard, down=bool(lane.link)) if config.remote else "",
        _roles(lane) if config.remote else "",
        human.clean(said),
    )


def _heard(age_s: float | None, *, down: bool) -> str:
    if age_s is None:
        return "never" if down else ""
    return "now" if age_s < _QUIET_S and not down else human.span(age_s)


def _roles(lane: LaneShown) -> str:
    """What a lane is admitted for, as people read it in a column."""
    if not lane.admitted:
        return "nothing"
    return "everything" if set(lane.admitted) == set(cluster.ROLES) else ", ".join(lane.admitted)


def _details(page: Page, lane: LaneShown) -> Iterable[str]:
    config, info = lane.config, (lane.known.info if lane.known is not None else {})
    facts = {
        "about": config.about,
        "host": " ".join(
            str(p) for p in (*config.prefix, f"{config.user or ''}{'@' if config.user else ''}{config.host or ''}") if p
        ),
        "roles": ", ".join(config.roles) if not config.remote else "",
        "meant for": ", ".join(config.roles) if config.remote else "",
        "admitted": (", ".join(lane.admitted) or "for nothing yet") if config.remote else "",
        "link": _link(lane) if config.remote else "",
        "not joined": "" if lane.joins else control.NOT_JOINED,
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
    yield f"{page.paint(config.name, 'head')}  {page.state(lane.seen)}"
    for name, text in facts.items():
        if text:
            yield f"    {page.paint(name.ljust(10), 'dim')}  {human.clean(text)}"
    compared = [c for r in lane.rungs for c in (r.data.get("evidence") or {}).get("compared") or ()]
    if compared:
        yield from compared_lines(page, compared, indent=4)
    for row in in_order(lane.rungs):
        yield from rung_lines(page, row, indent=4, age=True)


def _link(lane: LaneShown) -> str:
    """The way to a lane, in a phrase."""
    if not lane.live:
        return ""
    if not lane.link:
        return f"up, heard {human.span(lane.age_s)} ago" if lane.age_s is not None else "up"
    tries = int(lane.link.get("tries") or 0)
    since = f" for {human.span(lane.age_s)}" if lane.age_s is not None else ""
    tried = f", tried {human.count(tries, 'time')}" if tries else ""
    return f"down{since}{tried}: {lane.trouble or 'no reason known'}"


def _cells(batch: Batch) -> int:
    return sum(last - first + 1 for first, last, _ in batch.cells)


def _json(lane: LaneShown) -> dict[str, Any]:
    config, now = lane.config, time.time()
    return {
        "name": config.name,
        "state": str(lane.state),
        "reason": lane.known.reason if lane.known is not None else "",
        "wish": lane.known.wish if lane.known is not None else None,
        "transport": config.transport if lane.told else None,
        "host": config.host,
        "roles": list(config.roles),
        "resources": list(config.resources),
        "admitted": list(lane.admitted),
        "link": {
            "up": None if not lane.live else not lane.link,
            "age_s": round(lane.age_s, 1) if lane.age_s is not None else None,
            "error": lane.trouble,
            "refused": lane.link.get("refused"),
            "address": lane.link.get("address"),
        },
        "joins_now": lane.joins if config.transport == "joined" else None,
        "ladder": [rung_json(r, now) for r in in_order(lane.rungs)],
        "about": config.about,
        "found": {k: v for k, v in lane.known.info.items() if k != switched.DECLARED} if lane.known is not None else {},
        "attempts": [{"job": a.job, "n": a.n, "state": str(a.state), "grant": a.grant} for a in lane.attempts],
        "batches": [{"dir": b.dir, "cells": _cells(b), "grant": b.grant} for b in lane.batches],
    }
