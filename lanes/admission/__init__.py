"""Admission is earned: a lane climbs a ladder, each rung with its evidence in the journal, before anything runs there.

`probe` climbs what can be climbed without running a job; `admit` the whole ladder, for one role or several. Both are
handlers of what people ask of the controller (`lanes.asks`): they run on threads of their own, reach the lane through
an `Access`, tell every rung as soon as it is climbed, and give an answer for the one who asked.

    reachable trusted authenticated python environment device disk      probe stops here
    transfer smoke [train] [sweep] parity outlives returns              jobs from here on
"""

from __future__ import annotations

from typing import Any

from core.cluster import ROLES
from lanes.admission.ladder import Ladder
from lanes.admission.misbehaviour import AttemptEnd, history_of, misbehaves
from lanes.admission.words import Access, RungResult, Tools, needed, title

__all__ = [
    "Access",
    "AttemptEnd",
    "RungResult",
    "Tools",
    "admit",
    "history_of",
    "misbehaves",
    "needed",
    "probe",
    "title",
]

Answer = dict[str, Any]


def probe(access: Access, data: dict[str, Any], tools: Tools | None = None) -> Answer:
    """Climb what needs no job. Nothing is granted or taken by it.

    Returns:
        {"ok", "message", "hint", "data": {"rungs": [...], "machine": {...}, "python", "versions": {...}}}
    """
    ladder = Ladder(access, tools or Tools())
    ladder.ground()
    bad = ladder.first_failure
    if bad is not None:
        return ladder.answer(False, f"{title(bad[0])}: {bad[1].message}", bad[1].hint)
    return ladder.answer(True, f"{access.name} could be admitted, as far as can be seen without a job", "")


def admit(access: Access, data: dict[str, Any], tools: Tools | None = None) -> Answer:
    """Climb the whole ladder.

    Args:
        data: {"roles": [...], "jobs": {"smoke": id, "parity": id, "outlives": id; "train", "cells" where a role needs
            them}, "pace_s": of the background attempt, "echo": {"name", "nonce", "kib"}: what it must bring back}.
            The jobs are in the journal already, of this lane only, and wait.

    Returns:
        as `probe`, with "roles": {role: {"ok", "reason"}} in its data.
    """
    roles = [r for r in ROLES if r in data.get("roles", ())]
    ladder = Ladder(access, tools or Tools())
    jobs = {str(k): int(v) for k, v in (data.get("jobs") or {}).items()}
    try:
        ladder.climb(roles, jobs, data)
    finally:
        ladder.give_up(jobs)
    return ladder.verdict(roles)
