"""The command tree: which commands there are, loaded by name, one module a command.

A command's module is imported only when it runs (or its own help is asked for): `lab status` must not pay for what
`lab submit` needs. Typer checks every value through pydantic; here the plain types (text, numbers, paths, flags) are
checked directly, so that pydantic stays unloaded until a command wants it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from core.errors import BadInput
from lab.session import session


@dataclass(frozen=True)
class Entry:
    """A command in the table: where it lives, its one line of help, its section in `lab --help`."""

    module: str
    help: str
    section: str = ""
    group: bool = False


_START, _LOOK, _CHANGE, _RESULTS, _MACHINES = "Start", "Look", "Change", "Results", "Machines"

COMMANDS: Mapping[str, Entry] = {
    "init": Entry("lab.commands.init", "Write a cluster.yaml and make a home here.", _START),
    "submit": Entry("lab.commands.submit", "Put a job into the queue.", _START),
    "run": Entry("lab.commands.run", "Run a kind in this very process, for debugging.", _START),
    "status": Entry("lab.commands.status", "Show jobs and how they are.", _LOOK),
    "top": Entry("lab.commands.top", "Show lanes and jobs, live, on the whole terminal.", _LOOK),
    "explain": Entry("lab.commands.explain", "Say why a job waits, failed, or ran again.", _LOOK),
    "logs": Entry("lab.commands.logs", "Show what a job printed.", _LOOK),
    "cancel": Entry("lab.commands.cancel", "Cancel jobs, queued or running.", _CHANGE),
    "hold": Entry("lab.commands.hold", "Keep queued jobs from starting.", _CHANGE),
    "release": Entry("lab.commands.release", "Let held jobs start.", _CHANGE),
    "rerun": Entry("lab.commands.rerun", "Submit jobs again, as they were.", _CHANGE),
    "results": Entry("lab.commands.results", "Show, query or write result tables.", _RESULTS),
    "compare": Entry("lab.commands.compare", "Say how two jobs or sweeps differ; rank many.", _RESULTS),
    "fetch": Entry("lab.commands.fetch", "Copy a job's artifacts and tables here.", _RESULTS),
    "floor": Entry(
        "lab.commands.floor", "Show the floor, the verdict on every submission, and the gap to rivals.", _RESULTS
    ),
    "report": Entry("lab.commands.report", "Write a site in which every number leads to its row.", _RESULTS),
    "claim": Entry("lab.commands.claim", "State a claim, check it, show its label as it is now.", _RESULTS, group=True),
    "verify": Entry("lab.commands.verify", "Re-hash results and compare with what was sealed.", _RESULTS),
    "gc": Entry("lab.commands.gc", "Remove leftovers, old attempts and, if asked for, old results.", _RESULTS),
    "lanes": Entry("lab.commands.lanes", "Show the lanes and what runs on them.", _MACHINES),
    "lane": Entry("lab.commands.lane", "Add, trust, admit, drain or give up one lane.", _MACHINES, group=True),
    "up": Entry("lab.commands.up", "Start the controller.", _MACHINES),
    "down": Entry("lab.commands.down", "Stop the controller; attempts go on.", _MACHINES),
    "doctor": Entry("lab.commands.doctor", "Check this installation and home; recover a journal.", _MACHINES),
}

LANE_COMMANDS: Mapping[str, Entry] = {
    "add": Entry("lab.commands.lane_add", "Declare a lane in cluster.yaml.", "First contact"),
    "trust": Entry("lab.commands.lane_trust", "Show a lane's host key and keep it.", "First contact"),
    "probe": Entry("lab.commands.lane_probe", "Connect to a lane and look at it.", "First contact"),
    "provision": Entry("lab.commands.lane_provision", "Make a lane's Python environment.", "First contact"),
    "admit": Entry("lab.commands.lane_admit", "Let a lane climb its ladder.", "First contact"),
    "drain": Entry("lab.commands.lane_drain", "Place nothing more on a lane, for a reason.", "Later"),
    "resume": Entry("lab.commands.lane_resume", "Place attempts on a drained lane again.", "Later"),
    "down": Entry("lab.commands.lane_down", "Give a lane up; what runs there goes elsewhere.", "Later"),
}

EPILOG = """\
Exit codes:
  0    done
  1    the job or check that was waited for did not succeed
  2    bad input: refused before anything started
  3    an id, lane or file that does not exist
  4    the home or journal is damaged, foreign, newer, or in use
  5    disk full, or no lane has what is asked
  6    the controller or a lane does not answer
  70   a bug of ours
  130  Ctrl-C

