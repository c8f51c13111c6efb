"""The rungs that are jobs: submitted like any other, and judged by what they left.

A handler runs on a thread of its own: it reads the journal through a connection of its own, and writes nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import LabError
from core.fsio import read_json
from core.home import Home
from core.journal import Journal, query
from core.journal.query import Attempt, Job
from core.states import AttemptState, JobState
from lanes.admission.words import Access, RungResult, Tools

_LOG_LINES = 12
_LOG_BYTES = 16 << 10

_DETACHED = (
    "does the machine end background processes when a login ends? (systemd: `loginctl enable-linger`; WSL: keep the "
    "distribution running)"
)
# What to do about an end, by its cause; `{job}` and `{lane}` are filled in.
_REMEDIES: Mapping[str, str] = {
    "error": "read `lab logs {job}`, mend it",
    "signal": "read `lab logs {job}`: something on the machine ends programs",
    "time-limit": "find out why it is so slow there",
    "memory": "it took more memory than it was granted: ask for more, or less work",
    "host-memory": "the machine ran out of memory: end what fills it, or set `memory_mb:` lower",
    "disk-full": "free some space on the lane",
    "runner-died": _DETACHED,
    "start-lost": _DETACHED,
    "lane-rebooted": "the machine was restarted in the middle: see why",
    "unreachable": "the lane went out of reach: see to its network",
    "lane-refused": "what the job needs cannot be sent there: see the message",
    "setup": "its interpreter or working folder could not be made ready: `lab lane probe {lane}` looks again",
    "bad-seal": "files came back other than they were sealed: distrust that disk or memory",
    "check-cannot-fail": "the negative control was not caught: no number of this machine can be believed",
    "cancelled": "it was cancelled",
}


@dataclass(frozen=True)
class Ended:
    """How a job of the ladder ended."""

    job: Job
    attempt: Attempt | None
    log: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.job.state is JobState.SUCCEEDED

    @property
    def evidence(self) -> dict[str, Any]:
        told: dict[str, Any] = {"job": self.job.id, "state": str(self.job.state)}
        if self.attempt is not None:
            told["attempt"] = self.attempt.n
            if self.attempt.seconds is not None:
                told["seconds"] = round(self.attempt.seconds, 3)
        if not self.ok:
            told |= {"cause": self.job.cause, "message": self.job.reason, "log": list(self.log)}
        return told


@contextlib.contextmanager
def reading(home: Home) -> Iterator[sqlite3.Connection]:
    """The journal, for a thread that is not the controller's."""
    with Journal.open(home) as journal:
        yield journal.conn


def wait(access: Access, tools: Tools, job_id: int) -> Ended | RungResult:
    """Wait until a job has ended. A refusal when it takes for ever."""
    end = tools.now() + tools.job_s
    while True:
        with reading(access.home) as conn:
            job = query.job(conn, job_id)
            if job.state.terminal:
                tried = query.attempts(conn, job_id)
                attempt = tried[-1] if tried else None
                return Ended(job, attempt, () if job.state is JobState.SUCCEEDED else last_lines(access.home, attempt))
        if tools.now() > end:
            text = f"job {job_id} is still {job.state} after {tools.job_s / 3600:g} h"
            hint = f"see `lab explain {job_id}`, then: lab lane admit {access.name}"
            return RungResult(False, text, hint, {"job": job_id, "state": str(job.state)})
        tools.sleep(tools.poll_s)


def last_lines(home: Home, attempt: Attempt | None) -> tuple[str, ...]:
    """The end of what an attempt printed, as far as it came back."""
    if attempt is None or attempt.batch is not None:
        return ()
    try:
        with home.run_dir(attempt.job, attempt.n).log.open("rb") as f:
            f.seek(max(0, f.seek(0, 2) - _LOG_BYTES))
            text = f.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-_LOG_LINES:])


def failure(access: Access, ended: Ended, what: str) -> RungResult:
    """The refusal that a job which did not succeed means."""
    job = ended.job
    cause = f" ({job.cause})" if job.cause else ""
    reason = f": {job.reason}" if job.reason else ""
    remedy = _REMEDIES.get(job.cause or "", "see `lab explain {job}`").format(job=job.id, lane=access.name)
    hint = f"{remedy}; then: lab lane admit {access.name}"
    return RungResult(False, f"{what}, job {job.id}, {_ended(job.state)}{cause}{reason}", hint, ended.evidence)


def smoke(access: Access, ended: Ended, *, what: str, checkpoint: bool, hostname: str) -> RungResult:
    """Judge the first work done on a lane: it ended well, there, and (for training) left a checkpoint.

    Args:
        what: how it is called in sentences.
        hostname: of the lane, as its agent says.
    """
    if not ended.ok:
        return failure(access, ended, what)
    attempt = ended.attempt
    odd = elsewhere(access, attempt, hostname)
    if odd or attempt is None:
        return RungResult(
            False, f"{what}, job {ended.job.id}, {odd}", "report this: it is a bug of lab", ended.evidence
        )
    run = access.home.run_dir(attempt.job, attempt.n)
    evidence = dict(ended.evidence)
    if checkpoint:
        steps = [p.name for p in run.checkpoints.iterdir() if p.name.isdigit()] if run.checkpoints.is_dir() else []
        files = [p.name for p in run.artifacts.iterdir()] if run.artifacts.is_dir() else []
        own = ended.job.kind == "command"  # a program of the user's has no checkpoints of ours: it keeps a file
        evidence |= {"checkpoints": len(steps), "artifacts": sorted(files)[:20]}
        if not (files if own else steps):
            text = f"{what}, job {ended.job.id}, left no checkpoint" + (" in $LAB_ARTIFACTS" if own else "")
            hint = "have it save one at the end of its first epoch" if own else "see `lab logs`"
            return RungResult(False, text, f"{hint}; then: lab lane admit {access.name}", evidence)
    took = f" in {attempt.seconds:.1f} s" if attempt.seconds is not None else ""
    left = ", with a checkpoint" if checkpoint else ""
    return RungResult(True, f"{what}, job {ended.job.id}, succeeded{took}{left}", evidence=evidence)


