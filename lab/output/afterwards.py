"""What a person most likely wants to do after having seen a job."""

from __future__ import annotations

from core.journal.query import Job
from core.states import JobState


def next_step(job: Job, *, tables: bool) -> str:
    """The command that a person most likely wants now."""
    if job.state is JobState.SUCCEEDED:
        return f"lab results {job.id}" if tables else f"lab fetch {job.id}, lab logs {job.id}"
    if job.state is JobState.FAILED:
        return f"lab logs {job.id}, then lab rerun {job.id}"
    if job.state is JobState.RUNNING:
        return f"lab logs {job.id} -f"
    if job.state is JobState.HELD:
        return f"lab release {job.id}"
    return f"lab explain {job.id}"
