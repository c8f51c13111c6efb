"""Journals of any size, made as the controller would make them, without running anything."""

from __future__ import annotations

import json
from typing import Any

from core.home import Home
from core.journal import Event, Journal, Role
from core.states import EventKind as K

SPEC: dict[str, Any] = {"kind": "toy", "inputs": [], "code": None, "needs": {"cores": 1}, "limits": {"time_s": 60.0}}


def many_jobs(home: Home, count: int, *, live: int = 3) -> None:
    """`count` jobs: the last `live` are one running, the others queued; before them one in ten has failed."""
    events = [
        Event(K.SPEC, data={"digest": "d", "data": json.dumps(SPEC)}),
        Event(K.LANE, lane="local", data={"state": "up", "info": json.dumps({"cores": 2})}),
    ]
    done = max(1, count - live) if count > live else 0
    for i in range(1, count + 1):
        submitted = {
            "spec": "d",
            "kind": "toy",
            "name": f"number {i}",
            "params": {"alpha": float(i)},
            "key": f"{i:064x}",
            "priority": 0,
            "idem": None,
            "tags": ["tenth"] if i % 10 == 0 else [],
            "note": "",
            "held": False,
            "rerun_of": None,
            "after": [],
        }
        events.append(Event(K.SUBMITTED, job=i, data=submitted))
    for i in range(1, done + 2 if count > 1 else 1):
        placed = {"nonce": "n", "grant": {"cores": 1}}
        events.append(Event(K.PLACED, job=i, attempt=1, lane="local", data=placed))
        events.append(Event(K.STARTED, job=i, attempt=1, lane="local", data={"pid": 1, "boot": "b"}))
        if i <= done:
            events += _ended(i, failed=i % 10 == 0)
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        tx.extend(events)


def _ended(job: int, *, failed: bool) -> list[Event]:
    state, cause = ("failed", "error") if failed else ("succeeded", "ok")
    said = "the program ended with exit 3" if failed else ""
    data = {
        "state": state,
        "cause": cause,
        "message": said,
        "seconds": 1.0,
        "manifest": "m",
        "undeclared": [],
        "parts": [],
    }
    end = {"state": state, "cause": cause, "reason": said, "undeclared": 0}
    return [
        Event(K.ATTEMPT_ENDED, job=job, attempt=1, lane="local", data=data),
        Event(K.JOB_ENDED, job=job, data=end),
    ]
