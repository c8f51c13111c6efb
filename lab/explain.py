"""`lab explain JOB`: why it waits, where it would go, how it ended, and why no earlier run answered it."""

from __future__ import annotations

import re
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import cluster
from core.digests import Digests
from core.fsio import read_json, walk_files
from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.live import read_lanes
from core.made import made_inputs
from core.spec import Needs, differing_parts, key_parts
from core.states import Cond, EventKind, JobState, LaneState
from lab.answers import answer_in_cache
from lab.capacity import how_to_offer, lane_books
from lab.explainsweep import about_sweep, cells_ahead, why_cell, why_sweep
from lab.folded import cell_name
from lab.output import human
from lab.output.job import became
from lab.plan import where_now
from lab.ranking import Ranked, barred_from, rank_job
from lanes.ledger import LaneBook
from lanes.patience import unreachable_s
from lanes.placement import can_ever
from lanes.start import controller_alive

_INTERPRETER = re.compile(r"(python|pypy|Rscript|julia|perl|ruby|node|bash|sh|zsh|env|uv|time)[0-9.]*")
_LOOK_BACK = 300  # earlier jobs of the kind that are compared
_NAMED = 5
_MOST_INPUTS = 20


@dataclass(frozen=True)
class Explanation:
    """`sentence` says it in one; `details` are further sentences, the most telling first.

    `lanes` are those that there are for what has not ended, the one where it should be done first in front; of a sweep
    for the first of its cells that wait.
    """

    job: int
    state: JobState
    sentence: str
    details: list[str] = field(default_factory=list)
    lane: str | None = None  # where it runs, ran, or would go now
    nearest: int | None = None  # the earlier run that shares most of its key
    lanes: list[Ranked] = field(default_factory=list)


def explain(home: Home, conn: sqlite3.Connection, job_id: int) -> Explanation:
    """Explain one job, sweep or cell. Raises NotFound."""
    job = query.job(conn, job_id)
    spec = query.spec_of(conn, job.spec)
    if job.is_sweep:
        return _sweep(home, conn, job, spec)
    lane = job.lane
    lanes = _ranked(home, conn, job, spec)
    if job.state is JobState.QUEUED:
        sentence, lane = _waiting(home, conn, job, spec, lanes)
    else:
        sentence = _so_far(home, conn, job)
    details: list[str] = []
    if job.undeclared:
        details.append(_undeclared(conn, job))
    details += _attempts(conn, job)
    details += _on_a_lane(spec)
    details += _made(home, conn, job, spec)
    nearest, missed = _missed(home, conn, job, spec)
    return Explanation(job.id, job.state, sentence, details + missed, lane, nearest, lanes)


def why_waits(home: Home, conn: sqlite3.Connection, job: Job) -> str:
    """The sentence of `explain` about a job that waits, or about the first cell of a sweep of which none runs.

    Empty where nothing waits.
    """
    if job.is_sweep:
        if query.cells(conn, job.id, states=(JobState.RUNNING,), limit=1):
            return ""
        job = next(iter(query.cells(conn, job.id, states=(JobState.QUEUED,), limit=1)), job)
    if job.is_sweep or job.state is not JobState.QUEUED:
        return ""
    spec = query.spec_of(conn, job.spec)
    return _waiting(home, conn, job, spec, _ranked(home, conn, job, spec))[0]


def _sweep(home: Home, conn: sqlite3.Connection, job: Job, spec: dict[str, Any]) -> Explanation:
    """A sweep; why its cells run is said of the first of them."""
    details = about_sweep(conn, job)
    nearest: int | None = None
    first = query.jobs(conn, sweep=job.id, limit=1, newest_first=False)
    if first and job.rerun_of is None:
        own = spec if first[0].spec == job.spec else query.spec_of(conn, first[0].spec)
        nearest, missed = _missed(home, conn, first[0], own, before=job.id)
        details += [f"cell {cell_name(first[0])}: {said}" for said in missed]
    waits = query.cells(conn, job.id, states=(JobState.QUEUED, JobState.RUNNING), limit=1)
    lanes = _ranked(home, conn, waits[0], query.spec_of(conn, waits[0].spec)) if waits else []
    return Explanation(job.id, job.state, why_sweep(home, conn, job), details, None, nearest, lanes)


def _ranked(home: Home, conn: sqlite3.Connection, job: Job, spec: dict[str, Any]) -> list[Ranked]:
    if job.state not in (JobState.QUEUED, JobState.HELD):
        return []  # where it runs is settled
    barred = barred_from(read_lanes(home), job.spec) if controller_alive(home) else {}
    return rank_job(conn, lane_books(cluster.load(home.cluster_file), conn), job, spec, barred)


