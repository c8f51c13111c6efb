"""`lab fetch`: copy what a job left to a new folder of yours, checked against the seal on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.states import JobState
from lab import completion
from lab.fetching import Fetched, fetch
from lab.output import Page, Report, human
from lab.output.job import became
from lab.selection import one
from lab.session import session

_MOST_NAMES = 20


def fetch_(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The job or sweep.", autocompletion=completion.finished_job_ids)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to: a new folder [./job-ID].")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also logs, metrics, environment and checkpoints.")
    ] = False,
) -> None:
    """Copy a job's artifacts and tables here; of a sweep, those of all its cells.

    Each file is hashed while it is copied; one that is not what was sealed is refused, and nothing is overwritten.
    """
    here = session()
    with here.reading() as journal:
        job_id = one(journal.conn, id_)
        folder = (output or Path(f"job-{job_id}")).expanduser()
        here.out.show(FetchReport(fetch(here.home, journal.conn, job_id, folder, everything=everything)))


@dataclass(frozen=True)
class FetchReport(Report):
    """What was copied, and where to."""

    fetched: Fetched

    schema = "lab.fetch/1"

    def json(self) -> dict[str, Any]:
        f = self.fetched
        return {
            "job": f.job,
            "attempt": f.attempt,
            "folder": str(f.folder),
            "files": list(f.files),
            "bytes": f.bytes,
            "state": str(f.state),
        }

    def text(self, page: Page) -> Iterable[str]:
        f = self.fetched
        for name in f.files[:_MOST_NAMES]:
            yield f"{page.mark('ok')} {human.clean(name)}"
        if len(f.files) > _MOST_NAMES:
            yield page.paint(f"  and {len(f.files) - _MOST_NAMES:,} more", "dim")
        yield f"{human.count(len(f.files), 'file')}, {human.size(f.bytes)}, of job {f.job} in {f.folder}"
        if f.state is not JobState.SUCCEEDED:
            left = "this is what its cells left" if f.attempt is None else f"this is what attempt {f.attempt} left"
            yield page.paint(f"job {f.job} {became(f.state)}: {left}", "warn")

    def brief(self) -> Iterable[str]:
        return [str(self.fetched.folder)]
