"""Submitting many jobs of one kind, one after the other, from one program: what they share is looked at once.

with lab.submitter("kernel", needs={"cores": 1}) as submitter:
    err = submitter.submit(height=64).wait().results()
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from core.errors import BadInput
from core.journal import Journal, Role
from core.kind import Kind
from core.spec import Keys
from lab.asked import Request
from lab.cells import canonical_text
from lab.handles import Job
from lab.params import check
from lab.planning import Prepared, Preparer, store_code
from lab.recording import Draft, record
from lab.studies import study_of
from lab.submission import draft_of
from lanes.start import Bell

if TYPE_CHECKING:
    from lab.api import Lab


class Submitter:
    """Made by `Lab.submitter`. The code, its packages and the lanes are those of the moment when it was made."""

    def __init__(self, lab: Lab, request: Request, cwd: Path) -> None:
        self._lab = lab
        self._request = request
        self._preparer = Preparer(lab.home, cwd, lab.journal if lab.home.journal.exists() else None)
        self._journal: Journal | None = None
        self._bell: Bell | None = None
        self._like: tuple[Kind, Draft, Keys] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._preparer.close()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def submit(self, **parameters: Any) -> Job:
        """Submit one job, as `Lab.submit` does.

        Raises:
            LabError: a parameter is wrong; nothing was recorded.
        """
        draft = self._draft(parameters)
        if self._journal is None:
            self._journal = Journal.open(self._lab.home, Role.CLIENT, create=True)
        if self._bell is None:
            self._bell = Bell(self._lab.home)
        self._bell.announce()
        answer = record(self._journal, [draft])[0]
        self._lab.tell(self._bell)
        return Job(self._lab, answer.id, answer=answer.answer, message=answer.message)

    def _draft(self, parameters: dict[str, Any]) -> Draft:
        given = {**self._request.params, **parameters}
        if self._like is None:
            return self._first(given)
        kind, like, keys = self._like
        params, plain = check(kind, given, literal=True)
        name = self._request.name or kind.describe(params)
        return replace(
            like, params=plain, key=keys.of(canonical_text(plain).encode()), name=" ".join(name.split())[:200]
        )

    def _first(self, given: dict[str, Any]) -> Draft:
        request = replace(self._request, params=given)
        kind = self._preparer.kind(request.kind)
        if study_of(kind, request) is not None:
            raise BadInput(f"kind {kind.name} is a study of several jobs", hint="use lab.submit_study")
        prepared = store_code(self._preparer, [request])[0]
        assert isinstance(prepared, Prepared)
        draft = draft_of(prepared)
        # What follows from the parameters makes each job another one.
        if all(getattr(type(kind), hook) is getattr(Kind, hook) for hook in ("inputs", "study", "pools")):
            self._like = (kind, draft, Keys(prepared.data))
        return draft
