"""Turning words of the command line into values; every refusal is one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BadInput

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_SLURM = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_MEMORY_UNITS = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024}
_RANGE = re.compile(r"(?:(\d+)\.)?(\d+)(?:-(\d+))?")
_STUDY = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_MOST_IDS = 100_000


def duration(text: str, option: str) -> float:
    """Seconds: `90s`, `1.5h`, `2h30m`, or Slurm's `MIN:SEC`, `H:MIN:SEC`, `DAYS-H`, `DAYS-H:MIN:SEC`.

    A number alone is refused: Slurm would mean minutes, most people seconds.
    """
    word = text.strip().lower()
    parts = _DURATION_PART.findall(word)
    if parts and "".join(n + u for n, u in parts) == word:
        return sum(float(n) * (0.001 if u == "ms" else _UNITS[u]) for n, u in parts)
    if word.isdigit():
        raise BadInput(f"{option} {text} has no unit", hint=f"write {text}s for seconds or {text}m for minutes")
    found = _SLURM.fullmatch(word)
    if not found:
        raise BadInput(f"{option} {text!r} is not a length of time", hint="write it as 90s, 10m, 2h30m or 3-12:00:00")
    days, *fields = found.groups()
    numbers = [int(f) for f in fields if f is not None]
    if days is None and len(numbers) == 2:  # MIN:SEC
        numbers = [0, *numbers]
    hours, minutes, seconds = [*numbers, 0, 0][:3]
    return int(days or 0) * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds


def memory_mb(text: str, option: str) -> int:
    """MiB: `2G`, `512M`, `1.5GiB`; a number alone is MiB, as in Slurm."""
    found = _MEMORY.fullmatch(text.strip())
    if not found:
        raise BadInput(f"{option} {text!r} is not an amount of memory", hint="write it as 512M or 2G")
    return max(1, round(float(found[1]) * _MEMORY_UNITS[found[2].lower()]))


@dataclass(frozen=True)
class Ids:
    """The jobs that one word names: `first` to `last`; with `sweep` these are numbers of its cells, counted from 1.

    With `study` it is the name of one, and of all of its jobs.
    """

    first: int
    last: int
    sweep: int | None = None
    study: str = ""


def ids(words: Sequence[str] | None) -> tuple[Ids, ...]:
    """What words such as `12`, `12-20`, `17.3`, `17.3-9` and `dose` name (see `selection.resolve` for the jobs)."""
    out = []
    for word in words or ():
        for piece in word.split(","):
            found = _RANGE.fullmatch(piece.strip())
            if not found and _STUDY.fullmatch(piece.strip()):
                out.append(Ids(0, 0, study=piece.strip()))
                continue
            if not found:
                raise BadInput(
                    f"{piece!r} is not a job id",
                    hint="give a number such as 17, a range such as 17-20, or a cell of a sweep such as 17.3",
                )
            first, last = int(found[2]), int(found[3] or found[2])
            if last < first:
                start = f"{found[1]}." if found[1] else ""
                raise BadInput(f"the range {piece} is empty", hint=f"did you mean {start}{last}-{first}?")
            if last - first >= _MOST_IDS:
                raise BadInput(
                    f"the range {piece} names {last - first + 1:,} jobs", hint=f"at most {_MOST_IDS:,} at once"
                )
            out.append(Ids(first, last, int(found[1]) if found[1] else None))
    return tuple(out)


def job_ids(words: Sequence[str] | None) -> tuple[int, ...]:
    """Job ids in the order given, each once: `12`, or a range `12-20`. For cells `17.3` see `selection.resolve`."""
    out: dict[int, None] = {}
    for each in ids(words):
        if each.study:
            raise BadInput(f"{each.study!r} is not a job id", hint="give a number such as 17, or a range such as 17-20")
        if each.sweep is not None:
            raise BadInput(
                f"{each.sweep}.{each.first} names a cell of a sweep, which is not understood here",
                hint=f"give its id; `lab status {each.sweep}.{each.first}` shows it",
            )
        out.update(dict.fromkeys(range(each.first, each.last + 1)))
    return tuple(out)


def job_id(word: str) -> int:
    """One job id."""
    if not word.isdigit():
        raise BadInput(f"{word!r} is not a job id", hint="give a number such as 17; `lab status` lists them")
    return int(word)


def assignments(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` words as a dictionary."""
    out: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise BadInput(f"{option} {word!r} has no value", hint=f"write {option} NAME=VALUE")
        if name in out:
            raise BadInput(f"{option} gives {name!r} twice ({out[name]} and {value})", hint="give it once")
        out[name] = value
    return out


def environment(words: Sequence[str] | None) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` alone for the value that it has here."""
    out: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise BadInput(
                f"--env {word!r} does not start with the name of a variable",
                hint="write --env NAME or --env NAME=VALUE",
            )
        if not equals:
            if name not in os.environ:
                raise BadInput(f"the variable {name} of --env is not set here", hint=f"write --env {name}=VALUE")
            value = os.environ[name]
        out[name] = value
    return out


def retry_bounds(words: Sequence[str] | None) -> dict[str, int]:
    """`CAUSE=N`, or `N` alone for a program that fails by itself."""
    from core.states import Cause

    out: dict[str, int] = {}
    for word in words or ():
        cause, equals, number = word.rpartition("=")
        cause = cause if equals else str(Cause.ERROR)
        if cause not in set(Cause):
            raise BadInput(f"--retries {word!r}: there is no cause {cause!r}", hint=f"there are: {', '.join(Cause)}")
        if not number.isdigit():
            raise BadInput(
                f"--retries {word!r}: {number!r} is not a number of times",
                hint="write --retries 2 or --retries time-limit=2",
            )
        out[cause] = int(number)
    return out


def states(words: Sequence[str] | None) -> tuple[Any, ...]:
    """Names of job states; `live` and `finished` stand for several."""
    from core.states import TERMINAL_JOB_STATES, JobState

    out: list[JobState] = []
    for word in ",".join(words or ()).split(","):
        if word == "live":
            out += [s for s in JobState if not s.terminal]
        elif word == "finished":
            out += [s for s in JobState if s in TERMINAL_JOB_STATES]
        elif word in set(JobState):
            out.append(JobState(word))
        elif word:
            raise BadInput(f"there is no job state {word!r}", hint=f"there are: {', '.join(JobState)}, live, finished")
    return tuple(dict.fromkeys(out))


def parameters(kind: str, sets: Sequence[str] | None, words: Sequence[str] | None) -> dict[str, Any]:
    """The parameters of a submit: `--set`, and for programs the words after `--`."""
    out: dict[str, Any] = dict(assignments(sets, "--set"))
    if words:
        if kind not in ("", "command"):
            from core.kind import load_kind

            load_kind(kind)  # a misspelt name is the likelier mistake, and says so itself
            raise BadInput(
                f"kind {kind} takes no words ({words[0]!r} was given)", hint="give its parameters with --set NAME=VALUE"
            )
        if "argv" in out:
            raise BadInput("the program was given twice, by --set argv and after --", hint="give it once")
        out["argv"] = list(words)
    return out


def refuse_beside(option: str, given: Mapping[str, object]) -> None:
    """`option` says it all: the others that are given beside it would be ignored."""
    hints = {"--sql": "put all of it into the query: where job = 17", "--ask": "for more, use --sql"}
    for name, value in given.items():
        if value not in (None, False, [], ()):
            raise BadInput(f"{option} was given together with {name}", hint=hints[option])
