"""`lab lane admit`: let a lane climb its ladder, and grant it the roles that it earns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import BadInput, Exit
from lab import completion, ladder, laneask
from lab.commands._climb import ClimbReport, Shown, rungs_of, watch
from lab.session import session

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
    if no_wait:
        versions = ladder.versions_known(here.home, name)
    else:
        # A look first: a lane that lacks something gets no jobs at all, and the probe's backends follow from it.
        seen = watch(here, name, laneask.ask(here.home, name, "probe"), shown)
        if not seen.ok:
            here.out.show(ClimbReport(name, list(shown.rows.values()), seen, live=shown.live))
            raise typer.Exit(Exit.JOB_FAILED)
        versions = dict(seen.data.get("versions") or {})
    made = ladder.submit_jobs(here.home, config, roles, program=program, versions=versions, cwd=Path.cwd())
    seq = laneask.ask(here.home, name, "admit", made.data)
    if no_wait:
        here.out.show(ClimbReport(name, rungs_of(here.home, name), None, made.jobs))
        return
    shown.watch(made.jobs)
    answer = watch(here, name, seq, shown)
    then = f"lab submit --lane {name} ..."
    rows = list(shown.rows.values())
    here.out.show(ClimbReport(name, rows, answer, made.jobs, live=shown.live, next=then))
    if not answer.ok:
        raise typer.Exit(Exit.JOB_FAILED)


def _program(name: str, smoke: bool, words: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    if words and not smoke:
        raise BadInput(
            f"{words[0]!r} was given beside the lane",
            hint=f"a program follows --smoke: lab lane admit {name} --smoke -- ...",
        )
    if smoke and not words:
        raise BadInput("--smoke was given without a program", hint=f"lab lane admit {name} --smoke -- python train.py")
    return tuple(words)
