"""The entry of the command line: who we are, which command, how it ends.

Nothing of ours but this module is imported before `_refuse_foreign_packages` has looked: the names `core` and `jobs`
are common, and importing somebody else's would run their code as ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OURS = ("core", "jobs", "lanes", "kernels")
_BAD_INPUT = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code (see core.errors.Exit)."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        foreign = foreign_package()
        if foreign is not None:
            _complain_of_foreign(*foreign, as_json=_wants_json(args))
            return _BAD_INPUT
        return _run(args) if not _is_for_the_head(args) else _run_on_the_head(args)
    except KeyboardInterrupt:  # so early that there is no face yet
        sys.stderr.write("lab: interrupted\n")
        return _INTERRUPTED


def foreign_package(names: Sequence[str] = _OURS) -> tuple[str, str] | None:
    """(name, file) of the first package that is not the one beside us, found without importing it."""
    from importlib.machinery import PathFinder

    root = Path(__file__).resolve().parent.parent
    for name in names:
        loaded = sys.modules.get(name)
        spec = loaded.__spec__ if loaded is not None else PathFinder.find_spec(name)
        if spec is None:
            continue
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        for place in places:
            found = Path(place).resolve()
            home = found.parent if found.name == "__init__.py" else found
            if home != root / name:
                return name, str(found)
    return None


def _complain_of_foreign(name: str, file: str, *, as_json: bool) -> None:
    message = f"a foreign package named {name!r} hides ours: {file}"
    hint = "take its folder off PYTHONPATH, or run `lab` from another folder and from its own environment"
    if as_json:
        import json

        body = {"error": "foreign-package", "message": message, "hint": hint, "exit_code": _BAD_INPUT}
        sys.stdout.write(json.dumps({"schema": "lab.error/1", **body}) + "\n")
    else:
        sys.stderr.write(f"lab: {message}; {hint}\n")


def _is_for_the_head(args: Sequence[str]) -> bool:
    """Could it be? Said without loading anything."""
    return bool(os.environ.get("LAB_HEAD")) or any(a == "--head" or a.startswith("--head=") for a in args)


def _run_on_the_head(args: list[str]) -> int:
    from core.errors import LabError
    from lab import head

    try:
        where, rest = head.asked(args, os.environ)
        if where is not None:
            return head.run(where, rest)
    except LabError as error:
        from lab.session import new_session

        here = new_session()
        if _wants_json(args):
            here.use_json()
        here.out.failed(error.slug, error.message, error.hint, error.exit_code)
        return error.exit_code
    return _run(rest)


def _run(args: list[str]) -> int:
    import typer

    from core.errors import Exit, LabError
    from lab.cli import main_group
    from lab.session import new_session

    here = new_session()
    group = main_group()
    if os.environ.get("_LAB_COMPLETE"):
        from lab.completion import answer

        return answer(group, os.environ["_LAB_COMPLETE"])
    try:
        with group.make_context("lab", args or ["--help"]) as context:
            group.invoke(context)
        sys.stdout.flush()
        return Exit.OK
    except typer.Exit as ending:
        return ending.exit_code
    except LabError as error:
        here.out.failed(error.slug, error.message, error.hint, error.exit_code)
        return error.exit_code
    except typer.TyperException as error:
        if _wants_json(args):
            here.use_json()
        here.out.failed("bad-input", *_usage_sentence(error), Exit.BAD_INPUT)
        return Exit.BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        here.out.failed("interrupted", "interrupted", "", Exit.INTERRUPTED)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        from lab.output.faces import silence_stdout

        silence_stdout()
        return Exit.OK
    except Exception as error:
        if _debugged(error):
            raise
        return _our_bug(error, here.out)


def _usage_sentence(error: Any) -> tuple[str, str]:
    """What was wrong with the words of the command, and where to read about them."""
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message.replace("Invalid value for ", "").replace("Invalid value: ", "")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return message, f"see `{context.command_path} --help`" if context is not None else "see `lab --help`"


def _our_bug(error: Exception, out: Any) -> int:
    import platform
    import sqlite3
    import traceback

    from core.errors import Exit
    from core.fsio import no_space

    if no_space(error):
        out.failed("disk-full", f"the disk is full ({error})", "free some space and try again", Exit.NO_RESOURCE)
        return Exit.NO_RESOURCE
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        out.failed("unavailable", "the journal is busy: another process holds it", "try again", Exit.UNAVAILABLE)
        return Exit.UNAVAILABLE
    traceback.print_exception(error)
    where = f"Python {platform.python_version()}, {platform.system()}"
    out.failed(
        "internal",
        f"this is a bug of lab, not of yours ({type(error).__name__})",
        f"report it with the lines above ({where})",
        Exit.INTERNAL,
    )
    return Exit.INTERNAL


def _debugged(error: Exception) -> bool:
    """A debugger wants to see the exception itself (and to end the program by one of its own)."""
    return "pdb" in sys.modules and ("bdb" in type(error).__module__ or sys.gettrace() is not None)


def _wants_json(args: Sequence[str]) -> bool:
    """Did the words ask for JSON? Needed when they could not be parsed."""
    own = args[: args.index("--")] if "--" in args else args
    return "--json" in own


if __name__ == "__main__":
    sys.exit(main())
