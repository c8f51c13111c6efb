"""Reading the journal for the screen: nothing at all while it did not change, and then only what did.

Rows that live are compared by the few values that can change; a job is read in full once, and again when they differ.
What grows with the journal (counting everything) or with a sweep is done less often the longer it takes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from core.errors import LabError, NotFound
from core.home import Home
from core.journal import Journal, query
from core.journal.query import Job
from core.states import TERMINAL_JOB_STATES, JobState
from lab.tui.facts import Holding, JournalFacts, SweepFact, Want

MOST_QUEUED = 400  # of a longer queue, the first
MOST_ENDED = 60  # shown without a filter
MOST_FOUND = 300  # shown with one
MINUTE = 60
_BACK = 4000  # events looked at for the rates of the minute before the start
_CHUNK = 400
_SHARE = 50  # what took t seconds is done again after this many times t
_REOPEN_S = 2.0

# Cells of a sweep in the order in which a person wants them.
CELL_ORDER = (
    JobState.RUNNING,
    JobState.CANCELLING,
    JobState.FAILED,
    JobState.QUEUED,
    JobState.HELD,
    JobState.SKIPPED,
    JobState.CANCELLED,
    JobState.SUCCEEDED,
)

_LIGHT = (
    "id, state, attempts, coalesce(news, 0), lane, wish, started, priority, cells, "
    "(SELECT a.started FROM attempt_state a WHERE a.id = job_state.id * 4096 + job_state.attempts)"
)
_T = TypeVar("_T")
_Light = tuple[Any, ...]


class Paced(Generic[_T]):
    """A value that is worked out again at most so often that it takes a fixed share of the time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0.0
        self._stale = True
        self._value: _T | None = None

    def touch(self) -> None:
        """What it was made of has changed."""
        self._stale = True

    def get(self, work: Callable[[], _T]) -> _T:
        now = self._clock()
        if self._value is None or (self._stale and now >= self._next):
            began = time.thread_time()
            self._value = work()
            self._next = now + _SHARE * (time.thread_time() - began)
            self._stale = False
        return self._value

    @property
    def due(self) -> bool:
        """Is it older than what it was made of, and may be worked out again?"""
        return self._stale and self._clock() >= self._next


