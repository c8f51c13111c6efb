"""What a person asked for, and its parts read one by one: each refusal is a sentence, and nothing is looked at yet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import BadInput
from core.grid import Grid
from core.kind import Kind
from core.spec import Expectation, Limits, Needs
from core.states import Cause, Cond
from core.study import Take
from lab.arguments import duration, memory_mb
from lab.files import names_below
from lab.params import first_sentence, unknown_name

_M = TypeVar("_M", bound=BaseModel)
# Set by the runner itself: two masters would be one too many.
_OURS = ("LAB_ATTEMPT", "LAB_HOME", "PYTHONSAFEPATH", "CUDA_VISIBLE_DEVICES", "TMPDIR")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Request:
    """One job as it was asked for, on the command line, in a jobs file or in Python.

    Attributes:
        params: values, or words of the command line (read as YAML) unless `literal`.
        needs, limits: as `core.spec.Needs` and `Limits`; memory and times may be words such as `2G`, `90s`.
        inputs: `[NAME=]PATH[:DEST]`, relative to where the submit is made; `[NAME=]LANE:/PATH[:DEST]` on that lane.
        code: the code root; None: the repository around, or the folder itself; "none": no code.
        after: `ok:ID`, `any:ID`, `ID`; in a jobs file also names.
        takes: inputs that other jobs make, of this submit by name or of the journal by id; it waits for those.
        idem: `--key`: the same key is never submitted twice.
        force: run even if the answer is there.
        where: file and line, for errors.
        grid: a sweep: one job for each cell; `params` are what its cells share.
        words: of axes that were typed, axis -> its values as typed (tried where the value read as YAML does not fit).
        at_once: how many cells may run at the same time; None: as many as fit.
        max_fails: once more cells than this have failed, no further one starts.
        study: the study that it is a node of.
        notes: what a person should know of it before and after the submit.
        admission: it is a step of the ladder of the lane that it needs; only `lab lane admit` asks for that.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    needs: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    code: Path | str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    expect: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    takes: Sequence[Take] = ()
    idem: str | None = None
    priority: int = 0
    tags: Sequence[str] = ()
    note: str = ""
    held: bool = False
    force: bool = False
    retries: Mapping[str, int] = field(default_factory=dict)
    allow_undeclared: Sequence[str] = ()
    on_unreachable: str = "wait"
    argv: Sequence[str] = ()
    literal: bool = False
    where: str = ""
    grid: Grid | None = None
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at_once: int | None = None
    max_fails: int | None = None
    study: str = ""
    notes: Sequence[str] = ()
    admission: bool = False


def read_needs(given: Mapping[str, Any], *, admission: bool = False) -> Needs:
    """The needs that were asked for. `admission`: of a step of a lane's ladder, which nobody can ask for by hand."""
    values = dict(given)
    if "admission" in values:
        raise BadInput("the needs have no `admission`", hint="`lab lane admit NAME` submits what a lane's ladder needs")
    if admission:
        values["admission"] = True
    if isinstance(values.get("memory_mb"), str):
        values["memory_mb"] = memory_mb(values["memory_mb"], "memory_mb")
    return _model(Needs, values, "the needs")


def read_limits(given: Mapping[str, Any]) -> Limits:
    values = dict(given)
    for name, value in values.items():
        if isinstance(value, str) and name in Limits.model_fields:
            values[name] = duration(value, name)
    return _model(Limits, values, "the limits")


def read_expect(given: Mapping[str, Any], kind: Kind) -> Expectation:
    expect = _model(Expectation, dict(given), "what is expected")
    if expect.rows:
        tables = sorted(kind.tables())
        for name, rows in expect.rows.items():
            if name not in tables:
                raise BadInput(f"kind {kind.name} writes no table `{name}`", hint=unknown_name(name, tables))
            if rows < 0:
                raise BadInput(f"{rows} rows of {name} are expected", hint="give a number from 0 upwards")
    return expect.model_copy(update={"artifacts": names_below(expect.artifacts, "an expected artifact")})


def _model(model: type[_M], values: dict[str, Any], what: str) -> _M:
    known = list(model.model_fields)
    for name in values:
        if name not in known:
            raise BadInput(f"{what} have no `{name}`", hint=unknown_name(name, known))
    try:
        return model(**values)
    except ValidationError as error:
        raise BadInput(first_sentence(error, what)) from None


def read_after(word: str) -> tuple[Cond, int | str]:
    text = str(word).strip()
    cond, colon, what = text.partition(":")
    if not colon:
        cond, what = str(Cond.OK), text
    if cond not in set(Cond) or not what:
        raise BadInput(
            f"the dependency {word!r} cannot be read", hint="write ok:ID (it must succeed) or any:ID (it must end)"
        )
    return Cond(cond), int(what) if what.isdigit() else what


def read_retries(given: Mapping[str, int]) -> dict[Cause, int]:
    out: dict[Cause, int] = {}
    for word, times in given.items():
        if word not in set(Cause):
            raise BadInput(
                f"there is no cause `{word}` to retry", hint=unknown_name(str(word), [str(c) for c in Cause])
            )
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise BadInput(f"the retries for {word} are {times!r}", hint="give a number from 0 upwards")
        out[Cause(word)] = times
    return out


def read_unreachable(word: str) -> str:
    if word == "wait":
        return word
    head, _, length = word.partition(":")
    if head != "requeue-after":
        raise BadInput(f"on_unreachable is {word!r}", hint="give wait, or requeue-after:2h")
    return f"requeue-after:{duration(length, 'requeue-after'):.15g}"


def read_env(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _VARIABLE.fullmatch(name):
            raise BadInput(f"{name!r} is no name of a variable", hint="use letters, digits and underscores")
        if name in _OURS:
            raise BadInput(f"the variable {name} is set by lab itself", hint="leave it out")
        if not isinstance(value, str) or "\0" in value:
            raise BadInput(f"the variable {name} is {value!r}, which is not text", hint="give text")
    return dict(given)


def refuse_odd(request: Request) -> None:
    if isinstance(request.priority, bool) or not isinstance(request.priority, int) or abs(request.priority) > 1_000_000:
        raise BadInput(f"the priority is {request.priority!r}", hint="give a whole number between -1000000 and 1000000")
    if request.idem is not None and not request.idem.strip():
        raise BadInput("--key is empty", hint="give a word that names this very job, or leave it out")
    for word, number, least in (("at-once", request.at_once, 1), ("max-fails", request.max_fails, 0)):
        if number is None:
            continue
        if request.grid is None:
            raise BadInput(f"--{word} is for sweeps, and there is no axis", hint="give one, such as --grid alpha=1,2,3")
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise BadInput(f"--{word} is {number!r}", hint=f"give a whole number from {least} upwards")
    for tag in request.tags:
        if not isinstance(tag, str) or not tag or any(c in tag for c in ", \t\n"):
            raise BadInput(f"the tag {tag!r} cannot be used", hint="use a word without spaces and commas")
