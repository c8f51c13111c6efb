"""Which jobs a command means: ids, ranges, cells of sweeps, the name of a study, or a tag."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import BadInput, NotFound
from core.journal import query
from core.journal.query import Job
from core.states import JobState
from lab import arguments
from lab.arguments import Ids


def resolve(conn: sqlite3.Connection, words: Sequence[Ids]) -> tuple[int, ...]:
    """Job ids in the order given, each once. `17.3` is the third of the cells that sweep 17 runs itself.

    The name of a study stands for the jobs of its newest submit.

    Raises:
        BadInput: no study is called so.
        NotFound: for `17.3` where 17 is no sweep, or has not so many cells. Plain ids are not looked up.
    """
    out: dict[int, None] = {}
    for each in words:
        start = 0
        if each.study:
            out.update(dict.fromkeys(_of_study(conn, each.study)))
            continue
        if each.sweep is not None:
            sweep = query.sweep(conn, each.sweep)
            start = sweep.id
            if not 1 <= each.first <= each.last <= sweep.cells:
                number = each.last if each.first >= 1 else each.first
                hint = f"they are {sweep.id}.1 to {sweep.id}.{sweep.cells}" if sweep.cells else "other jobs answer it"
                raise NotFound(f"sweep {sweep.id} has no cell {number}", hint=hint)
        out.update(dict.fromkeys(range(start + each.first, start + each.last + 1)))
    return tuple(out)


def _of_study(conn: sqlite3.Connection, name: str) -> list[int]:
    from lab.named import members

    found = members(conn, name)
    if not found:
        raise BadInput(
            f"{name!r} is not a job id, and no study of that name was submitted",
            hint="give a number such as 17, a range such as 17-20, or the name of a study",
        )
    return found


def one(conn: sqlite3.Connection, word: str) -> int:
    """The one job that `word` names: `17` or `17.3`.

    Raises:
        BadInput: it is no id, or names several.
        NotFound: there is no such cell.
    """
    found = arguments.ids([word])
    if len(found) != 1 or found[0].study or found[0].first != found[0].last:
        raise BadInput(f"{word!r} names several jobs, and one is wanted", hint="give one id, such as 17 or 17.3")
    return resolve(conn, found)[0]


@dataclass(frozen=True)
class Selection:
    """The words, checked before any file is opened."""

    ids: tuple[Ids, ...]
    tag: str | None

    @staticmethod
    def of(words: Sequence[str] | None, tag: str | None) -> Selection:
        """Raises BadInput for what is no id, and when no job or both ways were given."""
        ids = arguments.ids(words)
        if ids and tag:
            raise BadInput("both ids and --tag were given", hint="choose the jobs one way")
        if not ids and not tag:
            raise BadInput("no job was named", hint="give ids such as 17 or 17-20, or --tag TAG")
        return Selection(ids, tag)

    @property
    def loose(self) -> bool:
        """Not each job was named: those are meant that it can be asked of."""
        return self.tag is not None or any(each.study for each in self.ids)

    def jobs(self, conn: sqlite3.Connection, *, states: tuple[JobState, ...]) -> list[Job]:
        """The jobs with these ids, in this order; or those with the tag that are in `states`, each sweep as one.

        Raises:
            NotFound: an id that does not exist, or a tag that no such job has.
        """
        if self.ids:
            return [query.job(conn, i) for i in resolve(conn, self.ids)]
        found = query.jobs(conn, states=states, tag=self.tag, newest_first=False, top=True)
        if not found:
            hint = f"`lab status --tag {self.tag}` lists all that have it"
            raise NotFound(f"no such job has the tag {self.tag!r}", hint=hint)
        return found
