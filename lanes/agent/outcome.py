"""What an attempt has come to, once nothing of it runs: outputs are collected, and what its seal says of the end."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from core import audit
from core.declared import REPORTED, Declared
from core.fsio import write_json
from core.rundir import RunDir
from lanes.agent import procs, setup
from lanes.agent.safe import clean, read_dict
from lanes.agent.spawn import Child
from lanes.agent.verdict import Found, last_step, unmet, verdict


def collect(
    run: RunDir,
    spec: Dict[str, Any],
    found: Found,
    *,
    prepared: Optional[setup.Prepared],
    declared: Declared,
    child: Optional[Child],
    oom_before: int,
    tick: Callable[[], None],
) -> Dict[str, Any]:
    """Collect the outputs and everything else that the verdict needs.

    Args:
        found: how the child ended, and why it was stopped.
        prepared: the working folder as it was at the start; None: it was never ready.
        oom_before: what `procs.oom_kills` said at the start.

    Returns:
        the outcome, but for `seconds`; `max_rss_mb` is of the largest single process.

    Raises:
        OSError: the disk is full.
    """
    traced, blind = _finish_tracing(child, declared)
    said = read_dict(run.outcome)
    rows = said["rows"] if isinstance(said.get("rows"), dict) else {}
    step = last_step(run.metrics)
    missing: List[str] = []
    stale: List[str] = []
    left: List[str] = []
    if prepared is not None:
        outputs = [str(o) for o in spec.get("outputs") or []]
        if (spec.get("code") or {}).get("path"):  # without a user's program the folder is the kind's scratch
            left = setup.left_behind(run, prepared, outputs)
        missing = setup.collect_outputs(run, prepared, outputs, tick)
        stale = setup.changed_inputs(prepared.linked, tick)
    missing += unmet(spec, read_dict(run.plan), run, rows, step)
    disk = os.statvfs(run.path)
    found = found._replace(
        child=said,
        oom_kill=procs.oom_kills() > oom_before,
        disk_free=disk.f_bavail * disk.f_frsize,
        missing=missing,
        stale=stale,
    )
    undeclared = declared.undeclared() if traced != "none" else []
    write_json(
        run.opens,
        clean({"version": 1, "traced": traced, "undeclared": undeclared, "left": left, "unread_calls": blind}),
        sync=False,
    )
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **verdict(found),
        "rows": rows,
        "last_step": step,
        "undeclared": undeclared[:REPORTED],
        "undeclared_count": len(undeclared),
        "left": left[:REPORTED],
        "traced": traced,
        "max_rss_mb": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) >> 20,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
    }


def _finish_tracing(child: Optional[Child], declared: Declared) -> Tuple[str, int]:
    """How it was traced, and how many calls could not be read."""
    if child is None:
        return "none", 0
    if child.tracer is not None:
        child.tracer.finish()
        if child.tracer.is_alive() or child.tracer.blind >= max(1, child.tracer.seen):
            return "none", child.tracer.blind
        return child.traced, child.tracer.blind
    if child.opened is not None:
        audit.replay(child.opened, declared)
    return child.traced, 0
