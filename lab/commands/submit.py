"""`lab submit`: put a job into the queue. An id is printed only once the journal has it on disk."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import BadInput
from core.grid import Grid
from lab import arguments, completion
from lab.commands._submitted import carry_on
from lab.commands._upload import agree
from lab.gridwords import Axes, read_axes, read_excludes, read_zips
from lab.jobsfile import read_jobs, read_sweep
from lab.planning import Request
from lab.session import Session, session
from lab.submission import submit

EPILOG = """
Examples:
  lab submit parity --wait --results
  lab submit parity --set sizes=[1,4] --cores 2 --time-limit 10m
  lab submit command --input data.csv --output model.pt -- python train.py --alpha 20
  lab submit command --after ok:17 --plan -- python score.py
  lab submit command --input data=bat00:/data/scan3 -- python train.py
  lab submit --file jobs.yaml

Sweeps:
  lab submit kernel --grid height=64,128 --grid alpha=0:1:0.25 --at-once 8
  lab submit parity --grid "sizes=[1],[1,4]" --grid seed=1..100%8 --exclude "sizes=[1],seed=3"
  lab submit command --grid lr=1e-3,1e-2 --max-fails 3 -- python train.py --lr {lr}
  lab submit --sweep sweep.yaml

  A value list is read as YAML with commas between; first..last counts, first:last:step goes in
  steps, both with the last value; %8 at the end of any axis means at most 8 cells at once.
  --zip a,b moves two axes together. The last axis moves fastest. For kind command an axis fills
  {its name} in the words of the program; other braces stay as they are. Lists in a file:
  kind, set, grid, zip, exclude, at_once, max_fails, after, needs, limits, and so on.