Every command takes --json (one document with a versioned schema, errors included), --quiet and --home.
Durations are 90s, 10m, 2h30m, 1d, or as in Slurm: 2:30:00, 3-12:00:00."""


class LightCommand(TyperCommand):
    """One command: common options added, help grouped by section, values checked without pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _lighten([*super().get_params(ctx), *_common()])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _widen(formatter)
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = _help_record(param, ctx)
            if record is not None:
                argument = param.param_type_name == "argument"
                title = "Arguments" if argument else param.rich_help_panel or "Options"
                sections.setdefault(title, []).append(record)
        last = sections.pop("Everywhere", None)
        for title, records in [*sections.items(), *([("Everywhere", last)] if last else [])]:
            with formatter.section(title):
                formatter.write_dl(records, col_max=34)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_verbatim(formatter, self.epilog)


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are named. Listing them imports none."""

    table: Mapping[str, Entry] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        return _lighten([*super().get_params(ctx), *_common()])

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = self.table.get(cmd_name)
        return None if entry is None else load(cmd_name, entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.table and not args[0].startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], self.table, n=1)
            asked = f"{ctx.command_path} {near[0]}" if near else ""
            ctx.fail(f"there is no command {args[0]!r}" + (f", did you mean `{asked}`?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        from typer.models import CompletionItem  # type: ignore[attr-defined]

        found = [CompletionItem(n, help=e.help) for n, e in self.table.items() if n.startswith(incomplete)]
        return found if found or not incomplete.startswith("-") else super().shell_complete(ctx, incomplete)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _widen(formatter)
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.table.items():
            sections.setdefault(entry.section or "Commands", []).append((name, entry.help))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(8), text) for name, text in rows])
        options = [r for r in (_help_record(p, ctx) for p in self.get_params(ctx)) if r is not None]
        with formatter.section("Options"):
            formatter.write_dl(options)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_verbatim(formatter, self.epilog)


class MainGroup(LazyGroup):
    table = COMMANDS


class LaneGroup(LazyGroup):
    table = LANE_COMMANDS


@functools.cache
def load(name: str, entry: Entry) -> Any:
    """The command `name`. A command module has a function of its own name and `_`; its docstring is the help."""
    module = importlib.import_module(entry.module)
    if entry.group:
        return module.group()
    function: Callable[..., None] = getattr(module, f"{name}_")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=LightCommand, epilog=getattr(module, "EPILOG", None))(function)
    return typer.main.get_command(app)


def build_group(cls: type[LazyGroup], name: str, help_text: str, epilog: str | None = None) -> Any:
    """A group of lazily loaded commands."""

    def callback() -> None:
        pass

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback(cls=cls, help=help_text, epilog=epilog)(callback)
    group = typer.main.get_command(app)
    group.name = name
    return group


@functools.cache
def main_group() -> Any:
    group = build_group(
        MainGroup, "lab", "A job runner for a small lab: one queue, several machines, numbers that are true.", EPILOG
    )
    group.params += _params_of(_own_options)
    return group


# Options that every command has. They are not passed to the command's function: they set the session.


def _set_home(ctx: typer.Context, value: Path | None) -> None:
    if value is not None:
        session().home_given = value


def _set_json(ctx: typer.Context, value: bool) -> None:
    if value:
        session().use_json()


def _set_quiet(ctx: typer.Context, value: bool) -> None:
    if value:
        session().use_quiet()


def _show_version(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        session().show_version()
        raise typer.Exit(0)


def _show_completion(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from lab.completion import script

        session().out.raw(script() + "\n")
        raise typer.Exit(0)


def _install_completion(ctx: typer.Context, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from lab.completion import install

        session().out.remark(install())
        raise typer.Exit(0)


def _common_options(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Answer in JSON.",
            callback=_set_json,
            is_eager=True,
            expose_value=False,
            rich_help_panel="Everywhere",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Identifiers only.",
            callback=_set_quiet,
            is_eager=True,
            expose_value=False,
            rich_help_panel="Everywhere",
        ),
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            help="The home to use [$LAB_HOME, or .lab beside the nearest cluster.yaml, or ~/.lab].",
            callback=_set_home,
            is_eager=True,
            expose_value=False,
            metavar="FOLDER",
            rich_help_panel="Everywhere",
        ),
    ] = None,
) -> None:
    """Options of every command."""


def _own_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True, expose_value=False),
    ] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show-completion", help="Show this shell's completion.", callback=_show_completion, expose_value=False
        ),
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="HOST[:FOLDER]",
            help="Run the command on the lab's head, over ssh [$LAB_HEAD].",
            expose_value=False,
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            help="Complete commands, job ids and lanes in this shell from now on.",
            callback=_install_completion,
            expose_value=False,
        ),
    ] = False,
) -> None:
    """Options of `lab` itself."""


@functools.cache
def _common() -> tuple[Any, ...]:
    return tuple(_params_of(_common_options))


def _params_of(function: Callable[..., None]) -> list[Any]:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("options")(function)
    return list(typer.main.get_command(app).params)


# Checking values without pydantic.


class _PlainValue:
    """Stands in for Typer's own conversion where the type is plain."""

    def __init__(self, kind: type, many: bool) -> None:
        self._kind = kind
        self._many = many

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if self._many else None
        if self._many:
            return [self._one(v, param, ctx) for v in value]
        return self._one(value, param, ctx)

    def _one(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, self._kind) and not (isinstance(value, bool) and self._kind is not bool):
            return value
        try:
            return self._kind(value)
        except (TypeError, ValueError):
            word = {int: "a whole number", float: "a number"}.get(self._kind, f"a {self._kind.__name__}")
            name = param.opts[0] if param.param_type_name == "option" else param.display_name_raw
            raise BadInput(f"{name} {value!r} is not {word}", hint=f"see `{ctx.command_path} --help`") from None


