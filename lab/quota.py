"""Quotas: what goes beyond what is old, in a stated order, until each limit is met or nothing more may go.

The order: working folders, attempts that did not succeed, superseded checkpoints, batch folders, results that a newer
success has replaced or that never answer, and, where the cache's answers need not stay, all other results. Within each
the oldest day first, and of one day the largest first.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from core.home import Home
from core.retention import Quota
from lab.gclook import BATCHES, CHECKPOINTS, DAY_S, FAILED, RESULTS_OF, SCRATCH, Item, Look, folder_size, numbers
from lab.output import human

_ORDER = (SCRATCH, FAILED, CHECKPOINTS, BATCHES, RESULTS_OF)
_OTHER = "of the journal, of code, and of tables and batches of many jobs"
_GONE = "of which only a part may go"


@dataclass(frozen=True)
class Verdict:
    """What became of one quota.

    Attributes:
        holds: bytes or jobs, before anything goes; of an age, the jobs that are older.
        left: the same when all that is planned has gone.
        because: why that much stays, in the order of how much: (reason, bytes or jobs, who wants it).
    """

    quota: Quota
    holds: int
    left: int
    because: tuple[tuple[str, int, str], ...] = ()

    @property
    def met(self) -> bool:
        return self.left <= self.allowed

    @property
    def allowed(self) -> int:
        """Bytes or jobs; of what is too old, none."""
        return 0 if self.quota.limit == "age" else int(self.quota.most)

    def said(self, *, done: bool) -> str:
        """One sentence; of one that is not met, why."""
        q = self.quota
        keep, hold = ("keeps", "holds") if done else ("would keep", "would hold")
        whose = f"kind {q.kind}" if q.kind else "the home"
        if q.limit == "age":
            told = f"{whose} {keep} {human.count(self.left, 'job')} older than {human.span(q.most)}"
        elif q.limit == "jobs":
            told = f"{whose} {keep} {human.count(self.left, 'job')} where {int(q.most):,} may stay"
        else:
            told = f"{whose} {hold} {human.size(self.left)} where {human.size(q.most)} may stay"
        if self.met:
            return told
        much = human.size if q.limit == "bytes" else lambda n: f"{int(n or 0):,}"
        why = [f"{much(n)} {reason}" + (f" ({who})" if who else "") for reason, n, who in self.because]
        return f"{told}: {', '.join(why)}" if why else told


def choose(look: Look, home: Home, conn: sqlite3.Connection, items: Sequence[Item], quotas: Sequence[Quota]) -> Chosen:
    """What goes besides `items`, which are too old anyway, so that `quotas` are met. Nothing is changed."""
    books = _Books(home, conn)
    choice = _Choice(items)
    order = sorted(look.candidates(), key=lambda i: _turn(i, look, books))
    for q in sorted(quotas, key=lambda q: (not q.kind, q.limit != "age", q.limit != "jobs")):
        if q.limit == "bytes":
            _shrink(choice, order, books, q)
        else:
            _thin_out(choice, order, books, q, look.now)
    return Chosen(tuple(choice.items()), tuple(_verdict(look, choice, books, q) for q in quotas))


@dataclass(frozen=True)
class Chosen:
    items: tuple[Item, ...]
    verdicts: tuple[Verdict, ...]


def _turn(item: Item, look: Look, books: _Books) -> tuple[int, int, int, int]:
    assert item.job is not None
    rank = _ORDER.index(item.sort)
    if item.sort == RESULTS_OF and look.held.why(item.job, keep_answers=True) is not None:
        rank += 1
    return rank, int(books.ended.get(item.job, 0.0) // DAY_S), -item.bytes, item.job


def _shrink(choice: _Choice, order: Iterable[Item], books: _Books, q: Quota) -> None:
    over = books.bytes(q.kind) - choice.freed(lambda i: books.is_of(i, q.kind)) - int(q.most)
    for item in order:
        if over <= 0:
            return
        if item.bytes and books.is_of(item, q.kind):
            over -= choice.take(item)


def _thin_out(choice: _Choice, order: Iterable[Item], books: _Books, q: Quota, now: float) -> None:
    """Whole jobs go: all that are too old, or as many as are too many."""
    mine = [j for j in books.limited(q, now) if not choice.whole(j, books.attempts[j])]
    over = len(mine) - (int(q.most) if q.limit == "jobs" else 0)
    left = set(mine)
    for item in order:
        if over <= 0:
            return
        if item.job in left and item.sort in (FAILED, RESULTS_OF):
            choice.take(item)
            if choice.whole(item.job, books.attempts[item.job]):
                left.discard(item.job)
                over -= 1


def _verdict(look: Look, choice: _Choice, books: _Books, q: Quota) -> Verdict:
    if q.limit == "bytes":
        held = books.bytes(q.kind)
        left = held - choice.freed(lambda i: books.is_of(i, q.kind))
        stays = {job: size - choice.of_job(job) for job, size in books.folders.items() if books.is_kind(job, q.kind)}
    else:
        jobs = books.limited(q, look.now)
        stays = {job: 1 for job in jobs if not choice.whole(job, books.attempts[job])}
        held, left = len(jobs), len(stays)
    verdict = Verdict(q, held, left)
    if verdict.met:
        return verdict
    ageless = look.ageless()
    why: dict[str, tuple[int, dict[str, None]]] = {}
    for job, n in stays.items():
        found = ageless.why(job)
        if n > 0 and found is not None:
            n0, who = why.get(found[0], (0, {}))
            why[found[0]] = n0 + n, who | ({found[1]: None} if found[1] else {})
    rest = left - sum(n for n, _ in why.values())
    told = [(reason, n, _few(who)) for reason, (n, who) in sorted(why.items(), key=lambda kv: -kv[1][0])]
    if rest > 0:
        told.append((_OTHER if q.limit == "bytes" else _GONE, rest, ""))
    return Verdict(q, held, left, tuple(told))


def _few(words: Iterable[str], most: int = 3) -> str:
    all_ = list(words)
    return ", ".join(all_[:most]) + (", ..." if len(all_) > most else "")


class _Books:
    """How much there is, and whose."""

    def __init__(self, home: Home, conn: sqlite3.Connection) -> None:
        ids = numbers(home.attempts)
        self.attempts = {job: numbers(home.attempts / str(job)) for job in ids}
        self.folders = {job: folder_size(home.attempts / str(job)) for job in ids}
        rows = conn.execute(_KINDS, (json.dumps(ids),)).fetchall()
        self._kinds = {int(r[0]): str(r[1]) for r in rows}
        self.ended = {int(r[0]): float(r[2]) for r in rows if r[2] is not None}
        self._shared: dict[str, int] = {}
        for first, last, size in conn.execute(_PARTS):
            if first == last and first in self.folders:
                self.folders[first] += size
            else:
                self._share(conn, first, size)
        for name, cells in conn.execute("SELECT b.dir, p.data FROM batch b JOIN event p ON p.seq = b.seq"):
            if (home.batches / name).is_dir():
                self._share(conn, json.loads(cells)["cells"][0][0], folder_size(home.batches / name))
        others = (p for p in home.path.iterdir() if p != home.attempts)
        self._all = sum(folder_size(p) for p in others) + sum(folder_size(home.attempts / str(j)) for j in ids)

    def _share(self, conn: sqlite3.Connection, job: int, size: int) -> None:
        if job not in self._kinds:
            row = conn.execute("SELECT kind, ended FROM job_state WHERE id = ?", (job,)).fetchone()
            self._kinds[job] = str(row[0]) if row else ""
            if row and row[1] is not None:
                self.ended[job] = float(row[1])
        kind = self._kinds[job]
        self._shared[kind] = self._shared.get(kind, 0) + size

    def bytes(self, kind: str) -> int:
        """Of the home, or of all jobs of a kind; table parts of many jobs count for the kind of the first."""
        if not kind:
            return self._all
        return self._shared.get(kind, 0) + sum(n for job, n in self.folders.items() if self._kinds.get(job) == kind)

    def is_kind(self, job: int, kind: str) -> bool:
        return not kind or self._kinds.get(job) == kind

    def is_of(self, item: Item, kind: str) -> bool:
        if not kind:
            return bool(item.paths)
        return item.job is not None and self._kinds.get(item.job) == kind

    def limited(self, q: Quota, now: float) -> list[int]:
        """Of a limit on jobs: the finished ones that keep a run directory; of one on age: those of them that are older.

        Oldest first.
        """
        mine = [j for j in self.folders if self._kinds.get(j) == q.kind and j in self.ended]
        return mine if q.limit == "jobs" else [j for j in mine if now - self.ended[j] > q.most]


class _Choice:
    """What is to go so far; nothing is counted twice."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._of: dict[int | None, dict[tuple[str, ...], Item]] = {}
        self._rows = [i for i in items if not i.paths]
        for item in items:
            if item.paths:
                self._of.setdefault(item.job, {})[item.paths] = item

    def take(self, item: Item) -> int:
        """How many bytes more go."""
        mine = self._of.setdefault(item.job, {})
        covered = [i for i in mine.values() if i.paths != item.paths and _covers(item, i)]
        if not covered and any(_covers(i, item) for i in mine.values()):
            return 0
        for old in covered:
            del mine[old.paths]
        mine[item.paths] = item
        return item.bytes - sum(i.bytes for i in covered)

    def items(self) -> Iterator[Item]:
        for mine in self._of.values():
            yield from mine.values()
        yield from self._rows

    def freed(self, of: Callable[[Item], bool]) -> int:
        return sum(i.bytes for mine in self._of.values() for i in mine.values() if of(i))

    def of_job(self, job: int) -> int:
        """Bytes of its run directories and its own table parts that go."""
        return sum(i.bytes for i in self._of.get(job, {}).values() if i.sort != BATCHES)

    def whole(self, job: int, attempts: Iterable[int]) -> bool:
        """Does all of its run directories go?"""
        paths = {p for i in self._of.get(job, {}).values() for p in i.paths}
        return f"attempts/{job}" in paths or all(f"attempts/{job}/{n}" in paths for n in attempts)


def _covers(big: Item, small: Item) -> bool:
    return all(any(p == q or p.startswith(f"{q}/") for q in big.paths) for p in small.paths)


_KINDS = "SELECT s.id, s.kind, s.ended FROM json_each(?) q CROSS JOIN job_state s ON s.id = q.value"
_PARTS = "SELECT first, last, bytes FROM part WHERE path != ''"
