"""Submitting: everything is checked, then one transaction records it all or nothing (see `recording`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.digests import Digests
from core.errors import BadInput
from core.home import Home
from core.journal import Journal, Role, query
from core.journal.query import Job
from core.spec import InputFile
from lab.answers import answer_in_cache
from lab.ordering import in_order
from lab.plan import Planned, plan
from lab.planning import Prepared, PreparedSweep, Preparer, Request, prepare, store_code
from lab.recording import Draft, Submitted, record
from lab.resident import Lanes
from lab.studies import unfold
from lab.sweepagain import sweep_again

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


def submit(
    home: Home,
    requests: Sequence[Request],
    *,
    cwd: Path,
    before: Callable[[Preparer, Sequence[Prepared | PreparedSweep]], None] | None = None,
) -> list[Submitted]:
    """Record `requests` in one transaction, or none of them. Starts nothing: that is the controller's.

    Args:
        before: called when everything was checked and nothing is written yet; what it raises ends the submit.

    Returns:
        One answer for each request, in their order (for a study: one for each of its nodes). When this returns, the
        jobs are on disk.

    Raises:
        LabError: something asked for cannot be; then nothing was recorded.
    """
    existing = Journal.open(home, Role.CLIENT) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, existing) as preparer:
            requests = unfold(preparer, requests)
            checked = [preparer.prepare(r) for r in requests]
            places = in_order(checked)
            if before is not None:
                before(preparer, checked)
            # Only now is anything written: a refused submit leaves no trace, not even a home.
            journal = existing if existing is not None else Journal.open(home, Role.CLIENT, create=True)
            existing = journal
            prepared = store_code(preparer, requests, checked)
        drafts = [draft_of(p) for p in prepared]
        answers = record(journal, [drafts[i] for i in places])
        by_place = dict(zip(places, answers, strict=True))
        return [_with_notes(by_place[i], prepared[i]) for i in range(len(prepared))]
    finally:
        if existing is not None:
            existing.close()


def rerun(home: Home, job_ids: Sequence[int], *, force: bool = False, failed: bool = False) -> list[Submitted]:
    """Submit the same jobs again: same spec, same code as then, same parameters; `rerun_of` names the earlier one.

    A sweep becomes one new sweep. Without `force` an answer that is there already is given, as by any submit.

    Args:
        failed: of a sweep only the cells that failed, were skipped or cancelled.

    Raises:
        NotFound: an unknown id.
        BadInput: the code of then is no longer in the store, an input is no longer what it was, or nothing failed.
    """
    with Journal.open(home, Role.CLIENT) as journal, Digests(home.digests) as digests:
        drafts = []
        lanes = Lanes(home)
        for job_id in job_ids:
            job = query.job(journal.conn, job_id)
            spec = query.spec_of(journal.conn, job.spec)
            if spec["needs"].get("admission"):
                lane = spec["needs"]["lane"]
                raise BadInput(f"job {job.id} is a step of the ladder of lane {lane}", hint=f"lab lane admit {lane}")
            _refuse_changed(home, job, spec, digests, lanes)
            if job.is_sweep:
                draft = sweep_again(journal.conn, job, spec, failed=failed)
                for other in draft.specs.values():
                    _refuse_changed(home, job, other, digests, lanes)
            else:
                draft = _again(job, spec)
            drafts.append(replace(draft, force=force, rerun_of=job.id))
        return record(journal, drafts)


def _again(job: Job, spec: dict[str, Any]) -> Draft:
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


def draft_of(prepared: Prepared | PreparedSweep) -> Draft:
    """What the journal takes of a request that was prepared."""
    r = prepared.request
    draft = Draft(
        kind=prepared.kind.name,
        name=prepared.name,
        params=prepared.cells.base if isinstance(prepared, PreparedSweep) else prepared.params,
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
        pooled=prepared.cells.pooled if isinstance(prepared, PreparedSweep) else prepared.pooled,
        where=r.where,
        label=r.name,
    )
    if isinstance(prepared, Prepared):
        return draft
    cells = prepared.cells
    return replace(
        draft, cells=cells.rows, specs=cells.specs, axes=cells.axes, at_once=r.at_once, max_fails=r.max_fails
    )


def _with_notes(answer: Submitted, prepared: Prepared | PreparedSweep) -> Submitted:
    notes = [m for m in (answer.message, *prepared.notes) if m]
    return replace(answer, message="; ".join(notes))


def _now(item: InputFile, digests: Digests, lanes: Lanes) -> str:
    """The digest of an input as it is now, here or on its lane."""
    return str(lanes.look(item.lane, item.path)["sha256"]) if item.lane else digests.of(Path(item.path)).sha256


def _refuse_changed(home: Home, job: Job, spec: Mapping[str, Any], digests: Digests, lanes: Lanes) -> None:
    for ref in (spec["code"], spec["kind_code"]):
        if ref is not None and not (home.code / ref["store"]).is_dir():
            raise BadInput(
                f"the code that job {job.id} ran is no longer stored", hint="submit it anew, with the code of now"
            )
    for item in (InputFile(**i) for i in spec["inputs"]):
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
