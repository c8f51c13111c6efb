"""`lab run`: a kind in this very process. No Ray, no controller, no queue: a debugger just works."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import BadInput, Exit
from lab import arguments, completion
from lab.output import Page, Report, human
from lab.session import session

EPILOG = """
Examples:
  lab run parity --set sizes=[1]
  python -m pdb -m lab run parity        (stops at a breakpoint inside the kind)

The result never answers a later submit and supports no claim: `lab submit` is for that.
"""


def run_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to run.", autocompletion=completion.kinds)],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- PROGRAM ARG", help="For kind command: the program and its arguments."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A parameter of the kind; values are read as YAML."),
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="NAME=PATH", help="A declared input.")
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", "-o", metavar="PATH", help="A file that it writes, to be kept.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="NAME[=VALUE]", help="A variable for it.")] = None,
    cores: Annotated[int | None, typer.Option("--cores", metavar="N", help="Cores that it may use [all].")] = None,
) -> None:
    """Run a kind in this very process, for debugging.

    The same code, context and run directory as in a lane, without Ray, queue or controller.
    """
    from core.kind import load_kind
    from lab.params import check
    from lanes.inline import run_inline

    here = session()
    if cores is not None and cores < 1:
        raise BadInput(f"--cores {cores} is not enough to run", hint="give at least 1")
    given = arguments.parameters(kind, sets, words)
    loaded = load_kind(kind)
    params, _plain = check(loaded, given)
    if loaded.study(params) is not None:
        raise BadInput(f"kind {kind} is a study of several jobs", hint=f"submit it: lab submit {kind}")
    run, outcome = run_inline(
        loaded,
        params,
        home=here.home,
        inputs=_inputs(inputs),
        env=arguments.environment(env),
        outputs=tuple(outputs or ()),
        cores=cores,
    )
    here.out.show(RunReport(kind, run.path, outcome, _tables(run.results) if outcome.get("cause") == "ok" else ()))
    if outcome.get("cause") != "ok":
        raise typer.Exit(Exit.JOB_FAILED)


@dataclass(frozen=True)
class RunReport(Report):
    """What came out of a run in this process."""

    kind: str
    path: Path
    outcome: dict[str, Any]
    tables: Sequence[tuple[str, Any]]

    schema = "lab.run/1"

    def json(self) -> dict[str, Any]:
        tables = {name: table.to_pylist() for name, table in self.tables}
        return {"kind": self.kind, "run_dir": str(self.path), "outcome": self.outcome, "tables": tables}

    def text(self, page: Page) -> Iterable[str]:
        from lab.output.data import table_lines

        for name, table in self.tables:
            yield page.paint(f"{name}  {human.count(table.num_rows, 'row')}", "head")
            yield from table_lines(page, table)
            yield ""
        good = self.outcome.get("cause") == "ok"
        said = human.clean(str(self.outcome.get("message") or ""))
        state = page.state("succeeded" if good else "failed")
        yield f"{self.kind}  {state} in {human.span(self.outcome.get('seconds'))}" + (f": {said}" if said else "")
        yield page.paint(f"files: {self.path}", "dim")

    def brief(self) -> Iterable[str]:
        return [str(self.path)]


def _inputs(words: Sequence[str] | None) -> dict[str, Path]:
    out: dict[str, Path] = {}
    for name, path in arguments.assignments(words, "--input").items():
        if not path:  # it would be the current folder
            raise BadInput(f"the input '{name}=' has no path", hint="write --input NAME=PATH")
        full = Path(path).expanduser().absolute()
        if not full.exists():
            raise BadInput(f"the input {name!r} does not exist ({full})", hint="correct the path")
        out[name] = full
    return out


def _tables(folder: Path) -> list[tuple[str, Any]]:
    from core.tables.parts import read_arrow

    return [(path.stem, read_arrow(path)) for path in sorted(folder.glob("*.arrow"))]
