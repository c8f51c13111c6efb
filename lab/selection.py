"""Which jobs a command means: ids, ranges, or a tag."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import BadInput, NotFound
from core.journal import query
from core.journal.query import Job
from core.states import JobState
from lab import arguments


@dataclass(frozen=True)
class Selection:
    """The words, checked before any file is opened."""

    ids: tuple[int, ...]
    tag: str | None

    @staticmethod
    def of(words: Sequence[str] | None, tag: str | None) -> Selection:
        """Raises BadInput for what is no id, and when no job or both ways were given."""
        ids = arguments.job_ids(words)
        if ids and tag:
            raise BadInput("both ids and --tag were given", hint="choose the jobs one way")
        if not ids and not tag:
            raise BadInput("no job was named", hint="give ids such as 17 or 17-20, or --tag TAG")
        return Selection(ids, tag)

    def jobs(self, conn: sqlite3.Connection, *, states: tuple[JobState, ...]) -> list[Job]:
        """The jobs with these ids, in this order; or those with the tag that are in `states`.

        Raises:
            NotFound: an id that does not exist, or a tag that no such job has.
        """
        if self.ids:
            return [query.job(conn, i) for i in self.ids]
        found = query.jobs(conn, states=states, tag=self.tag, newest_first=False)
        if not found:
            hint = f"`lab status --tag {self.tag}` lists all that have it"
            raise NotFound(f"no such job has the tag {self.tag!r}", hint=hint)
        return found
