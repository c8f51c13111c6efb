"""`lab lane admit`: let a lane climb its ladder, and grant it the roles that it earns."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from core.errors import BadInput, Exit
from core.journal.query import AskRow
from lab import completion, ladder, laneask
from lab.commands._climb import ClimbReport, Shown, rungs_of, watch
from lab.session import Session, session

EPILOG = """
Examples:
  lab lane admit mini --role eval
  lab lane admit bat00
  lab lane admit bat00 --role train --smoke -- python train.py --epochs 1

  The first step, and for role train the first epoch, is a small built-in training unless a
  program is given here or as `admission: {smoke: [...]}` in cluster.yaml. For role train that
  program must leave a checkpoint among its artifacts ($LAB_ARTIFACTS).
  The background attempt outlives two minutes without any connection (`admission: {outlive_s: }`).
"""


def admit_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- PROGRAM ARG", help="With --smoke: the program and its arguments."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role", metavar="ROLE", help="For this role only [all of cluster.yaml].", autocompletion=completion.roles
        ),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Use this program as the first step or epoch: --smoke -- PROGRAM ARG")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not watch the climb.")] = False,
) -> None:
    """Let a lane climb its ladder: what it earns it is admitted for.

    The climb: reached, trusted, let in, Python, packages, devices, disk, files arrive, a first step, kernels against
    the oracle, a background attempt that outlives every connection, and its results come back. Ctrl-C stops watching
    only. Ends with 1 if it is not admitted for all that was asked.
    """
    here = session()
    config = laneask.remote(here.home, name, "admit")
    roles = ladder.roles_of(config, role or ())
    program = _program(name, smoke, words or ())
    shown = Shown(here)
    again = " ".join([f"lab lane admit {name}", *(f"--role {r}" for r in role or ())])
    again += f" --smoke -- {shlex.join(program)}" if program else ""
    climb = laneask.climbing(here.home, name)
    if climb is not None:
        joined = not no_wait and not program and set(roles) <= set(climb.data.get("roles") or ())
        _while_it_climbs(here, name, climb, shown, again, joined=joined)
        return
    if no_wait:
        versions = ladder.versions_known(here.home, name)
    else:
        # A look first: a lane that lacks something gets no jobs at all, and the probe's backends follow from it.
        seen = watch(here, name, laneask.ask(here.home, name, "probe"), shown)
        if not seen.ok:
            here.out.show(ClimbReport(name, list(shown.rows.values()), seen, live=shown.live, again=again))
            raise typer.Exit(Exit.JOB_FAILED)
        versions = dict(seen.data.get("versions") or {})
    made = ladder.submit_jobs(here.home, config, roles, program=program, versions=versions, cwd=Path.cwd())
    seq = laneask.ask(here.home, name, "admit", made.data)
    if no_wait:
        here.out.show(ClimbReport(name, rungs_of(here.home, name), None, made.jobs))
        return
    _to_its_end(here, name, seq, shown, made.jobs, again)


def _to_its_end(here: Session, name: str, seq: int, shown: Shown, jobs: Mapping[str, int], again: str) -> None:
    shown.watch(jobs)
    answer = watch(here, name, seq, shown)
    then = f"lab submit --lane {name} ..."
    rows = list(shown.rows.values())
    here.out.show(ClimbReport(name, rows, answer, jobs, live=shown.live, next=then, again=again))
    if not answer.ok:
        raise typer.Exit(Exit.JOB_FAILED)


def _while_it_climbs(here: Session, name: str, climb: AskRow, shown: Shown, again: str, *, joined: bool) -> None:
    """One climb at a time: another would close its connections. It is watched, if that answers what was asked."""
    from lanes.start import ensure_controller

    said = f"{name} climbs already, since {time.strftime('%H:%M', time.localtime(climb.at))}"
    if not joined:
        answer = laneask.Answer(False, said, f"watch: lab lane admit {name}", {})
        here.out.show(ClimbReport(name, [], answer, again=again))
        raise typer.Exit(Exit.JOB_FAILED)
    here.out.remark(f"{said}: watching that climb")
    ensure_controller(here.home)
    _to_its_end(here, name, climb.seq, shown, dict(climb.data.get("jobs") or {}), again)


def _program(name: str, smoke: bool, words: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    if words and not smoke:
        raise BadInput(
            f"{words[0]!r} was given beside the lane",
            hint=f"a program follows --smoke: lab lane admit {name} --smoke -- ...",
        )
    if smoke and not words:
        raise BadInput("--smoke was given without a program", hint=f"lab lane admit {name} --smoke -- python train.py")
    return tuple(words)
