"""What is known of running jobs beside the journal: their heartbeats, and which of their lanes are out of reach."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.home import Home
from core.journal import query
from core.journal.query import Job
from core.live import LiveAttempt, read_attempts, read_lanes, silence
from core.states import JobState, LaneState
from lab.output import job as look


@dataclass(frozen=True)
class Beside:
    """News of one moment.

    Attributes:
        live: by job and attempt.
        away: lanes that cannot be reached, and for how many seconds, if that is known.
        silent: lanes whose connections we closed ourselves, and what that is for.
    """

    live: Mapping[tuple[int, int], LiveAttempt] = field(default_factory=dict)
    away: Mapping[str, float | None] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def read(home: Home, conn: sqlite3.Connection, jobs: Sequence[Job]) -> Beside:
        """Whatever may matter for those of `jobs` that run."""
        if not any(j.state is JobState.RUNNING for j in jobs):
            return Beside()
        away = [x.name for x in query.lanes(conn) if x.state is LaneState.UNREACHABLE]
        heard = read_lanes(home)
        silent = {name: said for name, found in heard.items() if (said := silence(found))}
        return Beside(read_attempts(home), {name: heard.get(name, {}).get("age_s") for name in away}, silent)

    def live_of(self, job: Job) -> LiveAttempt | None:
        return look.with_goal(self.live.get((job.id, job.attempts)), job) if job.state is JobState.RUNNING else None

    def away_of(self, job: Job) -> str:
        """What it means for the job that its lane is out of reach, or silent; empty where it is neither."""
        if job.state is not JobState.RUNNING or job.lane is None:
            return ""
        if job.lane in self.silent:
            return f"{job.lane} is {self.silent[job.lane]}"
        if job.lane not in self.away:
            return ""
        return look.away(job.lane, self.away[job.lane])