def elsewhere(access: Access, attempt: Attempt | None, hostname: str) -> str:
    """How an attempt was not what it should be, or "": it ran on this lane, on the machine that its agent names."""
    if attempt is None or attempt.state is not AttemptState.SUCCEEDED:
        return "was answered without running"
    if attempt.lane != access.name:
        return f"ran on {attempt.lane}, not on {access.name}"
    said = (read_json(access.home.run_dir(attempt.job, attempt.n).env) or {}).get("hostname")
    if hostname and said != hostname:
        return f"ran on a machine called {said}, not {hostname}"
    return ""


def cells(access: Access, ended: Ended) -> RungResult:
    """Judge the pooled cells: all succeeded, and all of them here."""
    if not ended.ok:
        return failure(access, ended, "the sweep of pooled cells")
    with reading(access.home) as conn:
        jobs = query.jobs(conn, sweep=ended.job.id, limit=10_000)
        pooled = sum(query.batch_of(conn, j.id) is not None for j in jobs)
    away = [j for j in jobs if j.lane != access.name]
    if away or not jobs:
        text = f"cell {away[0].id} ran on {away[0].lane}" if away else "the sweep has no cells of its own"
        return RungResult(False, text, "report this: it is a bug of lab", ended.evidence)
    evidence = {**ended.evidence, "cells": len(jobs), "pooled": pooled}
    how = "in warm workers" if pooled else "each by itself"
    return RungResult(True, f"{len(jobs)} cells, sweep {ended.job.id}, succeeded, {how}", evidence=evidence)


def parity(access: Access, ended: Ended, hostname: str) -> RungResult:
    """Judge the kernel parity probe by the rows that it left, not by its exit alone."""
    what = "the kernel parity probe"
    if not ended.ok:
        return failure(access, ended, what)
    odd = elsewhere(access, ended.attempt, hostname)
    if odd:
        return RungResult(
            False, f"{what}, job {ended.job.id}, {odd}", "report this: it is a bug of lab", ended.evidence
        )
    from core.tables import read_table

    notes: list[str] = []
    try:
        with reading(access.home) as conn:
            rows = read_table(access.home, conn, "parity", [ended.job.id], warnings=notes).to_pylist()
    except LabError as error:
        hint = f"lab verify {ended.job.id}; then: lab lane admit {access.name}"
        return RungResult(False, f"{what}, job {ended.job.id}, left no table: {error.message}", hint, ended.evidence)
    if notes:
        return RungResult(False, f"{what}: {notes[0]}", f"lab verify {ended.job.id}", ended.evidence)
    return of_rows(access.name, ended, rows)


def of_rows(lane: str, ended: Ended, rows: Sequence[Mapping[str, Any]]) -> RungResult:
    """The verdict on a parity table. Pure.

    A probe without a single candidate that passed, or without a single known-bad one that was caught for its own
    reason, proves nothing, whatever the job said of itself.
    """
    candidates = [r for r in rows if r["role"] == "candidate"]
    gates = [r for r in rows if r["role"] == "gate"]
    passed = [r for r in candidates if r["verdict"] == "pass"]
    mutants = [r for r in rows if r["role"] == "mutant"]
    caught = [r for r in mutants if r["verdict"] == "fail" and r["own_reason"]]
    evidence = {
        **ended.evidence,
        "backends": sorted({r["candidate"] for r in candidates}),
        "passed": len(passed),
        "cells": len(candidates),
        "mutants": len(mutants),
        "caught": len(caught),
    }
    again = f"see `lab results {ended.job.id}`; then: lab lane admit {lane}"
    if len(caught) < len(mutants) or not mutants:
        slipped = next((r for r in mutants if r not in caught), None)
        named = f" ({slipped['candidate']}: {slipped['reason']})" if slipped else ""
        text = (
            f"the parity probe cannot fail there: {len(caught)} of {len(mutants)} known-bad kernels were caught{named}"
        )
        return RungResult(False, text, again, evidence)
    erring = next((r for r in gates if r["verdict"] != "pass"), None)
    if erring is not None or not gates:
        named = f": {erring['reason']}" if erring else ""
        return RungResult(False, f"the judge of the parity probe makes mistakes there{named}", again, evidence)
    if len(passed) < len(candidates) or not candidates:
        bad = next((r for r in candidates if r["verdict"] != "pass"), None)
        named = f": {bad['candidate']} {bad['verdict']}, {bad['reason']}" if bad else ""
        text = f"{len(passed)} of {len(candidates)} cells of the parity probe passed{named}"
        return RungResult(False, text, again, evidence)
    worst = max((r["max_rel"] for r in passed if r.get("max_rel") is not None), default=None)
    error = f", largest error {worst:.2g}" if worst is not None else ""
    names = ", ".join(evidence["backends"])
    agree = "agrees" if len(evidence["backends"]) == 1 else "agree"
    text = (
        f"{names} {agree} with the float64 oracle in {len(passed)} cells{error}; all {len(caught)} mutants were caught"
    )
    return RungResult(True, text, evidence=evidence)


def _ended(state: JobState) -> str:
    return {JobState.FAILED: "failed", JobState.SKIPPED: "was skipped", JobState.CANCELLED: "was cancelled"}.get(
        state, f"is {state}"
    )
