"""The life of sweeps: opened when what they wait for is done, ended when all their cells are.

The controller alone writes states, so it need not ask the journal how a sweep stands: each live sweep has counters,
kept by listening to what is committed. They are read from the journal when a controller starts, and compared with it
once more before a sweep is ended.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.journal import Event, query
from core.journal.query import Job, Sweep
from core.states import Cause, Cond, EventKind, JobState
from lanes import decide, lookups
from lanes.mirror import Mirror, say
from lanes.ranges import Ids, count, spans_of

_SAID = 5  # failed cells of one sweep that get a line in the log


@dataclass
class LiveSweep:
    """A sweep that has not ended.

    Attributes:
        spec: digest of the spec of all cells that have none of their own; `uniform`: none has.
        waiting: own cells that are queued; `held`: those that a person held one by one.
        own, borrowed: cells that have ended, by how.
        lenders: jobs that answer cells of it and have not ended.
    """

    row: Sweep
    priority: int
    spec: str
    uniform: bool
    state: JobState
    waiting: Ids
    held: set[int]
    own: Counter[JobState]
    borrowed: Counter[JobState]
    lenders: set[int]
    said: int = field(default=0)

    @property
    def id(self) -> int:
        return self.row.id

    @property
    def started(self) -> int:
        """Own cells that have begun and not ended."""
        return self.row.cells - self.own.total() - len(self.waiting) - len(self.held)

    @property
    def failed(self) -> int:
        return self.own[JobState.FAILED] + self.borrowed[JobState.FAILED]

    @property
    def stopped(self) -> bool:
        """So many have failed that nothing more of it may start."""
        return self.row.max_fails is not None and self.failed > self.row.max_fails

    @property
    def placeable(self) -> bool:
        return self.state is JobState.RUNNING and bool(self.waiting) and not self.stopped


class Sweeps:
    """All live sweeps.

    Args:
        failing: called once for a sweep, with its id and the cell that failed first.
    """

    def __init__(self, mirror: Mirror, failing: Callable[[int, int], None] | None = None) -> None:
        self.m = mirror
        self.live: dict[int, LiveSweep] = {}
        self.touched: set[int] = set()
        self._failing = failing
        self._order: list[int] = []
        self._seen = 0  # sweeps up to this id are known
        self._watch: defaultdict[int, set[int]] = defaultdict(set)  # job -> sweeps that want to know of its end
        mirror.listeners.append(self.hear)

    def look(self) -> None:
        """Take up sweeps that the journal has and we do not."""
        for sweep_id in lookups.live_sweeps(self.m.journal.conn, self._seen):
            self._load(sweep_id)
            self._seen = sweep_id

    def of(self, job: int) -> LiveSweep | None:
        """The live sweep of which `job` is a cell."""
        at = bisect_right(self._order, job - 1) - 1
        if at >= 0:
            sweep = self.live[self._order[at]]
            if job <= sweep.id + sweep.row.cells:
                return sweep
        return None

    def placeable(self) -> list[LiveSweep]:
        """Sweeps with cells that may be placed, in the order of the queue."""
        found = [s for s in self.live.values() if s.placeable]
        return sorted(found, key=lambda s: (-s.priority, s.id))

    @property
    def limited(self) -> set[int]:
        """Sweeps that stop after some number of failures."""
        return {s.id for s in self.live.values() if s.row.max_fails is not None}

    def settle(self) -> bool:
        """Record what follows for the sweeps that were touched. True when something did."""
        did = False
        while self.touched:
            mine, self.touched = self.touched, set()
            try:
                events = [e for sweep_id in sorted(mine) for e in self._follows(sweep_id)]
                if events:
                    self.m.record(events)
                    did = True
            except BaseException:
                self.touched |= mine
                raise
        return did

    def answer(self, job: Job) -> list[Event]:
        """The events that answer what a person asked of a sweep."""
        sweep = self.live.get(job.id)
        if sweep is None:
            return []
        if job.wish == "cancel":
            running = spans_of(lookups.own_ids(self.m.journal.conn, sweep.id, JobState.RUNNING))
            events = self._end_waiting(sweep, JobState.CANCELLED, Cause.CANCELLED, f"sweep {sweep.id} was cancelled")
            if running:
                events.append(decide.cells_event(running, JobState.CANCELLING, Cause.CANCELLED, "cancel asked"))
            return [*events, Event(EventKind.CANCELLING, job=sweep.id, data={"reason": "cancel asked"})]
        if job.wish == "hold" and sweep.state in (JobState.QUEUED, JobState.RUNNING):
            return [Event(EventKind.HELD, job=sweep.id)]
        if job.wish in ("hold", "release"):
            # Nobody holds a cell by itself and then means to keep it when the whole is let go.
            cells = [Event(EventKind.RELEASED, job=i) for i in sorted(sweep.held)] if job.wish == "release" else []
            kind = EventKind.RELEASED if job.wish == "release" else EventKind.HELD
            return [*cells, Event(kind, job=sweep.id)]
        return []

    # Listening.

    def hear(self, events: Sequence[Event]) -> None:
        for event in events:
            kind, job, data = event.kind, event.job, event.data
            if kind is EventKind.BATCH_ENDED:
                self._batch_ended(data)
            elif kind is EventKind.BATCH_PLACED:
                if "copy_of" in data:  # the first copy's end has just put them back
                    for first, last, _n in data["cells"]:
                        self._taken(first, last)
            elif kind is EventKind.CELLS:
                self._cells(data)
            elif job is None:
                continue
            elif (kind is EventKind.CELL_ENDED and data["to"] == JobState.QUEUED) or kind is EventKind.REQUEUED:
                self._waits_again(job)
            elif kind in (EventKind.CELL_ENDED, EventKind.JOB_ENDED):
                state = JobState(data["to" if kind is EventKind.CELL_ENDED else "state"])
                if job in self.live:
                    self._drop(job)
                else:
                    self._cell_ended(job, state, str(data.get("reason") or data.get("cause") or ""))
                self._ended(job, state)
            elif kind is EventKind.PLACED:
                sweep = self.of(job)
                if sweep is not None:
                    sweep.waiting.discard(job)
            elif kind in (EventKind.HELD, EventKind.RELEASED, EventKind.SWEEP_OPENED, EventKind.CANCELLING):
                self._moved(kind, job)

    def _batch_ended(self, data: dict[str, object]) -> None:
        ok, back = data["ok"], data["back"]
        assert isinstance(ok, list)
        assert isinstance(back, list)
        for first, last, _n in ok:
            sweep = self.of(first)
            if sweep is not None:
                sweep.own[JobState.SUCCEEDED] += last - first + 1
                self.touched.add(sweep.id)
            if self._watch:
                few = self._watch if len(self._watch) <= last - first else range(first, last + 1)
                for job in [j for j in few if first <= j <= last and j in self._watch]:
                    self._ended(job, JobState.SUCCEEDED)
        for first, last, _n in back:
            sweep = self.of(first)
            if sweep is not None:
                sweep.waiting.add(first, last)
                self.touched.add(sweep.id)

    def _taken(self, first: int, last: int) -> None:
        sweep = self.of(first)
        if sweep is not None:
            for cell in range(first, last + 1):
                sweep.waiting.discard(cell)

    def _cells(self, data: dict[str, object]) -> None:
        state, spans = JobState(str(data["state"])), data["cells"]
        assert isinstance(spans, list)
        if not state.terminal or not spans:
            return
        sweep = self.of(spans[0][0])
        if sweep is None:
            return
        sweep.own[state] += count(spans)
        sweep.waiting.clear()
        sweep.held.clear()
        self.touched.add(sweep.id)
        for first, last in spans:
            for job in [j for j in self._watch if first <= j <= last]:
                self._ended(job, state)

    def _waits_again(self, job: int) -> None:
        sweep = self.of(job)
        if sweep is not None:
            sweep.waiting.add(job)
            self.touched.add(sweep.id)

    def _cell_ended(self, job: int, state: JobState, reason: str) -> None:
        sweep = self.of(job)
        if sweep is None:
            return
        sweep.waiting.discard(job)
        sweep.held.discard(job)
        sweep.own[state] += 1
        self.touched.add(sweep.id)
        if state is JobState.FAILED:
            self._failure(sweep, job, reason)

    def _failure(self, sweep: LiveSweep, job: int, reason: str) -> None:
        sweep.said += 1
        if sweep.said <= _SAID:
            more = "; of further ones only the number" if sweep.said == _SAID else ""
            say(f"sweep {sweep.id}: job {job} failed: {reason}{more}")
        if sweep.failed == 1 and self._failing is not None:
            self._failing(sweep.id, job)

    def _ended(self, job: int, state: JobState) -> None:
        """Somebody may have waited for this very job."""
        for sweep_id in self._watch.pop(job, ()):
            sweep = self.live.get(sweep_id)
            if sweep is None:
                continue
            if job in sweep.lenders:
                sweep.lenders.discard(job)
                sweep.borrowed[state] += 1
                if state is JobState.FAILED:
                    self._failure(sweep, job, "see there")
            self.touched.add(sweep_id)

    def _moved(self, kind: EventKind, job: int) -> None:
        sweep = self.live.get(job)
        if sweep is not None:
            sweep.state = {
                EventKind.HELD: JobState.HELD,
                EventKind.RELEASED: JobState.QUEUED,
                EventKind.SWEEP_OPENED: JobState.RUNNING,
                EventKind.CANCELLING: JobState.CANCELLING,
            }[kind]
            self.touched.add(job)
            return
        sweep = self.of(job)
        if sweep is None:
            return
        if kind is EventKind.HELD and sweep.waiting.discard(job):
            sweep.held.add(job)
        elif kind is EventKind.RELEASED and job in sweep.held:
            sweep.held.discard(job)
            sweep.waiting.add(job)

    # What follows.

    def _follows(self, sweep_id: int) -> list[Event]:
        sweep = self.live.get(sweep_id)
        if sweep is None:
            return []
        if sweep.state is JobState.QUEUED:
            return self._opened(sweep)
        cancelling = sweep.state is JobState.CANCELLING
        if sweep.waiting or sweep.held:
            if cancelling:
                reason = f"sweep {sweep_id} was cancelled"
                return self._end_waiting(sweep, JobState.CANCELLED, Cause.CANCELLED, reason)
            if sweep.stopped:
                reason = f"more than {sweep.row.max_fails:,} cells of sweep {sweep_id} had failed"
                return self._end_waiting(sweep, JobState.SKIPPED, Cause.MAX_FAILS, reason)
            return []
        if sweep.own.total() < sweep.row.cells or (sweep.lenders and not cancelling):
            return []
        return self._end(sweep)

    def _opened(self, sweep: LiveSweep) -> list[Event]:
        needs = query.dependencies(self.m.journal.conn, sweep.id)
        waits = [job.id for _, job in needs if not job.state.terminal]
        for job_id in waits:
            self._watch[job_id].add(sweep.id)
        if waits:
            return []
        bad = next((u for cond, u in needs if cond is Cond.OK and u.state is not JobState.SUCCEEDED), None)
        if bad is None:
            return [Event(EventKind.SWEEP_OPENED, job=sweep.id)]
        end = decide.skipped(query.job(self.m.journal.conn, sweep.id), bad)
        return [*self._end_waiting(sweep, JobState.SKIPPED, Cause.DEPENDENCY, end.data["reason"]), end]

    def _end_waiting(self, sweep: LiveSweep, state: JobState, cause: Cause, reason: str) -> list[Event]:
        ids = Ids(sweep.waiting.spans())
        for job in sweep.held:
            ids.add(job)
        return [decide.cells_event(ids.spans(), state, cause, reason)] if ids else []

    def _end(self, sweep: LiveSweep) -> list[Event]:
        conn = self.m.journal.conn
        own = lookups.own_counts(conn, sweep.id)
        if Counter(own) != +sweep.own:
            say(f"sweep {sweep.id}: a bug of ours: counted {dict(sweep.own)}, the journal has {own}; counting again")
            self._load(sweep.id)
            return []
        first = query.first_failure(conn, sweep.id)
        cause = first.cause if first is not None else self._cause_of_lent(sweep)
        stopped = sweep.row.max_fails if sweep.stopped and sweep.own[JobState.SKIPPED] else None
        counts = query.sweep_counts(conn, sweep.id)
        return [decide.sweep_ended(query.job(conn, sweep.id), counts, cause, stopped_after=stopped)]

    def _cause_of_lent(self, sweep: LiveSweep) -> str | None:
        if not sweep.borrowed[JobState.FAILED]:
            return None
        failed = query.cells(self.m.journal.conn, sweep.id, states=(JobState.FAILED,), limit=1)
        return failed[0].cause if failed else None

    # Reading.

    def _load(self, sweep_id: int) -> None:
        conn = self.m.journal.conn
        row, job = query.sweep(conn, sweep_id), query.job(conn, sweep_id)
        counts = lookups.own_counts(conn, sweep_id)
        if counts.get(JobState.QUEUED, 0) == row.cells:
            waiting = Ids([(sweep_id + 1, sweep_id + row.cells)])
        else:
            waiting = Ids(spans_of(lookups.own_ids(conn, sweep_id, JobState.QUEUED)))
        members = lookups.member_states(conn, sweep_id)
        sweep = LiveSweep(
            row=row,
            priority=job.priority,
            spec=job.spec,
            uniform=not lookups.has_own_specs(conn, sweep_id, row.cells),
            state=job.state,
            waiting=waiting,
            held=set(lookups.own_ids(conn, sweep_id, JobState.HELD)),
            own=Counter({state: n for state, n in counts.items() if state.terminal}),
            borrowed=Counter(state for _, state in members if state.terminal),
            lenders={i for i, state in members if not state.terminal},
        )
        sweep.said = sweep.failed
        if sweep_id not in self.live:
            insort(self._order, sweep_id)
        self.live[sweep_id] = sweep
        for lender in sweep.lenders:
            self._watch[lender].add(sweep_id)
        self.touched.add(sweep_id)

    def _drop(self, sweep_id: int) -> None:
        sweep = self.live.pop(sweep_id)
        self._order.remove(sweep_id)
        self.touched.discard(sweep_id)
        for lender in sweep.lenders:
            self._watch[lender].discard(sweep_id)