def _on_a_lane(spec: dict[str, Any]) -> list[str]:
    """Inputs that are not sent: why no other lane will do."""
    found = [i for i in spec["inputs"] if i.get("lane")]
    return [f"its input {i['name']} lies on {i['lane']} ({i['path']}): it can only run there" for i in found]


def _made(home: Home, conn: sqlite3.Connection, job: Job, spec: dict[str, Any]) -> list[str]:
    """Inputs that other jobs make: what is waited for, and what was taken or absent."""
    items = made_inputs(spec)
    if not items:
        return []
    deps = {u.key: u for _, u in query.dependencies(conn, job.id)}
    ran = read_json(home.run_dir(job.id, job.attempts).spec, {}) if job.attempts else {}
    taken = {i["name"]: i["made"]["job"] for i in ran.get("inputs") or () if i.get("made")}
    out = []
    for item in items:
        made, maker = item["made"], deps.get(item["made"]["key"])
        what = f"its input {item['name']} is {made['file'] or 'all files'} of "
        who = (
            f"job {maker.id} ({maker.name})"
            if maker is not None
            else made["label"] or f"a job of key {made['key'][:8]}"
        )
        if item["name"] in taken:
            out.append(
                f"{what}{who if maker and maker.id == taken[item['name']] else 'job ' + str(taken[item['name']])}"
            )
        elif job.attempts:
            out.append(f"its input {item['name']} was absent: {who} did not succeed")
        elif maker is not None and _failed(maker):
            out.append(f"{what}{who}, which {became(maker.state)}" + (": absent" if made["optional"] else ""))
        else:
            out.append(what + who + (f", which {became(maker.state)}" if maker is not None else ""))
    if len(out) > _MOST_INPUTS:
        return [*out[:_MOST_INPUTS], f"and {len(out) - _MOST_INPUTS} more inputs that other jobs make"]
    return out


def _so_far(home: Home, conn: sqlite3.Connection, job: Job) -> str:
    tries = f"attempt {job.attempts} on {job.lane}" if job.attempts else "before any attempt"
    if job.state is JobState.HELD:
        return f"job {job.id} is held: it waits until `lab release {job.id}`"
    if job.state is JobState.RUNNING:
        asked = "; it was asked to end" if job.wish == "cancel" else ""
        lost = (
            ""
            if controller_alive(home)
            else "; the controller is down, the attempt goes on and `lab up` takes it up again"
        )
        return f"job {job.id} is running: {tries}{asked}{lost}{_out_of_reach(home, conn, job)}"
    if job.state is JobState.CANCELLING:
        return f"job {job.id} is cancelled and ends: {tries} still has something alive"
    if job.state is JobState.SUCCEEDED:
        took = query.with_attempts(conn, [job])[0].seconds
        return f"job {job.id} succeeded: {tries}" + (f" in {human.span(took)}" if took is not None else "")
    cause = f" ({job.cause})" if job.cause and job.cause not in (job.reason or "") else ""
    return f"job {job.id} {became(job.state)}, {tries}{cause}: {job.reason or 'no reason was recorded'}"


def _out_of_reach(home: Home, conn: sqlite3.Connection, job: Job) -> str:
    """What the state of its lane's link means for a job that runs there."""
    lane = next((x for x in query.lanes(conn) if x.name == job.lane and x.state is LaneState.UNREACHABLE), None)
    if lane is None:
        return ""
    age = read_lanes(home).get(lane.name, {}).get("age_s")
    since = f" for {human.span(age)}" if age is not None else ""
    # Where it is known since when, that nothing was heard is no reason but the same once more.
    why = f" ({lane.reason})" if lane.reason and not (since and lane.reason.startswith("nothing was heard")) else ""
    limit = unreachable_s(query.spec_of(conn, job.spec))
    then = (
        "it waits for the lane, as long as that takes"
        if limit is None
        else (f"it goes back to the queue when that has lasted {human.span(limit)}")
    )
    return f"; {lane.name} is out of reach{since}{why}: what is known of the job is as old, and {then}"


