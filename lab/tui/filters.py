"""What is shown, and in which order: the words typed behind `/`, and the orders of `s`."""

from __future__ import annotations

from dataclasses import dataclass

from core.journal.query import Job
from core.states import JobState
from lab.output import job as look
from lab.tui.facts import SweepFact

ORDERS = ("state", "newest", "longest", "name")

# What runs first, then what is next, then what waits for a person, then what ended.
_RANK = {
    JobState.RUNNING: 0,
    JobState.CANCELLING: 0,
    JobState.QUEUED: 1,
    JobState.HELD: 2,
}


@dataclass(frozen=True)
class Filter:
    """The words of a filter. Several of one sort: any of them; of different sorts: all."""

    text: tuple[str, ...] = ()
    states: tuple[JobState, ...] = ()
    kinds: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ()
    nothing: bool = False  # a state was named that there is not

    @staticmethod
    def parse(line: str) -> Filter:
        """Words are texts to be found; state:, kind:, tag:, lane: say where. A beginning of a state is enough."""
        text: list[str] = []
        named: dict[str, list[str]] = {"state": [], "kind": [], "tag": [], "lane": []}
        for word in line.split():
            name, colon, value = word.partition(":")
            if colon and name.lower() in named:
                named[name.lower()] += [v for v in value.lower().split(",") if v]
            else:
                text.append(word.lower())
        states = [s for v in named["state"] for s in _states(v)]
        return Filter(
            tuple(text),
            tuple(dict.fromkeys(states)),
            tuple(named["kind"]),
            tuple(named["tag"]),
            tuple(named["lane"]),
            bool(named["state"]) and not states,
        )

    @property
    def empty(self) -> bool:
        return self == Filter()

    def matches(self, job: Job, sweep: SweepFact | None = None) -> bool:
        """Is this row meant? A sweep is meant by the states of its cells too."""
        if self.nothing:
            return False
        if self.states and job.state not in self.states and not (sweep is not None and sweep.of(*self.states)):
            return False
        if self.kinds and not any(job.kind.lower().startswith(k) for k in self.kinds):
            return False
        if self.tags and not any(t in have.lower() for t in self.tags for have in job.tags):
            return False
        if self.lanes and not any((job.lane or "").lower().startswith(lane) for lane in self.lanes):
            return False
        if not self.text:
            return True
        said = f"{job.id} {look.label(job)} {job.name} {' '.join(job.tags)} {job.lane or ''} {job.reason or ''}".lower()
        return all(word in said for word in self.text)


def _states(word: str) -> list[JobState]:
    if word == "live":
        return [s for s in JobState if not s.terminal]
    if word == "ended":
        return [s for s in JobState if s.terminal]
    return [s for s in JobState if s.startswith(word)]


def ordered(jobs: list[Job], order: str, now: float) -> list[Job]:
    """`jobs` in one of ORDERS."""
    if order == "newest":
        return sorted(jobs, key=lambda j: -j.id)
    if order == "longest":
        return sorted(jobs, key=lambda j: (-(look.run_time(j, now) or -1.0), j.id))
    if order == "name":
        return sorted(jobs, key=lambda j: (look.label(j).lower(), j.id))
    return sorted(jobs, key=_by_state)


def _by_state(job: Job) -> tuple[float, ...]:
    rank = _RANK.get(job.state, 3)
    if rank == 3:
        return (3, -(job.ended or 0.0), -job.id)
    if rank == 0:
        return (0, -job.priority, job.id)
    return (rank, -job.priority, job.id)
