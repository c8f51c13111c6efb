"""`lab rerun`: jobs once more, as they were: same spec, same code as then, same parameters.

Those that are run again together keep what they waited for among themselves, and take files of the new ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.digests import Digests
from core.errors import BadInput
from core.graph import order
from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.query import Job
from core.made import makers
from core.spec import InputFile
from core.states import Cond, EventKind, JobState
from lab.answers import answer_in_cache
from lab.named import ancestors, descendants, study_of
from lab.recording import Draft, Submitted, record
from lab.resident import Lanes
from lab.sweepagain import sweep_again

_LIVE = (JobState.RUNNING, JobState.QUEUED, JobState.HELD)
_NOT_BEGUN = (JobState.QUEUED, JobState.HELD)


def rerun(home: Home, job_ids: Sequence[int], *, force: bool = False, failed: bool = False) -> list[Submitted]:
    """Submit the same jobs again: same spec, same code as then, same parameters; `rerun_of` names the earlier one.

    A sweep becomes one new sweep. Without `force` an answer that is there already is given, as by any submit.

    Args:
        failed: of a sweep by itself only the cells that failed. Of jobs, such as those of a study: they and what they
            waited for, as far as that did not succeed, and all that waited for those. Of these, what has not begun yet
            is cancelled: the new one takes its place, and the old one would only run without what failed.

    Returns:
        One answer for each job, in their order; with `failed` of jobs, one for each that runs again.

    Raises:
        NotFound: an unknown id.
        BadInput: the code of then is no longer in the store, an input is no longer what it was, or nothing failed.
    """
    with Journal.open(home, Role.CLIENT) as journal, Digests(home.digests) as digests:
        jobs = {i: query.job(journal.conn, i) for i in job_ids}
        # A sweep of a study is one of its nodes: others wait for all of its cells.
        parts = [i for i, job in jobs.items() if failed and job.is_sweep and not study_of(journal.conn, i)]
        if failed:
            nodes = [job for i, job in jobs.items() if i not in parts]
            jobs = {i: jobs[i] for i in parts} | _failed(journal.conn, nodes)
        again = _Again(home, journal.conn, digests, jobs)
        places = order({i: again.waits(i) for i in jobs})
        drafts = {i: replace(again.draft(i, failed=i in parts), force=force, rerun_of=i) for i in places}
        found = dict(zip(places, record(journal, [drafts[i] for i in places]), strict=True))
        if failed:
            _cancel_waiting(journal, [i for i in places if i not in parts and found[i].answer == "new"])
        return [found[i] for i in jobs]


def _cancel_waiting(journal: Journal, replaced: Sequence[int]) -> None:
    """Ask for the end of those that have not begun. What runs already is left alone, and so is what ended."""
    with journal.transaction() as tx:
        waiting = [job for i in replaced if (job := query.job(tx.conn, i)).state in _NOT_BEGUN and job.wish != "cancel"]
        tx.extend(Event(EventKind.CANCEL_ASKED, job=job.id, data={"by": "lab rerun --failed"}) for job in waiting)


def _failed(conn: sqlite3.Connection, named: Sequence[Job]) -> dict[int, Job]:
    """Of these jobs and all that they waited for: those that ended and did not succeed, and what waited for those."""
    if not named:
        return {}
    known = {job.id: job for job in named}
    for i in ancestors(conn, known):
        known.setdefault(i, query.job(conn, i))
    bad = {i for i, job in known.items() if _lost(job)}
    if not bad:
        if len(named) == 1:
            job = named[0]
            said = f"job {job.id} has not failed ({job.state}), nor has any that it waited for"
        else:
            said = f"none of these {len(named):,} jobs has failed, nor has any that they waited for"
        raise BadInput(said, hint="leave --failed out to run it again")
    todo = bad | descendants(conn, bad)
    while True:
        # One that must have succeeded, and did not, would keep the new ones from running.
        known |= {i: query.job(conn, i) for i in todo if i not in known}
        lost = {u.id for i in todo for c, u in query.dependencies(conn, i) if c is Cond.OK and _lost(u)} - todo
        if not lost:
            return {i: known[i] for i in sorted(todo)}
        todo |= lost | descendants(conn, lost)


def _lost(job: Job) -> bool:
    return job.state.terminal and job.state is not JobState.SUCCEEDED


class _Again:
    """The drafts of jobs that run again together."""

    def __init__(self, home: Home, conn: sqlite3.Connection, digests: Digests, jobs: Mapping[int, Job]) -> None:
        self._home, self._conn, self._digests, self._jobs = home, conn, digests, jobs
        self._lanes = Lanes(home)
        self._by_key = {job.key: job.id for job in jobs.values() if not job.is_sweep}
        self._makers = {i: makers(conn, i) for i in jobs}
        self._deps = {i: query.dependencies(conn, i) for i in jobs}

    def waits(self, job_id: int) -> list[int]:
        """Jobs that run again too, and that this one waits for."""
        made = [self._by_key[m["made"]["key"]] for m in self._makers[job_id] if m["made"]["key"] in self._by_key]
        return [*made, *(u.id for _, u in self._deps[job_id] if u.id in self._jobs)]

    def draft(self, job_id: int, *, failed: bool) -> Draft:
        job = self._jobs[job_id]
        spec = query.spec_of(self._conn, job.spec)
        if spec["needs"].get("admission"):
            lane = spec["needs"]["lane"]
            raise BadInput(f"job {job.id} is a step of the ladder of lane {lane}", hint=f"lab lane admit {lane}")
        _refuse_changed(self._home, job, spec, self._digests, self._lanes)
        if job.is_sweep:
            draft = sweep_again(self._conn, job, spec, failed=failed)
            for other in draft.specs.values():
                _refuse_changed(self._home, job, other, self._digests, self._lanes)
        else:
            draft = _as_it_was(job, spec)
        after: dict[int | str, Cond] = {}
        takes: list[str | int] = []
        for made in self._makers[job_id]:
            maker = self._maker(job, made)
            if maker is not None:
                takes.append(maker)
                _add(after, maker, Cond.ANY if made["made"]["optional"] else Cond.OK)
        for cond, waited in self._deps[job_id]:
            if waited.id in self._jobs:
                _add(after, _label(waited.id), cond)
        return replace(
            draft,
            after=tuple((cond, what) for what, cond in after.items()),
            takes=tuple(takes),
            label=_label(job_id),
            study=study_of(self._conn, job_id),
        )

    def _maker(self, job: Job, item: dict[str, Any]) -> int | str | None:
        """The job whose files it takes now; None: it may be absent, and is.

        Raises:
            BadInput: no job that makes them is there, or under way.
        """
        key, name = item["made"]["key"], item["name"]
        if key in self._by_key:
            return _label(self._by_key[key])
        there, why = answer_in_cache(self._home, self._conn, key)
        if there is not None:
            return there.id
        live = [j for j in query.jobs(self._conn, states=_LIVE, key=key) if j.wish != "cancel"]
        if live:
            return live[0].id
        if item["made"]["optional"]:
            return None
        was = [u.id for _, u in self._deps[job.id] if u.key == key]
        raise BadInput(
            f"the input {name!r} of job {job.id} is made by another job, which is not there any more"
            + (f" ({why})" if why else ""),
            hint=f"run it again too: `lab rerun {was[0]} {job.id}`" if was else "submit it anew, with what makes it",
        )


def _add(after: dict[int | str, Cond], what: int | str, cond: Cond) -> None:
    after[what] = Cond.OK if Cond.OK in (cond, after.get(what)) else cond


def _label(job_id: int) -> str:
    return f"job {job_id}"


def _as_it_was(job: Job, spec: dict[str, Any]) -> Draft:
    return Draft(
        kind=job.kind,
        name=job.name,
        params=job.params,
        key=job.key,
        spec_digest=job.spec,
        spec=spec,
        priority=job.priority,
        tags=job.tags,
        note=job.note,
        pooled=job.pooled,
    )


def _now(item: InputFile, digests: Digests, lanes: Lanes) -> str:
    """The digest of an input as it is now, here or on its lane."""
    return str(lanes.look(item.lane, item.path)["sha256"]) if item.lane else digests.of(Path(item.path)).sha256


def _refuse_changed(home: Home, job: Job, spec: Mapping[str, Any], digests: Digests, lanes: Lanes) -> None:
    for ref in (spec["code"], spec["kind_code"]):
        if ref is not None and not (home.code / ref["store"]).is_dir():
            raise BadInput(
                f"the code that job {job.id} ran is no longer stored", hint="submit it anew, with the code of now"
            )
    for item in _declared(spec["inputs"]):
        try:
            now = _now(item, digests, lanes)
        except OSError as error:
            raise BadInput(
                f"the input {item.name!r} of job {job.id} cannot be read ({item.path}: {error.strerror})",
                hint="put it back",
            ) from error
        if now != item.sha256:
            raise BadInput(
                f"the input {item.name!r} ({item.path}) is no longer what it was for job {job.id}",
                hint="submit it anew to use the new one",
            )


def _declared(inputs: Iterable[dict[str, Any]]) -> list[InputFile]:
    """Those that no other job makes."""
    return [item for item in (InputFile(**i) for i in inputs) if item.made is None]
