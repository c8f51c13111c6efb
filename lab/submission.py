"""Submitting: everything is checked, then one transaction records it all or nothing (see `recording`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from core.home import Home
from core.journal import Journal, Role
from lab.again import rerun
from lab.answers import answer_in_cache
from lab.ordering import in_order
from lab.plan import Planned, plan
from lab.planning import Prepared, PreparedSweep, Preparer, Request, prepare, store_code
from lab.recording import Draft, Submitted, record
from lab.studies import unfold

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
            checked = preparer.prepare_all(requests)
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
        takes=tuple(take.job for take in r.takes),
        study=r.study,
    )
    if isinstance(prepared, Prepared):
        return draft
    cells = prepared.cells
    return replace(
        draft, cells=cells.rows, specs=cells.specs, axes=cells.axes, at_once=r.at_once, max_fails=r.max_fails
    )


def _with_notes(answer: Submitted, prepared: Prepared | PreparedSweep) -> Submitted:
    notes = [m for m in (answer.message, *prepared.notes) if m]
    return replace(answer, message="; ".join(notes), notes=tuple(prepared.request.notes))