def _waiting(
    home: Home, conn: sqlite3.Connection, job: Job, spec: dict[str, Any], lanes: list[Ranked]
) -> tuple[str, str | None]:
    """Why a queued job is not running, the first reason that holds; and the lane where it would go."""
    name = f"job {job.id}" if job.sweep is None else f"cell {cell_name(job)} (job {job.id})"
    if job.wish == "cancel":
        return f"{name} was asked to end and will be cancelled as soon as the controller looks", None
    if job.wish == "hold":
        return f"{name} was asked to be held and will be as soon as the controller looks", None
    if job.sweep is not None:
        waits_with = why_cell(home, conn, job)
        if waits_with is not None:
            return waits_with, None
    never = [u for c, u in query.dependencies(conn, job.id) if c is Cond.OK and _failed(u)]
    if never:
        return f"{name} will be skipped: it needs job {never[0].id} to succeed, which {became(never[0].state)}", None
    waits = [u for _, u in query.dependencies(conn, job.id) if not u.state.terminal]
    if waits:
        more = f" and {len(waits) - 1} more" if len(waits) > 1 else ""
        made = [i["name"] for i in made_inputs(spec) if i["made"]["key"] == waits[0].key]
        makes = f" and makes its input {' and '.join(made)}" if made else ""
        return f"{name} waits for job {waits[0].id}{more}, which {became(waits[0].state)}{makes}", None
    rest_s = _rests(conn, job)
    if rest_s > 0 and controller_alive(home):
        return f"{name} starts again in {human.span(rest_s)}, after {job.reason}", None
    needs = Needs.model_validate(spec["needs"])
    declared = cluster.load(home.cluster_file)
    books = lane_books(declared, conn)
    able = {n: b for n, b in books.items() if can_ever(needs, b.view()) is None}
    up = {n: b for n, b in able.items() if b.state is LaneState.UP}
    if not controller_alive(home):
        where = next(iter(able), None)
        return f"{name} waits for the controller, which is down; `lab up` starts it" + _then(where), where
    if not able:
        remedy = how_to_offer(declared, books, needs)
        return f"{name} waits for a lane that can take it: {_all_lanes(books, needs)}" + (
            remedy and f"; {remedy}"
        ), None
    if not up:
        reasons = "; ".join(f"{n}: {b.view().why}" for n, b in able.items())
        return f"{name} waits for a lane to come up: {reasons}", None
    lane, why = where_now(up, needs)
    best = next((r for r in lanes if r.can), None)
    first = [j for j in query.queue(conn, limit=10_000) if (-j.priority, j.id) < (-job.priority, job.id)]
    ahead = len(first) + (cells_ahead(conn, job) if job.sweep is not None else 0)
    if lane is None:
        behind = f"; {human.count(ahead, 'job')} before it" if ahead else "; it is the next"
        return f"{name} waits for room: {why}{behind}", best.lane if best is not None else next(iter(up))
    lane = best.lane if best is not None else lane
    if ahead:
        return f"{name} has {human.count(ahead, 'job')} before it (priority, then age); it would go to {lane}", lane
    idle = next((r for r in lanes if r.can and r.free), None)
    if best is not None and idle is not None and not best.free and best.finish_s is not None:
        sooner = (
            f"in about {human.span(best.finish_s)}, and on {idle.lane}, which has room, in {human.span(idle.finish_s)}"
        )
        return f"{name} waits for {best.lane}: there it should be done {sooner}", lane
    return f"{name} is about to start on {lane}", lane


def _rests(conn: sqlite3.Connection, job: Job) -> float:
    """Seconds for which it may not start again yet (both times are of this machine's clock)."""
    if not job.attempts:
        return 0.0
    last = [e for e in query.events(conn, job_id=job.id) if e.kind == EventKind.REQUEUED][-1:]
    return max((e.at + float(e.data.get("wait_s") or 0.0) - time.time() for e in last), default=0.0)


def _failed(job: Job) -> bool:
    return job.state.terminal and job.state is not JobState.SUCCEEDED


def _then(lane: str | None) -> str:
    return f", and it would go to {lane}" if lane else ""


def _all_lanes(books: dict[str, LaneBook], needs: Needs) -> str:
    return "; ".join(f"{n} {can_ever(needs, b.view())}" for n, b in books.items())


def _undeclared(conn: sqlite3.Connection, job: Job) -> str:
    paths: list[str] = []
    for attempt in query.attempts(conn, job.id):
        paths += [p for p in attempt.undeclared if p not in paths]
    named = ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")
    files = f": {named}" if named else ""
    return (
        f"it read files that were not declared{files}; so it never answers the same job again. Declare them with "
        "--input, or accept them with --allow-read PATH"
    )


