"""How jobs look: as rows of a table, as a card, as JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.journal.query import Attempt, Job, Part
from core.live import LiveAttempt
from core.states import Cause, JobState
from lab.folded import Folded
from lab.output import human
from lab.output.page import Page
from lab.output.table import Column, fold, lay_out, shorten

# A heartbeat older than this is worth a word (it moves twice a second).
_SILENT_S = 10.0

_COLUMNS = (
    Column("ID", right=True),
    Column("JOB", shrink=True),
    Column("STATE"),
    Column("LANE", shrink=True),
    Column("AGE", right=True),
    Column("TIME", right=True),
    Column("NOTE"),
)

# How many cells of a sweep failed, as the controller words it, and nothing more.
_COUNTED = re.compile(r"(?:(?:, )?[\d,]+(?: of [\d,]+ cells)? (?:failed|(?:was|were) (?:skipped|cancelled)))+")
_WISHES = {"cancel": "cancel asked", "hold": "hold asked", "release": "release asked"}


@dataclass(frozen=True)
class Shown:
    """A job with what is known beside its row.

    Attributes:
        waits: ids of unfinished jobs that it comes after.
        folded: of a sweep: how its cells are.
        away: it runs on a lane that cannot be reached now: what that means.
    """

    job: Job
    live: LiveAttempt | None = None
    waits: Sequence[int] = ()
    folded: Folded | None = None
    away: str = ""


@dataclass(frozen=True)
class Card:
    """All about one job."""

    shown: Shown
    spec: Mapping[str, Any]
    attempts: Sequence[Attempt]
    parts: Sequence[Part]
    after: Sequence[tuple[str, Job]] = ()
    before: Sequence[tuple[str, Job]] = field(default=())


def label(job: Job) -> str:
    """What a job is called in a list: its kind, and its name or parameters."""
    detail = job.name if job.name and job.name != job.kind else ""
    return human.clean(f"{job.kind} {detail or human.params(job.params)}".strip())


def table(page: Page, shown: Sequence[Shown], now: float) -> list[str]:
    rows = []
    for s in shown:
        job = s.job
        rows.append(
            (
                str(job.id),
                shorten(label(job), 60, page),
                page.state(job.state),
                job.lane or "",
                human.age(job.submitted, now),
                human.span(run_time(job, now)),
                note(s),
            )
        )
    return lay_out(page, _COLUMNS, rows)


def run_time(job: Job, now: float) -> float | None:
    """Seconds of its current or last attempt (see `query.with_attempts`), or until now; of a sweep, of the whole.

    None for what waits, if only again.
    """
    begun = job.begun if job.begun is not None else job.started
    if begun is None or job.state in (JobState.QUEUED, JobState.HELD):
        return None
    if job.seconds is not None:
        return job.seconds
    return (job.ended if job.ended is not None else now) - begun


def with_goal(live: LiveAttempt | None, job: Job) -> LiveAttempt | None:
    """What is live, and where it reports no progress of its own: its step, of the last one that is expected."""
    if live is None or live.total or live.step is None or not job.last_step:
        return live
    return replace(live, done=float(live.step), total=float(job.last_step))


def note(s: Shown, *, first: bool = True) -> str:
    """The one thing worth knowing about a job now. `first`: with the first failure of a sweep."""
    job, live = s.job, s.live
    parts = []
    if s.folded is not None:
        from lab.output import sweep

        parts += [sweep.brief(s.folded), sweep.pace(s.folded)]
        if first and s.folded.first is not None:
            parts.append("first: " + sweep.failure(s.folded.first))
    if job.wish:
        parts.append(_WISHES.get(job.wish, job.wish))
    if job.attempts > 1 and not (job.reason or "").startswith("attempt "):
        parts.append(f"attempt {job.attempts}")
    if job.state is JobState.RUNNING:
        parts += progress(live, silent=not s.away)
        parts.append(s.away)
    elif job.state in (JobState.QUEUED, JobState.HELD) and s.waits:
        parts.append("after " + ", ".join(map(str, s.waits[:3])) + (", ..." if len(s.waits) > 3 else ""))
    told = first and s.folded is not None and s.folded.first is not None and job.state is JobState.FAILED
    counted = s.folded is not None and only_counts(job)
    if job.state is not JobState.SUCCEEDED and job.state is not JobState.RUNNING and not told and not counted:
        parts.append(why(job))
    if job.undeclared:
        parts.append("read undeclared files")
    return human.clean("; ".join(p for p in parts if p))


def became(state: JobState) -> str:
    """What is said of a job in this state: `failed`, `was cancelled`, `is queued`."""
    if state in (JobState.SUCCEEDED, JobState.FAILED):
        return str(state)
    return f"was {state}" if state in (JobState.CANCELLED, JobState.SKIPPED) else f"is {state}"


def only_counts(sweep: Job) -> bool:
    """Does its reason say no more than how many cells failed? Where they are counted anyway it is not said again."""
    return _COUNTED.fullmatch(sweep.reason or "") is not None


def why(job: Job) -> str:
    """Cause and reason of a state, without saying a thing twice."""
    reason = "" if job.reason == job.state else job.reason or ""
    if job.cause == job.state:
        return reason
    if (
        not job.cause
        or job.cause in (Cause.ERROR, Cause.CANCELLED, Cause.DEPENDENCY, Cause.MAX_FAILS)
        or job.cause in reason
    ):
        return reason or (job.cause or "")
    return f"{job.cause}: {reason}" if reason and reason != job.cause else job.cause


def away(lane: str, age_s: float | None) -> str:
    """What it means for a running job that its lane is out of reach. `age_s`: since the lane was heard, if known."""
    since = f" for {human.span(age_s)}" if age_s is not None else ""
    return f"{lane} unreachable{since}, it may well run on; `lab lane down {lane}` requeues it"


def progress(live: LiveAttempt | None, *, silent: bool = True) -> list[str]:
    """How far a running attempt is. `silent`: also that nothing was heard of it, where nothing else says so."""
    if live is None:
        return []
    out = []
    if live.total:
        done = live.done or 0.0
        out.append(f"{done:g}/{live.total:g} ({min(100.0, 100 * done / live.total):.0f}%)")
    elif live.step is not None:
        out.append(f"step {live.step}")
    elif live.phase == "starting":
        out.append("setting up")
    if live.note:
        out.append(live.note)
    if silent and live.age_s is not None and live.age_s > _SILENT_S:
        out.append(f"no heartbeat for {human.span(live.age_s)}")
    return out


def totals(page: Page, counts: Mapping[JobState, int], cells: Mapping[JobState, int] | None = None) -> str:
    """`102 jobs: 2 running, 100 succeeded`; with sweeps also how their cells are."""
    said = [_total(counts, "job")] + ([_total(cells, "cell")] if cells else [])
    return page.paint("; ".join(said), "dim")


def _total(counts: Mapping[JobState, int], word: str) -> str:
    parts = [f"{counts[s]:,} {s}" for s in JobState if counts.get(s)]
    return f"{human.count(sum(counts.values()), word)}: {', '.join(parts)}"


def card(page: Page, c: Card, now: float | None = None) -> list[str]:
    """Everything about one job, for people."""
    now = time.time() if now is None else now
    job = c.shown.job
    taken = human.span(run_time(job, now))
    head = f"{page.paint(str(job.id), 'head')}  {page.paint(label(job), 'head')}  {page.state(job.state)}"
    lines = [head + (f"  {taken}" if taken else "")]
    lines += said(page, note(c.shown))
    lines += ["", *facts(page, _facts(c, now))]
    if c.attempts:
        lines += ["", *_attempts(page, c, now)]
    if c.parts:
        lines += ["", page.paint("tables", "dim")]
        lines += [f"    {p.table}  {_held(p)}" for p in c.parts]
    return lines


def said(page: Page, text: str) -> list[str]:
    """A note below the head of a card."""
    return ["    " + line for line in fold(text, (page.width or 10_000) - 4, page, 6)] if text else []


def facts(page: Page, given: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of `name  text`, folded."""
    shown = [(human.clean(name), text) for name, text in given if text]
    # Most names are short; an axis of a sweep has whatever name its parameter has.
    wide = min(max([10, *(len(name) for name, _ in shown)]), 24)
    room = (page.width or 10_000) - wide - 6
    out = []
    for name, text in shown:
        first, *rest = fold(human.clean(text), room, page, 4)
        out.append(f"    {page.paint(name[:wide].ljust(wide), 'dim')}  {first}")
        out += [" " * (wide + 6) + line for line in rest]
    return out


