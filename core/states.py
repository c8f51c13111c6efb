"""States and causes. Strings in the journal, enums in the code; nothing else may be stored."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"  # may be placed as soon as its dependencies and a lane allow
    HELD = "held"  # a person said: not now
    RUNNING = "running"  # an attempt is placed on a lane
    CANCELLING = "cancelling"  # cancelled, but something of it still lives
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # a dependency ended in a way that this job does not accept

    @property
    def terminal(self) -> bool:
        return self in TERMINAL_JOB_STATES


TERMINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED})


class AttemptState(StrEnum):
    PLACED = "placed"  # journaled before the lane hears of it
    RUNNING = "running"  # acknowledged by its own heartbeat
    SUCCEEDED = "succeeded"  # committed
    FAILED = "failed"
    LOST = "lost"  # its processes are gone and it left no seal
    REVOKED = "revoked"  # may never commit, whatever it comes back with
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self not in (AttemptState.PLACED, AttemptState.RUNNING)


class Cause(StrEnum):
    """Why an attempt ended. One word per thing a person would do differently about it."""

    OK = "ok"
    ERROR = "error"  # the program or kind failed by itself: non-zero exit, exception
    SIGNAL = "signal"  # ended by a signal that was not ours; when it starts again, see lanes.decide
    TIME_LIMIT = "time-limit"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"  # asked to leave, checkpointed, left
    RUNNER_DIED = "runner-died"  # the attempt's supervisor was killed
    LANE_REBOOTED = "lane-rebooted"
    START_LOST = "start-lost"  # placed, but it never began
    UNREACHABLE = "unreachable"  # its lane was out of reach for longer than the job allows, or was given up
    LANE_REFUSED = "lane-refused"  # what it needs cannot be sent to the lane
    SETUP = "setup"  # working folder, inputs or interpreter could not be made ready
    STALE_INPUT = "stale-input"  # an input is not what it was when the job was submitted
    MEMORY = "memory"  # above its memory grant
    HOST_MEMORY = "host-memory"  # killed by the kernel's out-of-memory killer
    DEVICE_MEMORY = "device-memory"  # a GPU had too little memory for it
    DISK_FULL = "disk-full"
    NOT_FINITE = "not-finite"  # a number of the work is infinite or none at all: a training that diverged
    INCOMPLETE = "incomplete"  # exit 0, but not everything that was planned is there
    CHECK_CANNOT_FAIL = "check-cannot-fail"  # a negative control passed
    BAD_SEAL = "bad-seal"  # the files do not match the manifest
    DEPENDENCY = "dependency"
    MAX_FAILS = "max-fails"  # too many cells of its sweep had failed before it began


# How often each cause may be retried without the user asking for it. What is not named is not retried:
# a program that fails by itself will fail again, and hiding that would cost a night.
DEFAULT_RETRIES: dict[Cause, int] = {
    Cause.PREEMPTED: 20,
    Cause.RUNNER_DIED: 3,
    Cause.LANE_REBOOTED: 10,
    Cause.START_LOST: 5,
    Cause.UNREACHABLE: 10,
    Cause.LANE_REFUSED: 2,
    Cause.HOST_MEMORY: 1,
    Cause.DEVICE_MEMORY: 1,
    Cause.DISK_FULL: 1,
    Cause.BAD_SEAL: 1,
}


class LaneState(StrEnum):
    DECLARED = "declared"  # in cluster.yaml, not admitted: nothing is placed on it
    UP = "up"
    UNREACHABLE = "unreachable"  # link state, never job state
    DRAINING = "draining"
    QUARANTINED = "quarantined"  # it misbehaved: nothing is placed on it until it is admitted again
    DOWN = "down"


class Rung(StrEnum):
    """The ladder of admission, lowest first. Each is climbed with evidence, or not at all."""

    REACHABLE = "reachable"
    TRUSTED = "trusted"  # its host key is known, and it is the one that answers
    AUTHENTICATED = "authenticated"
    PYTHON = "python"  # an agent runs there: Python, a folder of ours, one head
    ENVIRONMENT = "environment"  # made, or matched
    DEVICE = "device"  # what is declared is there, and free
    DISK = "disk"
    TRANSFER = "transfer"  # code and inputs arrive and hash equal
    SMOKE = "smoke"  # one real step in the foreground
    PARITY = "parity"  # kernels against the float64 oracle, with a negative control that must fail
    OUTLIVES = "outlives"  # an attempt in the background lives on while every connection is closed
    RETURNS = "returns"  # its artifacts come back and verify


class Cond(StrEnum):
    """What a dependency must have done: `--after ok:ID` or `--after any:ID`."""

    OK = "ok"
    ANY = "any"


class EventKind(StrEnum):
    """Everything that the journal can say. The first group may be written by any process."""

    SPEC = "spec"
    SUBMITTED = "submitted"
    SWEPT = "swept"  # a sweep and its cells, which are in the table `cell`
    AXES = "axes"  # what a sweep goes over, and the jobs that answer cells of it; follows SWEPT
    DISCARDED = "discarded"  # evidence that was removed on request
    CANCEL_ASKED = "cancel-asked"
    HOLD_ASKED = "hold-asked"
    RELEASE_ASKED = "release-asked"
    DRAIN_ASKED = "drain-asked"
    RESUME_ASKED = "resume-asked"
    DOWN_ASKED = "down-asked"
    LANE_ASKED = "lane-asked"  # probe, admit, down, data, ...: the controller answers each by itself
    CLAIM_STATED = "claim-stated"  # its whole definition, once for a name
    CLAIM_WITHDRAWN = "claim-withdrawn"
    CLAIM_EVALUATED = "claim-evaluated"  # its label at that time, and the digests of what it was made of
    WAIVED = "waived"  # a check was relaxed for a job that a claim cites: who says so, and why
    PINNED = "pinned"  # retention never takes what the job left
    UNPINNED = "unpinned"
    # From here on the controller alone.
    CONTROLLER_UP = "controller-up"
    CONTROLLER_DOWN = "controller-down"
    LANE = "lane"
    LANE_ANSWERED = "lane-answered"
    RUNG = "rung"  # a rung of the ladder was climbed, or not
    ADMITTED = "admitted"  # a role was granted to a lane, or taken from it
    HELD = "held"
    RELEASED = "released"
    PLACED = "placed"
    STARTED = "started"
    CANCELLING = "cancelling"
    ATTEMPT_ENDED = "attempt-ended"
    REQUEUED = "requeued"
    JOB_ENDED = "job-ended"
    SWEEP_OPENED = "sweep-opened"  # its dependencies are fulfilled: its cells may be placed
    CELLS = "cells"  # many cells change their state at once, without an attempt
    BATCH_PLACED = "batch-placed"
    BATCH_ENDED = "batch-ended"
    CELL_ENDED = "cell-ended"  # a cell of a batch that did not plainly succeed
    COMPACTED = "compacted"  # small table parts became large ones


REQUEST_EVENTS = frozenset(
    {
        EventKind.SPEC,
        EventKind.SUBMITTED,
        EventKind.SWEPT,
        EventKind.AXES,
        EventKind.DISCARDED,
        EventKind.CANCEL_ASKED,
        EventKind.HOLD_ASKED,
        EventKind.RELEASE_ASKED,
        EventKind.DRAIN_ASKED,
        EventKind.RESUME_ASKED,
        EventKind.DOWN_ASKED,
        EventKind.LANE_ASKED,
        EventKind.CLAIM_STATED,
        EventKind.CLAIM_WITHDRAWN,
        EventKind.CLAIM_EVALUATED,
        EventKind.WAIVED,
        EventKind.PINNED,
        EventKind.UNPINNED,
    }
)
