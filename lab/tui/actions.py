"""What the keys ask for: the very commands of the command line, with their answers caught for the last line.

A command writes a request row and says so; nothing here knows how. They may wait for the journal, so they are called
from a worker thread, one at a time.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from core.errors import LabError
from core.states import JobState
from lab.output import Face, Page, Report
from lab.session import Session, session

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What came of it, in one line."""

    said: str
    fine: bool


class Caught(Face):
    """A face that keeps what was said instead of writing it on the screen."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, report: Report) -> None:
        self.lines += list(report.text(self.page))

    def remark(self, line: str) -> None:
        self.lines.append(line)

    def failed(self, slug: str, message: str, hint: str, exit_code: int) -> None:
        self.lines.append(f"{message}; {hint}" if hint else message)

    def raw(self, text: str) -> None:
        self.lines += text.splitlines()

    @property
    def page(self) -> Page:
        return Page(None, False, True, False)


def cancel(job: int) -> Outcome:
    from lab.commands.cancel import cancel_

    return _run(cancel_, ids=[str(job)])


def hold(job: int) -> Outcome:
    from lab.commands.hold import hold_

    return _run(hold_, ids=[str(job)])


def release(job: int) -> Outcome:
    from lab.commands.release import release_

    return _run(release_, ids=[str(job)])


def rerun(job: int, *, failed_cells: bool = False) -> Outcome:
    """Submit a job again; of a sweep the cells that failed."""
    from lab.commands.rerun import rerun_

    more = {"failed": True} if failed_cells and "failed" in inspect.signature(rerun_).parameters else {}
    return _run(rerun_, ids=[str(job)], **more)


def drain(lane: str, reason: str) -> Outcome:
    from lab.commands.lane_drain import drain_

    return _run(drain_, name=lane, reason=reason)


def resume(lane: str, reason: str) -> Outcome:
    from lab.commands.lane_resume import resume_

    return _run(resume_, name=lane, reason=reason)


def held(state: JobState, wish: str | None) -> bool:
    """Would `h` let it go rather than hold it?"""
    return (state is JobState.HELD and wish != "release") or wish == "hold"


def _run(command: Callable[..., None], **given: Any) -> Outcome:
    with _one_at_a_time:
        here: Session = session()
        before, caught = here.out, Caught()
        here.out = caught
        try:
            command(**given)
        except LabError as error:
            return Outcome(str(error), False)
        except typer.Exit as ending:
            return Outcome(_short(caught), ending.exit_code == 0)
        except OSError as error:
            return Outcome(f"that did not work: {error.strerror or error}", False)
        except Exception as error:  # a bug of ours must not take the screen away
            return Outcome(f"a bug of lab: {type(error).__name__}: {error}", False)
        finally:
            here.out = before
        return Outcome(_short(caught), True)


def _short(caught: Caught) -> str:
    lines = [line.strip() for line in caught.lines if line.strip()]
    return "  ".join(lines[:2])