class JournalReader:
    """Owns one connection; belongs to one thread. `read` never raises for what a home can be like."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._clock = clock
        self._journal: Journal | None = None
        self._retry_at = 0.0
        self.trouble = ""
        self._forget()

    def _forget(self) -> None:
        self._version: int | None = None
        self._want: Want | None = None
        self._facts = JournalFacts()
        self._jobs: dict[int, tuple[_Light, Job]] = {}
        self._live_ids: set[int] = set()
        self._ended: dict[int, None] = {}
        self._found: tuple[int, ...] = ()
        self._last_id = 0
        self._seq = 0
        self._done: deque[tuple[int, str, int]] = deque()
        self._counts: Paced[dict[JobState, int]] = Paced(self._clock)
        self._sweeps: dict[int, SweepFact] = {}
        self._sweep_counts: dict[int, Paced[dict[JobState, int]]] = {}
        self.changes = 0  # how often something was read

    @property
    def conn(self) -> sqlite3.Connection | None:
        return self._journal.conn if self._journal is not None else None

    def close(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(sqlite3.Error):
                self._journal.close()
            self._journal = None

    def read(self, want: Want) -> JournalFacts:
        """The journal now; the last facts, and `trouble`, when it cannot be read."""
        try:
            if self._journal is None:
                if self._clock() < self._retry_at:
                    return self._facts
                self._retry_at = self._clock() + _REOPEN_S
                self._journal = Journal.open(self._home)
                self._forget()
            version = self._journal.data_version()
            asked = _journal_part(want)
            if version != self._version or asked != self._want or self._due():
                self._facts = self._look(self._journal.conn, want, changed=version != self._version)
                self._version, self._want = version, asked
            self.trouble = ""
        except LabError as error:
            self._lose(str(error))
        except sqlite3.OperationalError as error:
            busy = "locked" in str(error) or "busy" in str(error)
            if busy:
                self.trouble = "the journal is busy: another process holds it"
            else:
                self._lose(f"the journal cannot be read ({error}); `lab doctor` looks into it")
        except sqlite3.Error as error:
            self._lose(f"the journal cannot be read ({error}); `lab doctor` looks into it")
        except OSError as error:
            self._lose(f"the journal cannot be read ({error.strerror or error})")
        return self._facts

    def _lose(self, why: str) -> None:
        """Keep showing what was read last, say why, and open it anew."""
        self.trouble = why
        self.close()

    def _due(self) -> bool:
        return self._counts.due or any(p.due for p in self._sweep_counts.values())

    def _look(self, conn: sqlite3.Connection, want: Want, *, changed: bool) -> JournalFacts:
        self.changes += 1
        conn.execute("BEGIN")
        try:
            if changed:
                self._counts.touch()
                for pace in self._sweep_counts.values():
                    pace.touch()
            light = self._light(conn)
            self._note_ended(conn, light, want)
            ended = self._found if want.filtered else tuple(self._ended)[-MOST_ENDED:]
            light |= _light_rows(conn, [i for i in ended if i not in light and i not in self._jobs])
            wanted = [*light, *(i for i in ended if i not in light)]
            cells = {s: self._cells(conn, s, n, want.cell_states) for s, n in want.unfolded}
            for page in cells.values():
                light |= page
            self._fill(conn, light)
            shown = {i: self._jobs[i][1] for i in wanted if i in self._jobs}
            counts = dict(self._counts.get(lambda: query.counts(conn, top=True)))
            read = sum(1 for j in shown.values() if j.state is JobState.QUEUED)
            facts = JournalFacts(
                jobs=tuple(shown.values()),
                waits=_waits(conn, [j.id for j in shown.values() if j.state in (JobState.QUEUED, JobState.HELD)]),
                sweeps=self._all_sweeps(conn, [j for j in shown.values() if j.is_sweep]),
                cells={s: tuple(self._jobs[i][1] for i in page if i in self._jobs) for s, page in cells.items()},
                counts=counts,
                unread=max(0, counts.get(JobState.QUEUED, 0) - read) if read >= MOST_QUEUED else 0,
                lanes=tuple((x.name, x.state, x.reason, x.wish, x.info) for x in query.lanes(conn)),
                holdings=_holdings(conn),
                done=self._rates(conn),
                controller=query.controller(conn),
            )
            self._trim({*shown, *(i for page in cells.values() for i in page)})
            return facts
        finally:
            conn.execute("ROLLBACK")

    def _light(self, conn: sqlite3.Connection) -> dict[int, _Light]:
        """What can change of every row that lives, the first of the queue only."""
        rows = conn.execute(
            f"SELECT {_LIGHT} FROM job_state WHERE ended IS NULL AND sweep IS NULL AND state != 'queued'"
        ).fetchall()
        rows += conn.execute(
            f"SELECT {_LIGHT} FROM job_state WHERE state = 'queued' AND sweep IS NULL "
            f"ORDER BY priority DESC, id LIMIT {MOST_QUEUED}"
        ).fetchall()
        return {int(r[0]): tuple(r) for r in rows}

    def _note_ended(self, conn: sqlite3.Connection, live: Mapping[int, _Light], want: Want) -> None:
        """Which rows ended since the last look (they lived then, or are newer), and which the filter finds."""
        top = conn.execute("SELECT max(id) FROM job_state").fetchone()[0] or 0
        if self._last_id == 0:
            found = conn.execute(
                "SELECT id FROM job_state WHERE ended IS NOT NULL AND sweep IS NULL ORDER BY id DESC LIMIT ?",
                (MOST_ENDED,),
            ).fetchall()
            news = [int(r[0]) for r in reversed(found)]
        else:
            gone = list(self._live_ids - live.keys())
            news = [i for i, row in _light_rows(conn, gone).items() if JobState(row[1]).terminal]
            fresh = conn.execute(
                "SELECT id FROM job_state WHERE id > ? AND ended IS NOT NULL AND sweep IS NULL", (self._last_id,)
            )
            news += [int(r[0]) for r in fresh]
        self._last_id = int(top)
        self._live_ids = set(live)
        for i in news:
            self._ended[i] = None
            self._jobs.pop(i, None)  # read again, with how it ended
        while len(self._ended) > MOST_FOUND:
            del self._ended[next(iter(self._ended))]
        if want.filtered:
            same = self._want is not None and _search(self._want) == _search(want)
            old = self._found if same else _find(conn, want)
            self._found = tuple(dict.fromkeys([*news, *old] if same else old))[:MOST_FOUND]

    def _fill(self, conn: sqlite3.Connection, light: Mapping[int, _Light]) -> None:
        """Read in full what is new or has changed."""
        stale = [i for i, row in light.items() if i not in self._jobs or self._jobs[i][0] != row]
        for some in _chunks(stale):
            for job in query.with_attempts(conn, query.jobs(conn, ids=tuple(some))):
                self._jobs[job.id] = (light[job.id], job)

    def _trim(self, used: set[int]) -> None:
        if len(self._jobs) > len(used) + 2000:
            self._jobs = {i: v for i, v in self._jobs.items() if i in used}

    def _cells(self, conn: sqlite3.Connection, sweep: int, most: int, only: tuple[JobState, ...]) -> dict[int, _Light]:
        """The cells of a sweep that come first, in order."""
        out: dict[int, _Light] = {}
        for state in CELL_ORDER:
            if only and state not in only:
                continue
            for where in ("sweep = ?", "id IN (SELECT job FROM member WHERE sweep = ?)"):
                room = most - len(out)
                sql = f"SELECT {_LIGHT} FROM job_state WHERE {where} AND state = ? ORDER BY id LIMIT ?"
                if room > 0:
                    out |= {int(r[0]): tuple(r) for r in conn.execute(sql, (sweep, str(state), room))}
        return out

    def _all_sweeps(self, conn: sqlite3.Connection, rows: Sequence[Job]) -> dict[int, SweepFact]:
        out: dict[int, SweepFact] = {}
        for job in rows:
            old = self._sweeps.get(job.id)
            if old is not None and job.state.terminal and old.sweep.open and old.ended >= old.total:
                out[job.id] = old  # nothing of it can change any more
                continue
            try:
                info = old.sweep if old is not None and old.sweep.open else query.sweep(conn, job.id)
            except NotFound:
                continue
            pace = self._sweep_counts.setdefault(job.id, Paced(self._clock))
            counts = pace.get(lambda job=job: query.sweep_counts(conn, job.id))  # type: ignore[misc]
            first, error = (old.first_failed, old.first_error) if old is not None else (None, "")
            if first is None and counts.get(JobState.FAILED):
                failed = query.first_failure(conn, job.id)
                if failed is not None:
                    first, error = failed.id, failed.reason or failed.cause or ""
            same = old is not None and old.counts == counts and old.sweep == info and old.first_failed == first
            out[job.id] = old if old is not None and same else SweepFact(info, counts, error, first)
        self._sweeps = out
        self._sweep_counts = {i: p for i, p in self._sweep_counts.items() if i in out}
        return out

    def _rates(self, conn: sqlite3.Connection) -> dict[str, tuple[tuple[int, int], ...]]:
        """How many jobs and cells ended on each lane, second by second, from the events since the last look."""
        last = int(conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
        since = self._seq if self._seq else max(0, last - _BACK)
        oldest = int(time.time()) - MINUTE
        if last > since:
            rows = conn.execute(
                """SELECT at, lane, CASE kind WHEN 'batch-ended' THEN (
                       SELECT coalesce(sum(value ->> '$[1]' - value ->> '$[0]' + 1), 0)
                       FROM json_each(event.data, '$.ok')) ELSE 1 END
                   FROM event WHERE seq > ? AND kind IN ('attempt-ended', 'batch-ended', 'cell-ended') AND at > ?
                   AND lane IS NOT NULL ORDER BY seq""",
                (since, oldest),
            )
            for at, lane, n in rows:
                tail = self._done[-1] if self._done else None
                if tail is not None and tail[0] == int(at) and tail[1] == lane:
                    self._done[-1] = (tail[0], lane, tail[2] + int(n))
                else:
                    self._done.append((int(at), lane, int(n)))
        self._seq = last
        while self._done and self._done[0][0] < oldest:
            self._done.popleft()
        out: dict[str, list[tuple[int, int]]] = {}
        for at, lane, n in self._done:
            out.setdefault(lane, []).append((at, n))
        return {lane: tuple(rows) for lane, rows in out.items()}


def _journal_part(want: Want) -> Want:
    """What of a wish the journal must be asked for again."""
    return Want(want.text, want.states, want.kinds, want.tags, want.unfolded, want.cell_states)


def _search(want: Want) -> tuple[Any, ...]:
    return want.text, want.states, want.kinds, want.tags


def _find(conn: sqlite3.Connection, want: Want) -> list[int]:
    """Rows that ended and may be what the filter means, newest first. The model decides."""
    ended = tuple(s for s in want.states if s.terminal) if want.states else tuple(TERMINAL_JOB_STATES)
    where = ["s.sweep IS NULL", "s.ended IS NOT NULL"]
    args: list[str | int] = []
    if ended and len(ended) < len(TERMINAL_JOB_STATES):
        # A sweep that failed may have cells that are meant; one that succeeded has none that failed.
        where.append(f"(s.state IN ({', '.join('?' * len(ended))}) OR s.cells IS NOT NULL)")
        args += [str(s) for s in ended]
    elif not ended:
        where.append("s.cells IS NOT NULL")
    if want.kinds:
        where.append(" OR ".join(["s.kind LIKE ?"] * len(want.kinds)).join("()"))
        args += [f"{k}%" for k in want.kinds]
    for word in [*want.tags, *want.text]:
        piece = max("".join(c if c.isalnum() else " " for c in word).split() or [""], key=len)
        if piece:
            where.append("(e.data LIKE ? OR s.lane LIKE ? OR s.id LIKE ? OR w.data LIKE ?)")
            args += [f"%{piece}%"] * 4
    sql = (
        "SELECT s.id FROM job_state s JOIN event e ON e.seq = s.submit LEFT JOIN event w ON w.seq = s.news "
        f"WHERE {' AND '.join(where)} ORDER BY s.id DESC LIMIT {MOST_FOUND}"
    )
    return [int(r[0]) for r in conn.execute(sql, args)]


def _light_rows(conn: sqlite3.Connection, ids: Sequence[int]) -> dict[int, _Light]:
    out: dict[int, _Light] = {}
    for some in _chunks(ids):
        marks = ", ".join(str(int(i)) for i in some)
        out |= {int(r[0]): tuple(r) for r in conn.execute(f"SELECT {_LIGHT} FROM job_state WHERE id IN ({marks})")}
    return out


def _waits(conn: sqlite3.Connection, ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Unfinished jobs that each of `ids` comes after."""
    out: dict[int, list[int]] = {}
    for some in _chunks(ids):
        marks = ", ".join(str(int(i)) for i in some)
        for job, needs in conn.execute(
            f"SELECT d.job, d.needs FROM dep d JOIN job_state u ON u.id = d.needs "
            f"WHERE d.job IN ({marks}) AND u.ended IS NULL ORDER BY d.job, d.needs"
        ):
            out.setdefault(int(job), []).append(int(needs))
    return {job: tuple(needs) for job, needs in out.items()}


def _holdings(conn: sqlite3.Connection) -> tuple[Holding, ...]:
    out = []
    rows = conn.execute(
        "SELECT s.id / 4096, s.id % 4096, s.lane, p.data ->> '$.grant' FROM attempt_state s "
        "JOIN event p ON p.seq = s.placed WHERE s.ended IS NULL ORDER BY s.id"
    )
    for job, n, lane, grant in rows:
        out.append(Holding(lane, int(job), int(n), *_granted(json.loads(grant or "{}"))))
    for batch in query.open_batches(conn):
        cells = sum(last - first + 1 for first, last, _ in batch.cells)
        first, _, n = batch.cells[0] if batch.cells else (0, 0, 0)
        out.append(Holding(batch.lane, first, n, *_granted(batch.grant), cells=cells))
    return tuple(out)


def _granted(grant: Mapping[str, Any]) -> tuple[int, int]:
    gpus = grant.get("gpus") or ()
    return int(grant.get("cores") or 1), gpus if isinstance(gpus, int) else len(gpus)


def _chunks(ids: Iterable[int]) -> Iterable[list[int]]:
    whole = list(ids)
    return (whole[i : i + _CHUNK] for i in range(0, len(whole), _CHUNK))
