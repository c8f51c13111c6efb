"""Jobs that take files of other jobs: in which order they are keyed, and who makes what."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.errors import BadInput, NotFound
from core.graph import cycle, order
from core.journal import query
from core.states import Cond
from core.study import Take, checked_take
from lab.asked import Request
from lab.params import unknown_name


@dataclass(frozen=True)
class Maker:
    """A job whose files another takes.

    Attributes:
        label: what it is called: its name in this submit, or `job ID`.
        keeps_files: it does; a sweep, and what runs in batches, does not.
    """

    key: str
    label: str
    kind: str
    keeps_files: bool


def making_order(requests: Sequence[Request]) -> list[int]:
    """Places of `requests` so that what makes a file comes before what takes it.

    Raises:
        BadInput: they take files of each other in a circle, or of a name that is not there.
    """
    if not any(r.takes for r in requests):
        return list(range(len(requests)))
    named: dict[str, int] = {}
    for place, request in enumerate(requests):
        named.setdefault(request.name, place)
    needs: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        needs[place] = []
        for take in request.takes:
            if isinstance(take.job, str):
                if not take.job or take.job not in named:
                    said = f"the input {take.name!r} is taken from {take.job!r}, which is no job of this submit"
                    known = [n for n in named if n]
                    hint = unknown_name(take.job, known) if known else "give the id of a job"
                    raise BadInput(_at(request, said), hint=hint)
                needs[place].append(named[take.job])
    circle = cycle(needs)
    if circle:
        names = " -> ".join(requests[i].name for i in circle)
        said = f"these jobs take files of each other: {names}"
        raise BadInput(_at(requests[circle[0]], said), hint="remove one of `takes`")
    return order(needs)


def makers(request: Request, named: Mapping[str, Maker], conn: sqlite3.Connection | None) -> list[Maker]:
    """Who makes what `request` takes, in the order of `request.takes`.

    Raises:
        BadInput: it is a sweep, what it takes files of keeps none, or a file leads outside.
        NotFound: an id that does not exist.
    """
    if request.takes and request.grid is not None:
        raise BadInput("the cells of a sweep cannot take files of other jobs", hint="submit jobs, or a study of jobs")
    out = []
    for take in request.takes:
        checked_take(take, "the job")
        maker = named[take.job] if isinstance(take.job, str) else _of_journal(conn, take.job)
        if not maker.keeps_files:
            raise BadInput(
                f"the input {take.name!r} is taken from {maker.label}, a job of kind {maker.kind} that keeps no files",
                hint="only a job that runs by itself does, not a sweep and not what runs in batches",
            )
        out.append(maker)
    return out


def waits_for(after: Iterable[tuple[Cond, int | str]], takes: Iterable[Take]) -> tuple[tuple[Cond, int | str], ...]:
    """Each job that is waited for once; `ok` asks for more than `any`."""
    out: dict[int | str, Cond] = {}
    for cond, what in (*after, *((take.cond, take.job) for take in takes)):
        out[what] = Cond.OK if Cond.OK in (cond, out.get(what)) else cond
    return tuple((cond, what) for what, cond in out.items())


def _of_journal(conn: sqlite3.Connection | None, job_id: int) -> Maker:
    if conn is None:
        raise NotFound(f"there is no job {job_id}", hint="nothing was submitted yet")
    job = query.job(conn, job_id)
    return Maker(job.key, f"job {job.id}", job.kind, not job.is_sweep and not job.pooled)


def _at(request: Request, sentence: str) -> str:
    return f"{request.where}: {sentence}" if request.where else sentence
