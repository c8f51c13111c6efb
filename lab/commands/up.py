"""`lab up`: start the controller and see it answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core import cluster
from core.errors import BadInput
from core.journal import Journal, Role
from lab import arguments, control
from lab.commands.lanes import LanesReport, look_up
from lab.output import Page, Report
from lab.session import session

_TIMEOUT = "90s"


def up_(
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long to wait for its answer.")
    ] = _TIMEOUT,
) -> None:
    """Start the controller.

    `lab submit` does this by itself; here you see it answer, and the lanes that it has.
    """
    here = session()
    seconds = arguments.duration(timeout, "--timeout")
    if seconds <= 0:
        raise BadInput(f"--timeout {timeout} is no time at all", hint="write it as 90s or 2m")
    cluster.load(here.home.cluster_file)  # a broken cluster.yaml is refused here, not in a log
    Journal.open(here.home, Role.CLIENT, create=True).close()
    started = control.start_and_wait(here.home, seconds)
    here.out.show(UpReport(started, str(here.home.path), look_up(here)))


@dataclass(frozen=True)
class UpReport(Report):
    """The controller runs."""

    started: bool
    home: str
    lanes: LanesReport

    schema = "lab.up/1"

    def json(self) -> dict[str, Any]:
        return {"started": self.started, "home": self.home, "lanes": self.lanes.json()["lanes"]}

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok')} the controller of {self.home} {'is up' if self.started else 'was up already'}"
        yield ""
        yield from self.lanes.text(page)