"""

_SWEEP, _NEEDS, _WHEN, _DATA, _LABELS, _DOING = (
    "Many at once",
    "What it needs",
    "When it runs",
    "What goes in and out",
    "What it is called",
    "What happens now",
)


def submit_(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="What to run: command, parity, ...", autocompletion=completion.kinds),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- PROGRAM ARG", help="For kind command: the program and its arguments."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="NAME=VALUE",
            help="A parameter of the kind; values are read as YAML.",
            autocompletion=completion.parameters,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="Submit the jobs of this YAML file, all or none."),
    ] = None,
    sweep: Annotated[
        Path | None,
        typer.Option("--sweep", metavar="FILE", help="Submit the sweep of this YAML file.", rich_help_panel=_SWEEP),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            "-g",
            metavar="NAME=VALUES",
            help="An axis: 1,2,3 or 1..100 or 0:1:0.25; a job for each combination.",
            autocompletion=completion.axes,
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    zips: Annotated[
        list[str] | None,
        typer.Option("--zip", metavar="NAME,NAME", help="These axes go together.", rich_help_panel=_SWEEP),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="NAME=VALUE,...",
            help="Leave out the cells that have all of this.",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", metavar="N", help="At most N cells at the same time.", rich_help_panel=_SWEEP),
    ] = None,
    max_fails: Annotated[
        int | None,
        typer.Option(
            "--max-fails",
            metavar="N",
            help="Start no further cell once more than N have failed.",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only show what would run where, and what is there already.", rich_help_panel=_DOING
        ),
    ] = False,
    wait_for: Annotated[
        bool,
        typer.Option(
            "--wait", "-w", help="Wait for the end; Ctrl-C stops watching, not the job.", rich_help_panel=_DOING
        ),
    ] = False,
    results: Annotated[
        bool, typer.Option("--results", help="With --wait: show the result tables.", rich_help_panel=_DOING)
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before a large upload.", rich_help_panel=_DOING)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run even if the result is there already.", rich_help_panel=_DOING)
    ] = False,
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep it from starting until `lab release`.", rich_help_panel=_DOING)
    ] = False,
    cores: Annotated[
        int | None, typer.Option("--cores", metavar="N", help="CPU cores.", rich_help_panel=_NEEDS)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory, such as 2G; above it the attempt is ended.",
            rich_help_panel=_NEEDS,
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="N", help="Whole GPUs.", rich_help_panel=_NEEDS)] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option("--resource", metavar="NAME", help="An exclusive resource of the lane.", rich_help_panel=_NEEDS),
    ] = None,
    lanes: Annotated[
        list[str] | None,
        typer.Option(
            "--lane", metavar="LANE", help="Only this lane.", autocompletion=completion.lanes, rich_help_panel=_NEEDS
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="A lane admitted for this role.",
            autocompletion=completion.roles,
            rich_help_panel=_NEEDS,
        ),
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(
            "--after",
            metavar="ok:ID|any:ID",
            help="Not before that job has succeeded, or ended.",
            autocompletion=completion.dependencies,
            rich_help_panel=_WHEN,
        ),
    ] = None,
    priority: Annotated[
        int,
        typer.Option("--priority", metavar="N", help="Higher runs first.", rich_help_panel=_WHEN, show_default=False),
    ] = 0,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", "-t", metavar="TIME", help="End it after this long.", rich_help_panel=_WHEN),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace", metavar="TIME", help="Between the warning (SIGTERM) and the kill [10s].", rich_help_panel=_WHEN
        ),
    ] = None,
    retries: Annotated[
        list[str] | None,
        typer.Option(
            "--retries",
            metavar="[CAUSE=]N",
            help="Try again so often when it ends by CAUSE (its own failure).",
            autocompletion=completion.causes,
            rich_help_panel=_WHEN,
        ),
    ] = None,
    on_unreachable: Annotated[
        str | None,
        typer.Option(
            "--on-unreachable",
            metavar="WORD",
            help="When its lane is out of reach: wait, or requeue-after:2h [wait].",
            rich_help_panel=_WHEN,
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="[NAME=]PATH[:DEST]",
            help="A file or folder that it reads; hashed now. LANE:/PATH lies on that lane.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="A file that it writes, to be kept.", rich_help_panel=_DATA
        ),
    ] = None,
    artifacts: Annotated[
        list[str] | None,
        typer.Option(
            "--expect-artifact",
            metavar="NAME",
            help="Must be there at the end, or the job fails.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option("--expect-step", metavar="N", help="Its metrics must reach this step.", rich_help_panel=_DATA),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME[=VALUE]", help="A variable for it; alone: as it is here.", rich_help_panel=_DATA
        ),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            "--code",
            metavar="PATH",
            help="Folder of the code to copy [the repository here]; `none` for none.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    allow_read: Annotated[
        list[str] | None,
        typer.Option("--allow-read", metavar="PATH", help="May be read without being declared.", rich_help_panel=_DATA),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="WORD",
            help="Submitting again with the same key makes no second job.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="TEXT", help="Its name in lists.", rich_help_panel=_LABELS)
    ] = "",
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            metavar="TAG",
            help="A word to find it by.",
            autocompletion=completion.tags,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why it is run.", rich_help_panel=_LABELS)] = "",
) -> None:
    """Put a job into the queue, or with --grid a sweep of many.

    If the same job (kind, parameters, inputs, code) has succeeded before, nothing runs: its results are there. The
    same is true of each cell of a sweep.
    """
    here = session()
    needs = {"cores": cores, "gpus": gpus, "lane": _one_lane(lanes), "role": role, "resources": resource or None}
    limits = {"time_s": _seconds(time_limit, "--time-limit"), "grace_s": _seconds(grace, "--grace")}
    params = arguments.parameters(kind or "", sets, words)
    axes = read_axes(grid)
    if axes.at_once is not None:
        at_once = min(axes.at_once, at_once or axes.at_once)
    request = Request(
        kind or "",
        params,
        name=name,
        needs=_given(needs | {"memory_mb": arguments.memory_mb(memory, "--memory") if memory is not None else None}),
        limits=_given(limits),
        inputs=tuple(inputs or ()),
        code=code,
        env=arguments.environment(env),
        outputs=tuple(outputs or ()),
        expect=_given({"artifacts": tuple(artifacts) if artifacts else None, "last_step": step}),
        after=tuple(after or ()),
        idem=key,
        priority=priority,
        tags=tuple(tags or ()),
        note=note,
        retries=arguments.retry_bounds(retries),
        allow_undeclared=tuple(allow_read or ()),
        on_unreachable=on_unreachable or "wait",
        grid=_grid(axes, zips, exclude, params),
        words=axes.words,
        at_once=at_once,
        max_fails=max_fails,
    )
    requests = _requests(request, file, sweep)
    argv = ("lab", *sys.argv[1:])
    requests = [replace(r, argv=argv, held=r.held or hold, force=r.force or force) for r in requests]
    if plan:
        _show_plan(here, requests)
        return
    answers = submit(here.home, requests, cwd=Path.cwd(), before=lambda p, made: agree(here, p, made, yes=yes))
    carry_on(here, answers, wait_for=wait_for, results=results)


def _requests(request: Request, file: Path | None, sweep: Path | None) -> list[Request]:
    """The one job of the command line, or those of the file; never a mixture."""
    option, path = ("--file", file) if file is not None else ("--sweep", sweep)
    if path is None:
        if not request.kind:
            hint = "such as `lab submit parity`, or `lab submit command -- python train.py`"
            raise BadInput("no kind was given", hint=hint)
        if request.kind == "command" and request.grid is None and not request.params.get("argv"):
            hint = "put the program after --, such as `lab submit command -- python train.py`"
            raise BadInput("kind command was given no program", hint=hint)
        return [request]
    if request != Request("") or (file is not None and sweep is not None):
        what = "a job's own options" if request != Request("") else "--sweep"
        raise BadInput(f"{option} was given together with {what}", hint="put them into the file")
    return read_jobs(path) if file is not None else [read_sweep(path)]


def _one_lane(given: list[str] | None) -> str | None:
    names = list(dict.fromkeys(given or ()))
    if len(names) > 1:
        raise BadInput(
            f"--lane names {' and '.join(names)}, and a job runs on one lane",
            hint="give one; without --lane it goes where it should be done first",
        )
    return names[0] if names else None


def _grid(axes: Axes, zips: list[str] | None, exclude: list[str] | None, params: Mapping[str, Any]) -> Grid | None:
    if not axes.values:
        if zips or exclude:
            word = "--zip" if zips else "--exclude"
            raise BadInput(f"{word} was given without an axis", hint="give one, such as --grid alpha=1,2,3")
        return None
    return Grid.of(axes.values, zip=read_zips(zips), exclude=read_excludes(exclude), base=params)


def _show_plan(here: Session, requests: list[Request]) -> None:
    from lab.commands._plan import PlanReport
    from lab.plan import plan

    here.out.show(PlanReport(plan(here.home, requests, cwd=Path.cwd())))


def _seconds(text: str | None, option: str) -> float | None:
    return arguments.duration(text, option) if text is not None else None


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Without what was not given: the kind's own defaults count then."""
    return {k: v for k, v in values.items() if v is not None}