def when_and_what(job: Job, now: float) -> list[tuple[str, str]]:
    out = [("submitted", f"{human.when(job.submitted)} ({human.age(job.submitted, now)} ago)")]
    if job.params:
        out.append(("parameters", human.params(job.params)))
    return out


def of_spec(job: Job, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Key, needs, limits, inputs, code."""
    needs, limits = spec.get("needs") or {}, spec.get("limits") or {}
    out: list[tuple[str, str]] = [("key", job.key[:16]), ("needs", _needs(needs))]
    if limits.get("time_s"):
        out.append(("time limit", human.span(limits["time_s"])))
    if spec.get("inputs"):
        out.append(("inputs", ", ".join(f"{i['name']} ({_whence(i)})" for i in spec["inputs"])))
    code = spec.get("code")
    if code:
        edited = " (edited since its commit)" if code.get("dirty") else ""
        out.append(("code", f"{code['digest'][:12]} from {code['root']}{edited}"))
    return out


def _whence(item: Mapping[str, Any]) -> str:
    """What an input is: its digest, or which job makes it."""
    if not (made := item.get("made")):
        return str(item["sha256"][:8])
    whose = f"{made['file'] or 'all files'} of {made['label'] or made['key'][:8]}"
    return f"{whose}, if that succeeds" if made["optional"] else whose


def relations(job: Job, after: Sequence[tuple[str, Job]], before: Sequence[tuple[str, Job]]) -> list[tuple[str, str]]:
    """What it has to do with other jobs, and what the user said of it."""
    out: list[tuple[str, str]] = []
    if job.priority:
        out.append(("priority", str(job.priority)))
    if after:
        out.append(("after", ", ".join(f"{cond}:{j.id} ({j.state})" for cond, j in after)))
    if before:
        out.append(("before", ", ".join(f"{j.id} ({j.state})" for _cond, j in before[:8])))
    if job.rerun_of:
        out.append(("rerun of", str(job.rerun_of)))
    if job.tags:
        out.append(("tags", ", ".join(job.tags)))
    if job.note:
        out.append(("note", job.note))
    return out


def _facts(c: Card, now: float) -> list[tuple[str, str]]:
    job = c.shown.job
    of = [("sweep", f"{job.sweep}, cell {job.sweep}.{job.id - job.sweep}")] if job.sweep is not None else []
    return [*when_and_what(job, now), *of, *of_spec(job, c.spec), *relations(job, c.after, c.before)]


def _held(part: Part) -> str:
    if part.first == part.last:
        return f"{human.count(part.rows, 'row')}  {human.size(part.bytes)}"
    return "in a part with those of other jobs"


def _needs(needs: Mapping[str, Any]) -> str:
    parts = [human.count(int(needs.get("cores") or 1), "core")]
    if needs.get("memory_mb"):
        parts.append(human.size(needs["memory_mb"] * 1048576))
    if needs.get("gpus"):
        parts.append(human.count(int(needs["gpus"]), "GPU"))
    parts += [str(r) for r in needs.get("resources") or ()]
    if needs.get("lane"):
        parts.append(f"lane {needs['lane']}")
    if needs.get("role") and needs["role"] != "eval":
        parts.append(f"role {needs['role']}")
    return ", ".join(parts)


def _attempts(page: Page, c: Card, now: float) -> list[str]:
    columns = (
        Column("ATTEMPT", right=True),
        Column("STATE"),
        Column("LANE"),
        Column("TIME", right=True),
        Column("NOTE"),
    )
    rows = []
    for a in c.attempts:
        begun = a.started if a.started is not None else a.placed
        seconds = a.seconds if a.seconds is not None else (a.ended or now) - begun
        said = a.message or (a.cause if a.cause and a.cause != Cause.OK else "")
        rows.append((str(a.n), page.state(a.state), a.lane, human.span(seconds), human.clean(said or "")))
    return ["    " + line for line in lay_out(page.narrower(4), columns, rows)]


# JSON.


def job_json(s: Shown) -> dict[str, Any]:
    job, live = s.job, s.live
    body: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "params": job.params,
        "key": job.key,
        "state": str(job.state),
        "cause": job.cause,
        "reason": job.reason,
        "priority": job.priority,
        "attempts": job.attempts,
        "lane": job.lane,
        "wish": job.wish,
        "tags": list(job.tags),
        "note": job.note,
        "submitted": human.iso(job.submitted),
        "started": human.iso(job.started),
        "ended": human.iso(job.ended),
        "undeclared": job.undeclared,
        "rerun_of": job.rerun_of,
        "waits_for": list(s.waits),
        "sweep": job.sweep,
    }
    if s.folded is not None:
        from lab.output import sweep

        body["cells"] = sweep.folded_json(s.folded)
    if live is not None:
        body["live"] = {
            "phase": live.phase,
            "beat_age_s": live.age_s,
            "step": live.step,
            "done": live.done,
            "total": live.total,
            "note": live.note,
            "rss_mb": live.rss_mb,
            "pid": live.pid,
        }
    return body


def attempt_json(a: Attempt) -> dict[str, Any]:
    return {
        "n": a.n,
        "lane": a.lane,
        "state": str(a.state),
        "cause": a.cause,
        "message": a.message,
        "exit_code": a.exit_code,
        "pid": a.pid,
        "seconds": a.seconds,
        "placed": human.iso(a.placed),
        "started": human.iso(a.started),
        "ended": human.iso(a.ended),
        "undeclared": list(a.undeclared),
    }


def card_json(c: Card) -> dict[str, Any]:
    return {
        **job_json(c.shown),
        "spec": dict(c.spec),
        "attempt_list": [attempt_json(a) for a in c.attempts],
        "tables": [
            {"table": p.table, "rows": p.rows, "bytes": p.bytes, "sha256": p.sha256, "path": p.path} for p in c.parts
        ],
        "after": [{"cond": str(cond), "job": j.id, "state": str(j.state)} for cond, j in c.after],
        "before": [{"cond": str(cond), "job": j.id, "state": str(j.state)} for cond, j in c.before],
    }
