"""What the lanes have, as far as it is known at submit: is there one that could ever take this job?"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.cluster import Cluster, LaneConfig
from core.errors import ImpossibleNeed
from core.journal import query
from core.spec import Needs
from core.states import LaneState
from lanes.ledger import LaneBook
from lanes.placement import Capacity, LaneView, can_ever


def lane_books(cluster: Cluster, conn: sqlite3.Connection | None) -> dict[str, LaneBook]:
    """The declared lanes with what their agents found (from the journal), and what living attempts and batches hold.

    `local` before its first probe: what this machine says of itself.
    """
    known = {lane.name: lane for lane in query.lanes(conn)} if conn is not None else {}
    admitted = query.admitted(conn) if conn is not None else {}
    books: dict[str, LaneBook] = {}
    for config in cluster.lanes:
        row = known.get(config.name)
        hello = dict(row.info) if row is not None else {}
        if not hello and config.transport == "local":
            hello = this_machine()
        state = row.state if row is not None else LaneState.DECLARED
        reason = row.reason if row is not None else ""
        roles = admitted.get(config.name, frozenset())
        books[config.name] = LaneBook(config, state, reason, hello, admitted=roles)
    for attempt in query.open_attempts(conn) if conn is not None else ():
        if attempt.lane in books:
            books[attempt.lane].hold(attempt)
    for batch in query.open_batches(conn) if conn is not None else ():
        if batch.lane in books:
            books[batch.lane].hold_batch(batch.nonce, batch.grant)
    return books


def refuse_impossible(cluster: Cluster, books: dict[str, LaneBook], needs: Needs) -> None:
    """Raise when no lane could ever run this.

    What nobody has looked at counts as not there, unless the user named that very lane: then it is taken at its word.
    A lane that is meant for the role and has not earned it yet may still do so: the job waits, and says for what.

    Raises:
        NotFound: `needs.lane` is not declared.
        ImpossibleNeed: naming, for each lane, what it lacks.
    """
    wanted = [cluster.lane(needs.lane).name] if needs.lane is not None else [c.name for c in cluster.lanes]
    lacks: list[str] = []
    for name in wanted:
        book = books[name]
        meant = frozenset(book.config.roles)
        view = replace(book.view(), roles=meant) if book.hello else _unprobed(book.config, needs)
        why = can_ever(needs, view)
        if why is None:
            return
        lacks.append(f"{name} {why}" + ("" if book.hello else " (declared, never probed)"))
    raise ImpossibleNeed(
        f"no lane can take this job: {'; '.join(lacks)}",
        hint=how_to_offer(cluster, books, needs) or "ask for less, or declare a lane that has it in cluster.yaml",
    )


def how_to_offer(cluster: Cluster, books: dict[str, LaneBook], needs: Needs) -> str:
    """What to write in cluster.yaml where exclusive names are all that a lane lacks; "" where more is missing."""
    plain = needs.model_copy(update={"resources": ()})
    for config in cluster.lanes:
        book = books[config.name]
        view = replace(book.view(), roles=frozenset(config.roles)) if book.hello else _unprobed(config, plain)
        missing = [r for r in needs.resources if r not in config.resources]
        if missing and can_ever(plain, view) is None:
            where = f"in {cluster.path}" if cluster.path is not None else "in the cluster.yaml that `lab init` writes"
            names = ", ".join([*config.resources, *missing])
            return f"write `resources: [{names}]` under `{config.name}:` {where}"
    return ""


def this_machine() -> dict[str, Any]:
    """Cores, memory and GPUs of this machine, without asking any library."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, Any] = {"cores": cores}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                found["memory_mb"] = int(line.split()[1]) // 1024
    except OSError:
        found["memory_mb"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
    found["gpus"] = [{"index": i} for i in range(len(cards))]
    return found


def _unprobed(config: LaneConfig, needs: Needs) -> LaneView:
    named = needs.lane == config.name
    cores = config.cores if config.cores is not None else (needs.cores if named else 1)
    gpus = config.gpus if config.gpus is not None else (needs.gpus if named else 0)
    memory = config.memory_mb if config.memory_mb is not None or named else 0
    total = Capacity(cores, memory, tuple(range(gpus)), frozenset(config.resources))
    return LaneView(config.name, total, total, frozenset(config.roles), False, "never probed")