def _lighten(params: list[Any]) -> list[Any]:
    """Give parameters of plain types a converter of our own (where this Typer has such a place)."""
    for param in params:
        if getattr(param, "_runtime_param", _lighten) is None:
            light = _plain(param.type_descriptor)
            if light is not None:
                param._runtime_param = light
    return params


def _plain(descriptor: Any) -> _PlainValue | None:
    kind, many = descriptor.annotation, False
    if get_origin(kind) is list:
        kind, many = get_args(kind)[0], True
    info = descriptor.parameter_info
    special = (info.min, info.max, getattr(info, "parser", None), getattr(info, "click_type", None))
    if kind in (str, int, float, bool, Path) and all(s is None for s in special) and not getattr(info, "exists", False):
        return _PlainValue(kind, many)
    return None


def _help_record(param: Any, ctx: Any) -> tuple[str, str] | None:
    """(words, explanation) of a parameter, without the type that Typer adds in angle brackets."""
    record = param.get_help_record(ctx)
    if record is None:
        return None
    return record[0].partition(" <")[0], record[1]


def _widen(formatter: Any) -> None:
    """Help uses up to 100 columns of the terminal."""
    import shutil

    formatter.width = max(60, min(100, shutil.get_terminal_size((80, 24)).columns) - 2)


def _write_verbatim(formatter: Any, text: str | None) -> None:
    """Examples and tables keep their line breaks."""
    if text:
        formatter.write("\n" + inspect.cleandoc(text) + "\n")
