"""An attempt in the background, while every connection to its lane is closed: the same process goes on, step by step.

WSL, logind and some site policies end what a login left behind. So it is tried, not asked: the attempt is seen to
work, all connections are closed for two minutes, and afterwards its own step rows must have no gap.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from core.journal import query
from core.rundir import verify_manifest
from core.states import JobState
from lanes.admission.jobs import Ended, failure, reading
from lanes.admission.words import Access, RungResult, Tools
from lanes.transport import LinkDown, LinkRefused, RemoteError

WHAT = "the background attempt"
_GAP_S = 10.0  # a step that came so much later than the one before: it stood still
_SHARE = 0.5  # of the steps that fit into the time without a connection; fewer: the machine slept
_DETACHED = (
    "let processes outlive their login there: `loginctl enable-linger USER` (systemd), or keep the WSL distribution "
    "running (a task at log-on that runs `wsl -e sleep infinity`)"
)


def outlives(access: Access, tools: Tools, job_id: int, *, pace_s: float) -> RungResult:
    """Close every connection while the job runs, and see that it did not mind."""
    away_s = float(access.config.admission.outlive_s)
    begun = _begun(access, tools, job_id)
    if isinstance(begun, RungResult):
        return begun
    n, before = begun
    start = tools.now()
    access.close_for(away_s)
    closed_s = tools.now() - start
    evidence: dict[str, Any] = {
        "job": job_id, "attempt": n, "closed_s": round(closed_s, 1), "pid": before["pid"], "boot_id": before["boot_id"],
        "step_before": before["step"],
    }  # fmt: skip
    try:
        hello, after = _after(access, tools, job_id, n)
    except (LinkDown, LinkRefused, RemoteError, OSError) as error:
        text = f"the lane does not answer any more after {closed_s:.0f} s without a connection: {error}"
        hint = f"see whether the machine fell asleep; then: lab lane admit {access.name}"
        return RungResult(False, text, hint, evidence)
    return judge(access.name, before, after, str(hello.get("boot_id")), closed_s, pace_s, evidence)


def judge(
    lane: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any] | None,
    boot_id: str,
    closed_s: float,
    pace_s: float,
    evidence: Mapping[str, Any],
) -> RungResult:
    """What two reports of the agent say, one from before the connections were closed and one from after. Pure.

    Args:
        after: None: neither the agent nor the head knows what became of the attempt.
        boot_id: of the lane now.
    """
    again = f"; then: lab lane admit {lane}"
    told = dict(evidence)
    if boot_id != before["boot_id"]:
        text = f"{lane} was restarted while nothing was connected"
        return RungResult(False, text, "see what restarts it (WSL ends with its last login)" + again, told)
    if after is None:
        return RungResult(
            False, f"the agent of {lane} has forgotten the attempt", "report this: it is a bug of lab", told
        )
    rows = steps(after["metrics"])
    told |= {"step_after": after["step"], "phase": after["phase"], "pid_after": after["pid"]}
    over = after["phase"] == "ended" and (after.get("outcome") or {}).get("cause") == "ok"
    if not over and (after["phase"] != "running" or after["pid"] != before["pid"]):
        why = after.get("reason") or (after.get("outcome") or {}).get("message") or after["phase"]
        text = f"{WHAT} did not outlive the closing of every connection ({why}, after step {after['step']})"
        return RungResult(False, text, _DETACHED + again, told)
    made = int(after["step"] or 0) - int(before["step"] or 0)
    gap = max((b - a for (_, a), (_, b) in itertools.pairwise(rows)), default=0.0)
    told |= {"steps": made, "longest_gap_s": round(gap, 2)}
    if gap > _GAP_S + 2 * pace_s:
        text = f"{WHAT} stood still for {gap:.0f} s while nothing was connected"
        return RungResult(
            False, text, "see what stops programs there (a frozen group, a machine that sleeps)" + again, told
        )
    few = made < _SHARE * closed_s / max(pace_s, 1e-3)
    if few and over:
        # It ended well, but long before the time was over: that shows nothing about the rest of it.
        text = f"{WHAT} had only {made} steps left when its connections were closed, for {closed_s:.0f} s"
        return RungResult(False, text, f"lab lane admit {lane}", told)
    if few:
        text = f"{WHAT} made {made} steps in {closed_s:.0f} s without a connection: the machine slept, or it is starved"
        return RungResult(False, text, "keep it awake while it works" + again, told)
    seen_s = min(closed_s, made * pace_s) if over else closed_s
    text = f"process {before['pid']} went on for {seen_s:.0f} s without any connection, {made} steps without a gap"
    return RungResult(True, text, evidence=told)


def steps(lines: Sequence[str]) -> list[tuple[int, float]]:
    """(step, seconds on the attempt's own clock) of step rows."""
    out = []
    for line in lines:
        try:
            row = json.loads(line)
            out.append((int(row["step"]), float(row["t"])))
        except (ValueError, KeyError, TypeError):
            continue
    return out


def returns(access: Access, ended: Ended, echo: bytes | None, name: str) -> RungResult:
    """The artifacts of the background attempt are on the head, and every byte is what it was.

    Args:
        echo: what its artifact `name` must hold, where the head can know.
    """
    if not ended.ok or ended.attempt is None:
        return failure(access, ended, WHAT)
    run = access.home.run_dir(ended.attempt.job, ended.attempt.n)
    evidence = dict(ended.evidence)
    again = f"distrust that disk or network; then: lab lane admit {access.name}"
    wrong = verify_manifest(run)
    if wrong:
        return RungResult(
            False, f"what came back is not what was sealed: {wrong[0]}", again, {**evidence, "wrong": wrong}
        )
    files = [p for p in run.artifacts.rglob("*") if p.is_file()]
    evidence |= {"files": len(files), "bytes": sum(p.stat().st_size for p in files)}
    if not files:
        return RungResult(False, f"{WHAT}, job {ended.job.id}, brought nothing back", again, evidence)
    if echo is not None and (not (run.artifacts / name).is_file() or (run.artifacts / name).read_bytes() != echo):
        text = f"{name} of job {ended.job.id} came back, and does not hold what the head asked for"
        return RungResult(False, text, again, evidence)
    text = f"{len(files)} artifacts ({evidence['bytes']:,} bytes) came back and verify"
    return RungResult(True, text, evidence=evidence)


def _begun(access: Access, tools: Tools, job_id: int) -> tuple[int, dict[str, Any]] | RungResult:
    """(attempt, its report) once the background attempt has made its first steps."""
    end = tools.now() + tools.job_s
    while tools.now() < end:
        with reading(access.home) as conn:
            job = query.job(conn, job_id)
            tried = query.attempts(conn, job_id)
        if job.state.terminal:
            ended = Ended(job, tried[-1] if tried else None)
            if job.state is not JobState.SUCCEEDED:
                return failure(access, ended, WHAT)
            text = f"{WHAT}, job {job_id}, had ended before its connections could be closed"
            return RungResult(False, text, f"lab lane admit {access.name}", ended.evidence)
        if job.state is JobState.RUNNING and tried:
            try:
                report = _report(access, job_id, tried[-1].n)
            except LinkDown:
                report = None
            except (LinkRefused, RemoteError) as error:
                return RungResult(False, f"the lane cannot be asked about job {job_id}: {error}", "", {"job": job_id})
            if report is not None and report["phase"] == "running" and (report["step"] or 0) >= 1 and report["pid"]:
                return tried[-1].n, report
        tools.sleep(tools.poll_s)
    text = f"{WHAT}, job {job_id}, did not begin within {tools.job_s / 3600:g} h"
    return RungResult(False, text, f"see `lab explain {job_id}`", {"job": job_id})


def _after(access: Access, tools: Tools, job_id: int, n: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(hello, report) as soon as the lane answers again. Raises LinkDown, LinkRefused, RemoteError."""
    end = tools.now() + tools.back_s
    access.knock()
    while True:
        try:
            hello = access.call("hello", timeout_s=60)
            return hello, _report(access, job_id, n) or _harvested(access, job_id, n)
        except LinkDown:
            if tools.now() > end:
                raise
        tools.sleep(tools.poll_s)


def _harvested(access: Access, job_id: int, n: int) -> dict[str, Any] | None:
    """The same of an attempt that ended well and was forgotten by its agent, because all of it is here already."""
    with reading(access.home) as conn:
        job = query.job(conn, job_id)
    if job.state is not JobState.SUCCEEDED:
        return None
    lines = access.home.run_dir(job_id, n).metrics.read_text(errors="replace").splitlines()
    made = steps(lines)
    return {
        "phase": "ended", "outcome": {"cause": "ok"}, "pid": None, "step": made[-1][0] if made else None,
        "metrics": lines,
    }  # fmt: skip


def _report(access: Access, job_id: int, n: int) -> dict[str, Any] | None:
    """What the lane's agent says of one attempt, with all of its step rows."""
    frame = access.call("poll", {}, 0.0, timeout_s=60)
    return next((dict(r) for r in frame["reports"] if r["job"] == job_id and r["attempt"] == n), None)