def _attempts(conn: sqlite3.Connection, job: Job) -> list[str]:
    """How earlier attempts ended: what was retried, and why. How the last one ended a finished job says itself."""
    return [
        f"attempt {a.n} on {a.lane} was {a.state}"
        + (f" ({a.cause})" if a.cause else "")
        + (f": {a.message}" if a.message else "")
        for a in query.attempts(conn, job.id)
        if a.state.terminal and (a.n < job.attempts or not job.state.terminal)
    ]


def _missed(
    home: Home, conn: sqlite3.Connection, job: Job, spec: dict[str, Any], before: int | None = None
) -> tuple[int | None, list[str]]:
    """(the nearest earlier run, why it does not answer this job), part by part of the key.

    Args:
        before: only jobs below this id are earlier; None: below its own, or its sweep's.
    """
    if before is None:  # that the cells of one sweep differ is no news
        before = job.sweep if job.sweep is not None else job.id
    if job.rerun_of is not None:
        return job.rerun_of, [f"it runs job {job.rerun_of} again"]
    answer, why = answer_in_cache(home, conn, job.key, before=before)
    if answer is not None:
        return answer.id, [
            f"job {answer.id} is the same and succeeded: this one was forced, or it was submitted before that"
        ]
    if why:
        return None, [why]
    mine = _compared(spec, job.params)
    specs = {job.spec: spec}
    best: tuple[int, Job, list[str]] | None = None
    rows = conn.execute(
        """SELECT id FROM job_state WHERE kind = ? AND id < ? AND key != ? AND cells IS NULL
           ORDER BY id DESC LIMIT ?""",
        (job.kind, before, job.key, _LOOK_BACK),
    ).fetchall()
    for other in query.jobs(conn, ids=tuple(r[0] for r in rows)) if rows else ():
        if other.spec not in specs:
            specs[other.spec] = query.spec_of(conn, other.spec)
        if _program(other) != _program(job):
            continue
        differs = differing_parts(mine, _compared(specs[other.spec], other.params))
        # Of equally near ones a succeeded one says more, and a newer one more than an older.
        rank = 2 * len(differs) + (other.state is not JobState.SUCCEEDED)
        if best is None or rank < best[0]:
            best = (rank, other, differs)
    if best is None:
        return None, ["it is the first job of its kind here"] if not rows else []
    _, other, differs = best
    if not differs:  # but for what makes each of them another one on purpose
        return None, []
    out = [f"the nearest earlier run is job {other.id} ({other.state}); it differs in {_first(differs)}"]
    out += _changed_files(home, spec, specs[other.spec])
    return other.id, out


def _compared(spec: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The parts of the key that are worth a word: a nonce is there to differ."""
    return key_parts(spec, {name: v for name, v in params.items() if name != "nonce"})


def _program(job: Job) -> list[str]:
    """Which program a job of kind command runs: of an interpreter, what it is given. Empty for another kind."""
    argv = job.params.get("argv") if job.kind == "command" else None
    if not isinstance(argv, list) or not argv:
        return []
    name = Path(str(argv[0])).name
    rest = [str(a) for a in argv[1:] if not str(a).startswith("-")]
    return [name, *(rest[:1] if _INTERPRETER.fullmatch(name) else [])]


def _first(differs: list[str]) -> str:
    more = f" and {len(differs) - _NAMED} more" if len(differs) > _NAMED else ""
    return "; ".join(differs[:_NAMED]) + more


def _changed_files(home: Home, mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Which files of the code differ, when it is the code."""
    out = []
    for part, word in (("code", "the code"), ("kind_code", "lab's own code or the kind's")):
        a, b = mine[part], theirs[part]
        if a and b and a["digest"] != b["digest"]:
            names = changed_between(home, a["store"], b["store"])
            if names:
                more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                out.append(f"in {word} these files differ: {', '.join(names[:_NAMED])}{more}")
    return out


def changed_between(home: Home, store: str, other: str) -> list[str]:
    """Names of files that are not the same in two stored snapshots; empty when one is no longer there."""
    roots = (home.code / store, home.code / other)
    if not all(r.is_dir() for r in roots):
        return []
    with Digests(home.digests) as digests:
        a, b = (_contents(r, digests) for r in roots)
    return sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))


def _contents(root: Path, digests: Digests) -> dict[str, str]:
    out = {}
    for rel in walk_files(root):
        full = root / rel
        if "__pycache__" not in rel.parts:
            out[rel.as_posix()] = f"link:{full.readlink()}" if full.is_symlink() else digests.file(full).sha256
    return out
