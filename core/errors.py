"""The one tree of errors that a user can meet.

A message says what happened, where, and what to do next, in one sentence. Anything that is not a
`LabError` and reaches the command line is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `lab` command (documented in README and `lab --help`)."""

    OK = 0
    JOB_FAILED = 1  # the command worked; the job that it waited for, or a check, did not succeed
    BAD_INPUT = 2  # refused before anything started
    NOT_FOUND = 3  # an id, lane or file that does not exist
    REFUSED = 4  # the home or journal is damaged, foreign, newer, or in use
    NO_RESOURCE = 5  # disk full, no lane has what is asked
    UNAVAILABLE = 6  # the controller or a lane does not answer
    INTERNAL = 70  # our own bug (sysexits EX_SOFTWARE)
    INTERRUPTED = 130  # Ctrl-C


class LabError(Exception):
    """Base of all errors meant for people.

    Args:
        message: one sentence: what happened, and where.
        hint: what to do next, an imperative phrase or a command.
    """

    exit_code: Exit = Exit.JOB_FAILED
    slug: str = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class BadInput(LabError):
    """A value that the user gave cannot be used; nothing was started."""

    exit_code = Exit.BAD_INPUT
    slug = "bad-input"


class UnknownKind(BadInput):
    slug = "unknown-kind"


class ImpossibleNeed(BadInput):
    """No lane of this cluster has what the job asks for."""

    exit_code = Exit.NO_RESOURCE
    slug = "impossible-need"


class ForeignPackage(BadInput):
    """A package of somebody else's has the name of one of ours."""

    slug = "foreign-package"


class NotFound(LabError):
    exit_code = Exit.NOT_FOUND
    slug = "not-found"


class Refused(LabError):
    """The home cannot be used as it is."""

    exit_code = Exit.REFUSED
    slug = "refused"


class JournalDamaged(Refused):
    slug = "journal-damaged"


class JournalTooNew(Refused):
    slug = "journal-too-new"


class HomeInUse(Refused):
    slug = "home-in-use"


class DiskFull(LabError):
    exit_code = Exit.NO_RESOURCE
    slug = "disk-full"
    cause = "disk-full"  # of an attempt that ends by it, one of core.states.Cause


class Unavailable(LabError):
    exit_code = Exit.UNAVAILABLE
    slug = "unavailable"


class JobFailed(LabError):
    """Raised by a kind whose work is done but whose result must not count as a success."""

    slug = "job-failed"


class CheckCannotFail(JobFailed):
    """A negative control passed: the check that it was made for proves nothing."""

    slug = "check-cannot-fail"
