"""Submitting: one transaction in which every answer is found that is there already, and every other job is recorded.

The looks for `--key`, for a finished job of the same key and for one that is under way happen inside the very
transaction that records the rest, so that two submits at the same time cannot both find nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.digests import Digests
from core.errors import BadInput, NotFound
from core.home import Home
from core.journal import Event, Journal, Role, Tx, query
from core.journal.query import Job
from core.spec import InputFile, differing_parts, key_parts
from core.states import Cond, EventKind, JobState
from lab.answers import answer_in_cache
from lab.ordering import in_order
from lab.plan import Planned, plan
from lab.planning import Prepared, Preparer, Request, prepare, store_code

__all__ = [
    "Planned",
    "Prepared",
    "Request",
    "Submitted",
    "answer_in_cache",
    "plan",
    "prepare",
    "rerun",
    "submit",
]

Answer = Literal["new", "cached", "queued-already", "same-key"]


@dataclass(frozen=True)
class Submitted:
    """What became of one request.

    Attributes:
        id: the job that answers it, new or old.
        answer: `new`; `cached`: finished before, nothing runs; `queued-already`: the same job is under way;
            `same-key`: --key was used for this very job.
        message: what the user should know beyond that, or "".
    """

    id: int
    state: JobState
    key: str
    answer: Answer
    name: str = ""
    message: str = ""

    @property
    def cached(self) -> bool:
        return self.answer == "cached"


@dataclass(frozen=True)
class _Draft:
    """A job about to be recorded: all that the journal takes."""

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
    where: str = ""
    label: str = ""


def submit(home: Home, requests: Sequence[Request], *, cwd: Path) -> list[Submitted]:
    """Record `requests` in one transaction, or none of them. Starts nothing: that is the controller's.

    Returns:
        One answer for each request, in their order. When this returns, the jobs are on disk.

    Raises:
        LabError: something asked for cannot be; then nothing was recorded.
    """
    existing = Journal.open(home, Role.CLIENT) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, existing) as preparer:
            checked = [preparer.prepare(r) for r in requests]
            places = in_order(checked)
            # Only now is anything written: a refused submit leaves no trace, not even a home.
            journal = existing if existing is not None else Journal.open(home, Role.CLIENT, create=True)
            existing = journal
            prepared = store_code(preparer, requests, checked)
        drafts = [_draft(p) for p in prepared]
        answers = _record(journal, [drafts[i] for i in places])
        by_place = dict(zip(places, answers, strict=True))
        return [_with_notes(by_place[i], prepared[i]) for i in range(len(prepared))]
    finally:
        if existing is not None:
            existing.close()


def rerun(home: Home, job_ids: Sequence[int], *, force: bool = False) -> list[Submitted]:
    """Submit the same jobs again: same spec, same code as then, same parameters; `rerun_of` names the earlier one.

    Without `force` an answer that is there already is given, as by any submit.

    Raises:
        NotFound: an unknown id.
        BadInput: the code of then is no longer in the store, or an input is no longer what it was.
    """
    with Journal.open(home, Role.CLIENT) as journal, Digests(home.digests) as digests:
        drafts = []
        for job_id in job_ids:
            job = query.job(journal.conn, job_id)
            spec = query.spec_of(journal.conn, job.spec)
            _refuse_changed(home, job, spec, digests)
            drafts.append(
                _Draft(
                    kind=job.kind,
                    name=job.name,
                    params=job.params,
                    key=job.key,
                    spec_digest=job.spec,
                    spec=spec,
                    priority=job.priority,
                    tags=job.tags,
                    note=job.note,
                    force=force,
                    rerun_of=job.id,
                )
            )
        return _record(journal, drafts)


def _record(journal: Journal, drafts: Sequence[_Draft]) -> list[Submitted]:
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
        self._conn = tx.conn
        self._next = tx.next_job_id()
        self._specs: set[str] = set()
        self._keys: dict[str, Submitted] = {}
        self._idems: dict[str, tuple[Submitted, _Draft]] = {}
        self._labels: dict[str, int] = {}

    def take(self, draft: _Draft) -> Submitted:
        try:
            # What it waits for is checked even where the answer is there: a wrong id is a mistake all the same.
            after, never = self._after(draft)
            answer, why = self._answer(draft)
            if answer is None:
                answer = self._new(draft, after, "; ".join(m for m in (why, never) if m))
        except (BadInput, NotFound) as error:
            if draft.where:
                raise type(error)(f"{draft.where}: {error.message}", hint=error.hint) from None
            raise
        if draft.label:
            self._labels[draft.label] = answer.id
        return answer

    def _answer(self, draft: _Draft) -> tuple[Submitted | None, str]:
        """The job that answers already, or None and, when one nearly did, why it runs again."""
        if draft.idem is not None:
            earlier = self._same_idem(draft)
            if earlier is not None:
                return earlier, ""
        if draft.force:
            return None, ""
        if draft.key in self._keys:
            return replace(self._keys[draft.key], answer="queued-already", message="it is twice in this submit"), ""
        job, why = answer_in_cache(self._home, self._conn, draft.key)
        if job is not None:
            return Submitted(job.id, job.state, job.key, "cached", job.name), ""
        live = query.jobs(
            self._conn, states=(JobState.RUNNING, JobState.QUEUED, JobState.HELD), key=draft.key, newest_first=False
        )
        for job in live:
            if job.wish != "cancel":
                return Submitted(job.id, job.state, job.key, "queued-already", job.name), ""
        return None, f"{why}: it runs again" if why else ""

    def _same_idem(self, draft: _Draft) -> Submitted | None:
        hint = "choose another --key, or submit the very same job"
        if draft.idem in self._idems:
            answer, twin = self._idems[draft.idem]
            if twin.key != draft.key:
                raise BadInput(f"--key {draft.idem!r} names two different jobs of this submit", hint=hint)
            return replace(answer, answer="same-key")
        row = self._conn.execute("SELECT id FROM job WHERE idem = ?", (draft.idem,)).fetchone()
        if row is None:
            return None
        job = query.job(self._conn, row[0])
        if job.key != draft.key:
            there = key_parts(query.spec_of(self._conn, job.spec), job.params)
            differs = differing_parts(key_parts(draft.spec, draft.params), there)
            raise BadInput(
                f"--key {draft.idem!r} belongs to job {job.id}, which is a different job"
                + (f" ({differs[0]})" if differs else ""),
                hint=hint,
            )
        if draft.force:
            raise BadInput(
                f"--key {draft.idem!r} belongs to job {job.id}", hint="to run it again, use `lab rerun --force`"
            )
        return Submitted(job.id, job.state, job.key, "same-key", job.name)

    def _new(self, draft: _Draft, after: list[list[str | int]], message: str) -> Submitted:
        job_id, self._next = self._next, self._next + 1
        if draft.spec_digest not in self._specs:
            self._specs.add(draft.spec_digest)
            known = self._conn.execute("SELECT 1 FROM spec WHERE digest = ?", (draft.spec_digest,)).fetchone()
            if known is None:
                from core.fsio import canonical

                text = canonical(draft.spec).decode()
                self.events.append(Event(EventKind.SPEC, data={"digest": draft.spec_digest, "data": text}))
        self.events.append(
            Event(
                EventKind.SUBMITTED,
                job=job_id,
                data={
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
                },
            )
        )
        state = JobState.HELD if draft.held else JobState.QUEUED
        answer = Submitted(job_id, state, draft.key, "new", draft.name, message)
        self._keys.setdefault(draft.key, answer)
        if draft.idem is not None:
            self._idems[draft.idem] = (answer, draft)
        return answer

    def _after(self, draft: _Draft) -> tuple[list[list[str | int]], str]:
        """The dependencies by id, and a word of warning when one of them can never be fulfilled."""
        out: dict[int, Cond] = {}
        never = ""
        for cond, what in draft.after:
            if isinstance(what, str):
                if what not in self._labels:
                    raise BadInput(
                        f"`after` names {what!r}, which is neither a job id nor a job of this submit", hint="correct it"
                    )
                job_id = self._labels[what]
            else:
                job_id = what
                job = query.job(self._conn, job_id)  # NotFound: says which ids there are
                if cond is Cond.OK and job.state.terminal and job.state is not JobState.SUCCEEDED:
                    never = f"job {job_id}, which must succeed first, has {job.state} already: this one will be skipped"
            # `ok` asks for more than `any`.
            out[job_id] = Cond.OK if Cond.OK in (cond, out.get(job_id)) else cond
        return [[str(cond), job_id] for job_id, cond in out.items()], never


def _draft(prepared: Prepared) -> _Draft:
    r = prepared.request
    return _Draft(
        kind=prepared.kind.name,
        name=prepared.name,
        params=prepared.params,
        key=prepared.key,
        spec_digest=prepared.spec_digest,
        spec=prepared.data,
        after=prepared.after,
        idem=r.idem,
        priority=r.priority,
        tags=tuple(r.tags),
        note=r.note,
        held=r.held,
        force=r.force,
        where=r.where,
        label=r.name,
    )


def _with_notes(answer: Submitted, prepared: Prepared) -> Submitted:
    notes = [m for m in (answer.message, *prepared.notes) if m]
    return replace(answer, message="; ".join(notes))


def _refuse_changed(home: Home, job: Job, spec: Mapping[str, Any], digests: Digests) -> None:
    for ref in (spec["code"], spec["kind_code"]):
        if ref is not None and not (home.code / ref["store"]).is_dir():
            raise BadInput(
                f"the code that job {job.id} ran is no longer stored", hint="submit it anew, with the code of now"
            )
    for item in (InputFile(**i) for i in spec["inputs"]):
        try:
            now = digests.of(Path(item.path)).sha256
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
