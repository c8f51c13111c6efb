"""The one transaction of a submit: every answer is found that is there already, and every other job is recorded.

The looks for `--key`, for a finished job of the same key and for one that is under way happen inside the very
transaction that records the rest, so that two submits at the same time cannot both find nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from core.errors import BadInput, NotFound
from core.fsio import canonical
from core.home import Home
from core.journal import Event, Journal, Tx, query
from core.journal.query import Job
from core.spec import differing_parts, key_parts
from core.states import Cond, EventKind, JobState
from lab.answers import Standing
from lab.cache import live_after, look_up
from lab.cells import Cell

Answer = Literal["new", "cached", "queued-already", "same-key"]

_LIVE = (JobState.RUNNING, JobState.QUEUED, JobState.HELD)


@dataclass(frozen=True)
class Submitted:
    """What became of one request.

    Attributes:
        id: the job that answers it, new or old.
        answer: `new`; `cached`: finished before, nothing runs; `queued-already`: the same job is under way;
            `same-key`: --key was used for this very job.
        message: what the user should know beyond that, or "".
        total: of a sweep: its cells, however they are answered; 0: a job.
        cells: those of them that are jobs of this sweep.
        done, live: those that finished jobs, and jobs that are under way, answer.
        lane: where the job that answers ran, or runs.
        study: the study that it is a node of; `notes` are what that has to say, of its first node.
    """

    id: int
    state: JobState
    key: str
    answer: Answer
    name: str = ""
    message: str = ""
    kind: str = ""
    total: int = 0
    cells: int = 0
    done: int = 0
    live: int = 0
    lane: str = ""
    study: str = ""
    notes: tuple[str, ...] = ()

    @property
    def cached(self) -> bool:
        return self.answer == "cached"

    @property
    def is_sweep(self) -> bool:
        return self.total > 0


@dataclass(frozen=True)
class Draft:
    """A job or sweep about to be recorded: all that the journal takes.

    Attributes:
        cells: of a sweep, in the order of its grid; None: a job.
        specs: of cells that have one of their own, by digest.
        takes: jobs whose files it takes: ids, or labels of this submit. They are in `after` too.
        study: the study that it is a node of; of a rerun NAME@ID, as the job has it that it runs again.
    """

    kind: str
    name: str
    params: dict[str, Any]
    key: str
    spec_digest: str
    spec: dict[str, Any]
    after: tuple[tuple[Cond, int | str], ...] = ()
    idem: str | None = None
    priority: int = 0
    tags: tuple[str, ...] = ()
    note: str = ""
    held: bool = False
    force: bool = False
    rerun_of: int | None = None
    pooled: bool = False
    where: str = ""
    label: str = ""
    cells: Sequence[Cell] | None = None
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    axes: Sequence[tuple[str, Sequence[Any]]] = ()
    at_once: int | None = None
    max_fails: int | None = None
    takes: tuple[str | int, ...] = ()
    study: str = ""


def record(journal: Journal, drafts: Sequence[Draft]) -> list[Submitted]:
    """All of `drafts` in one transaction, dependencies first."""
    with journal.transaction() as tx:
        book = _Book(journal.home, tx)
        out = [book.take(draft) for draft in drafts]
        if book.events:
            tx.extend(book.events)
    return out


class _Book:
    """The jobs that one transaction is about to record, and what is known of them before they are in the journal."""

    def __init__(self, home: Home, tx: Tx) -> None:
        self.events: list[Event] = []
        self._home = home
        self._tx = tx
        self._conn = tx.conn
        self._next = tx.next_job_id()
        self._specs: set[str] = set()
        self._keys: dict[str, Submitted] = {}  # jobs and sweeps of this submit
        self._cells: dict[str, int] = {}  # cells of this submit
        self._idems: dict[str, tuple[Submitted, Draft]] = {}
        self._labels: dict[str, Submitted] = {}
        self._standing: Standing = {}
        self._studies: dict[str, str] = {}  # name -> what the jobs of this submit have in common

    def take(self, draft: Draft) -> Submitted:
        try:
            # What it waits for is checked even where the answer is there: a wrong id is a mistake all the same.
            after, never = self._after(draft)
            answer = self._same_idem(draft) if draft.idem is not None else None
            if answer is None and draft.cells is None:
                answer, why = self._answer(draft)
                if answer is None:
                    answer = self._new(draft, after, "; ".join(m for m in (why, never) if m))
            elif answer is None:
                answer = self._sweep(draft, after, never)
        except (BadInput, NotFound) as error:
            if draft.where:
                raise type(error)(f"{draft.where}: {error.message}", hint=error.hint) from None
            raise
        if draft.label:
            self._labels[draft.label] = answer
        return replace(answer, study=draft.study.partition("@")[0]) if draft.study else answer

    def _answer(self, draft: Draft) -> tuple[Submitted | None, str]:
        """The job that answers already, or None and, when one nearly did, why it runs again."""
        if draft.force:
            return None, ""
        twice = "it is twice in this submit"
        if draft.key in self._keys:
            return replace(self._keys[draft.key], answer="queued-already", message=twice), ""
        if draft.key in self._cells:
            job_id = self._cells[draft.key]
            return _said(draft, job_id, JobState.QUEUED, "queued-already", "it is also a cell of this submit"), ""
        found = look_up(self._home, self._conn, [draft.key], standing=self._standing)
        makers = {what: self._maker(what) for what in draft.takes}
        anew = next((what for what, (_, settled) in makers.items() if not settled), None)
        if draft.key in found.done and anew is None:
            job = query.job(self._conn, found.done[draft.key])
            return replace(_of(job, "cached"), message=_elsewhere(draft, job)), ""
        live = found.live.get(draft.key)
        if makers and live is not None:  # one that takes the files of these very jobs
            live = live_after(self._conn, draft.key, {i for i, _ in makers.values()})
        if live is not None:
            job = query.job(self._conn, live)
            return replace(_of(job, "queued-already"), message=self._kept(draft, job)), ""
        why = found.why.get(draft.key, "")
        if draft.key in found.done:
            why = f"job {found.done[draft.key]} is the same but {anew}, whose files it takes, runs again"
        return None, f"{why}: it runs again" if why else ""

    def _maker(self, what: str | int) -> tuple[int, bool]:
        """(the job whose files are taken, whether it has ended already)."""
        if isinstance(what, str):
            answer = self._labels[what]
            return answer.id, answer.answer in ("cached", "same-key") and answer.state.terminal
        return what, query.job(self._conn, what).state.terminal

    def _sweep(self, draft: Draft, after: list[list[str | int]], never: str) -> Submitted:
        """Record a sweep of the cells that no other job answers, unless one sweep answers them all."""
        assert draft.cells is not None
        total = len(draft.cells)
        if draft.force:
            return self._new(draft, after, never, cells=draft.cells)
        if draft.key in self._keys:
            twice = "it is twice in this submit"
            return replace(self._keys[draft.key], answer="queued-already", message=twice)
        earlier = [j for j in query.jobs(self._conn, key=draft.key) if j.is_sweep and j.wish != "cancel"]
        for sweep in earlier:
            if sweep.state in _LIVE:
                return replace(_of(sweep, "queued-already"), total=total, message=self._kept(draft, sweep))
        found = look_up(self._home, self._conn, [c.key for c in draft.cells], sure=True)
        new, members = [], []
        for cell in draft.cells:
            job_id = found.get(cell.key) or self._cells.get(cell.key) or self._id_here(cell.key)
            if job_id is None:
                new.append(cell)
            else:
                members.append(job_id)
        done = len(found.done)
        if done == total:
            for sweep in earlier:
                if sweep.state is JobState.SUCCEEDED:
                    return replace(_of(sweep, "cached"), total=total, done=total)
        return self._new(
            draft,
            after,
            "; ".join(m for m in (_again(found.why), never) if m),
            cells=new,
            members=members,
            done=done,
        )

    def _kept(self, draft: Draft, job: Job) -> str:
        """What was asked for otherwise now than when the job that answers was submitted: it goes on as it was."""
        pairs: list[tuple[str, Any, Any]] = [("--priority", draft.priority, job.priority)]
        if job.is_sweep:
            sweep = query.sweep(self._conn, job.id)
            pairs += [("--at-once", draft.at_once, sweep.at_once), ("--max-fails", draft.max_fails, sweep.max_fails)]
        was = [f"{name} {'none' if there is None else there}" for name, now, there in pairs if now != there]
        return f"it goes on as it was submitted first, with {', '.join(was)}" if was else ""

    def _id_here(self, key: str) -> int | None:
        twin = self._keys.get(key)
        return twin.id if twin is not None else None

    def _same_idem(self, draft: Draft) -> Submitted | None:
        hint = "choose another --key, or submit the very same job"
        assert draft.idem is not None
        if draft.idem in self._idems:
            answer, twin = self._idems[draft.idem]
            if twin.key != draft.key:
                raise BadInput(f"--key {draft.idem!r} names two different jobs of this submit", hint=hint)
            return replace(answer, answer="same-key")
        row = self._conn.execute("SELECT id FROM job_state WHERE idem = ?", (draft.idem,)).fetchone()
        if row is None:
            return None
        job = query.job(self._conn, row[0])
        what = "sweep" if job.is_sweep else "job"
        if job.key != draft.key:
            raise BadInput(
                f"--key {draft.idem!r} belongs to {what} {job.id}, which is a different {what}"
                + self._difference(draft, job),
                hint=hint,
            )
        if draft.force:
            raise BadInput(
                f"--key {draft.idem!r} belongs to {what} {job.id}", hint="to run it again, use `lab rerun --force`"
            )
        return replace(_of(job, "same-key"), total=len(draft.cells or ()))

    def _difference(self, draft: Draft, job: Job) -> str:
        if job.is_sweep or draft.cells is not None:
            if not job.is_sweep or draft.cells is None:
                return ""
            there = query.sweep(self._conn, job.id).total
            return f" ({len(draft.cells):,} cells here, {there:,} there)" if there != len(draft.cells) else ""
        there_parts = key_parts(query.spec_of(self._conn, job.spec), job.params)
        differs = differing_parts(key_parts(draft.spec, draft.params), there_parts)
        return f" ({differs[0]})" if differs else ""

    def _new(
        self,
        draft: Draft,
        after: list[list[str | int]],
        message: str,
        *,
        cells: Sequence[Cell] | None = None,
        members: Sequence[int] = (),
        done: int = 0,
    ) -> Submitted:
        job_id = self._next
        self._next += 1 + len(cells or ())
        self._spec(draft.spec_digest, draft.spec)
        data: dict[str, Any] = {
            "spec": draft.spec_digest,
            "kind": draft.kind,
            "name": draft.name,
            "params": draft.params,
            "key": draft.key,
            "priority": draft.priority,
            "idem": draft.idem,
            "tags": list(draft.tags),
            "note": draft.note,
            "held": draft.held,
            "rerun_of": draft.rerun_of,
            "after": after,
        }
        if draft.study:
            word = draft.study if "@" in draft.study else f"{draft.study}@{job_id}"
            data["study"] = self._studies.setdefault(draft.study, word)
        state = JobState.HELD if draft.held else JobState.QUEUED
        answer = _said(draft, job_id, state, "new", message)
        if cells is None:
            if draft.pooled:
                data["pooled"] = 1
            self.events.append(Event(EventKind.SUBMITTED, job=job_id, data=data))
        else:
            for name, spec in draft.specs.items():
                self._spec(name, spec)
            self._tx.add_cells(
                (job_id + i, job_id, c.key, c.name, c.params, c.spec) for i, c in enumerate(cells, start=1)
            )
            for i, cell in enumerate(cells, start=1):
                self._cells.setdefault(cell.key, job_id + i)
            data |= {
                "cells": len(cells),
                "pooled": int(draft.pooled),
                "at_once": draft.at_once,
                "max_fails": draft.max_fails,
                "axes": [[name, list(values)] for name, values in draft.axes],
                # A job may answer two cells of different spelling only once.
                "members": sorted(set(members)),
            }
            self.events.append(Event(EventKind.SWEPT, job=job_id, data=data))
            total, live = len(cells) + len(members), len(members) - done
            answer = replace(answer, total=total, cells=len(cells), done=done, live=live)
        self._keys.setdefault(draft.key, answer)
        if draft.idem is not None:
            self._idems[draft.idem] = (answer, draft)
        return answer

    def _spec(self, name: str, spec: dict[str, Any]) -> None:
        if name in self._specs:
            return
        self._specs.add(name)
        if self._conn.execute("SELECT 1 FROM spec WHERE digest = ?", (name,)).fetchone() is None:
            self.events.append(Event(EventKind.SPEC, data={"digest": name, "data": canonical(spec).decode()}))

    def _after(self, draft: Draft) -> tuple[list[list[str | int]], str]:
        """The dependencies by id, and a word of warning when one of them can never be fulfilled."""
        out: dict[int, Cond] = {}
        never = ""
        for cond, what in draft.after:
            if isinstance(what, str):
                if what not in self._labels:
                    raise BadInput(
                        f"`after` names {what!r}, which is neither a job id nor a job of this submit", hint="correct it"
                    )
                job_id = self._labels[what].id
            else:
                job_id = what
                job = query.job(self._conn, job_id)  # NotFound: says which ids there are
                if cond is Cond.OK and job.state.terminal and job.state is not JobState.SUCCEEDED:
                    never = f"job {job_id}, which must succeed first, has {job.state} already: this one will be skipped"
            # `ok` asks for more than `any`.
            out[job_id] = Cond.OK if Cond.OK in (cond, out.get(job_id)) else cond
        return [[str(cond), job_id] for job_id, cond in out.items()], never


def _of(job: Job, answer: Answer) -> Submitted:
    return Submitted(
        job.id, job.state, job.key, answer, job.name, kind=job.kind, cells=job.cells or 0, lane=job.lane or ""
    )


def _elsewhere(draft: Draft, job: Job) -> str:
    """What to do where one lane was asked for and the answer comes from another."""
    lane = (draft.spec.get("needs") or {}).get("lane")
    return f"--force runs it on {lane}" if lane and job.lane and lane != job.lane else ""


def _said(draft: Draft, job_id: int, state: JobState, answer: Answer, message: str) -> Submitted:
    return Submitted(job_id, state, draft.key, answer, draft.name, message, kind=draft.kind)


def _again(why: dict[str, str]) -> str:
    """Cells whose answer nearly was there."""
    if not why:
        return ""
    first = next(iter(why.values()))
    return f"{len(why):,} cells run again, for {first}" if len(why) > 1 else f"{first}: that cell runs again"
