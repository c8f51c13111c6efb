"""From what a person asked for to a job that could be recorded: validated, hashed, keyed. Nothing is started here.

prepared = prepare(home, Request("parity", {"sizes": "[1, 4]"}), cwd)
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from core import cluster
from core.digests import Digests
from core.errors import BadInput, LabError
from core.fsio import digest
from core.git import top_of
from core.home import Home
from core.journal import Journal, Role
from core.kind import Kind, entry_points, load_kind
from core.kindcode import look_at_kind
from core.snapshot import Snapshot, git_ignores, look_at_root
from core.spec import Expectation, InputFile, JobSpec, Limits, Needs, key_of
from core.states import Cause, Cond
from lab.arguments import duration, memory_mb
from lab.capacity import lane_books, refuse_impossible
from lab.files import Place, declared_inputs, kind_inputs, names_below, read_prefixes, refuse_twins
from lab.params import check, first_sentence, unknown_name
from lanes.ledger import LaneBook

NO_CODE = "none"  # `--code none`: the program is started without a copy of any code

_LONGEST_NAME = 200
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
        inputs: `[NAME=]PATH[:DEST]`, relative to where the submit is made.
        code: the code root; None: the repository around, or the folder itself; "none": no code.
        after: `ok:ID`, `any:ID`, `ID`; in a jobs file also names.
        idem: `--key`: the same key is never submitted twice.
        force: run even if the answer is there.
        where: file and line, for errors.
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


@dataclass(frozen=True)
class Prepared:
    """A job that could be recorded.

    Attributes:
        after: what it waits for: ids in the journal, or names of other jobs of the same submit.
        snapshots: code that must be in the home's store before the job may be recorded.
        notes: what the user should know, e.g. links that the snapshot leaves out.
    """

    request: Request
    kind: Kind
    params: dict[str, Any]
    name: str
    spec: JobSpec
    data: dict[str, Any]  # the spec as plain JSON
    key: str
    after: tuple[tuple[Cond, int | str], ...]
    snapshots: tuple[Snapshot, ...]
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def spec_digest(self) -> str:
        return digest(self.data)


class Preparer:
    """Prepares the requests of one submit: kinds, code and lanes are looked at once for all of them."""

    def __init__(self, home: Home, cwd: Path, journal: Journal | None = None) -> None:
        self.home = home
        self.cwd = Path(os.path.abspath(cwd))
        self.cluster = cluster.load(home.cluster_file)
        self.books: dict[str, LaneBook] = lane_books(self.cluster, journal.conn if journal is not None else None)
        self.digests = Digests(home.digests)
        self._kinds: dict[str, Kind] = {}
        self._kind_codes: dict[str, Snapshot] = {}
        self._roots: dict[tuple[Path, str], Snapshot] = {}
        self._packages: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.digests.close()

    def prepare(self, request: Request) -> Prepared:
        """Check everything that can be checked before the job exists. Writes nothing.

        Raises:
            LabError: one sentence, with `request.where` in front of it when there is one.
        """
        try:
            return self._prepare(request)
        except LabError as error:
            if request.where and not error.message.startswith(request.where):
                error.message = f"{request.where}: {error.message}"
                error.args = (error.message,)
            raise

    def forget_code(self) -> None:
        """Code changed while it was stored: look again."""
        self._kind_codes.clear()
        self._roots.clear()

    def _prepare(self, request: Request) -> Prepared:
        # Cheap checks first, so that a typing error is not found after a gigabyte was hashed.
        kind = self._kind(request.kind)
        params, plain = check(kind, request.params, literal=request.literal)
        needs = _needs({**kind.needs, **request.needs})
        refuse_impossible(self.cluster, self.books, needs)
        limits = _limits(request.limits)
        expect = _expect(request.expect, kind)
        outputs = names_below(request.outputs, "an output")
        after = tuple(_after(word) for word in request.after)
        retries = _retries(request.retries)
        on_unreachable = _unreachable(request.on_unreachable)
        env = _env(request.env)
        packages = self._versions(kind)
        _refuse_odd(request)
        place, user_code, notes = self._place(request, kind)
        inputs = [
            *kind_inputs(kind.inputs(params), place, self.digests),
            *declared_inputs(request.inputs, place, self.digests, into_work=kind.user_code),
        ]
        refuse_twins(inputs)
        kind_code = self._kind_code(kind)
        spec = JobSpec(
            kind=kind.name,
            entry=entry_points()[request.kind].value,
            version=kind.version,
            inputs=tuple(inputs),
            code=user_code.ref if user_code else None,
            kind_code=kind_code.ref,
            packages=packages,
            python=sys.executable,
            needs=needs,
            limits=limits,
            env=env,
            path=os.environ.get("PATH", ""),
            outputs=outputs,
            expect=expect,
            retries=retries,
            allow_undeclared=read_prefixes(request.allow_undeclared, self.cwd),
            on_unreachable=on_unreachable,
            argv=tuple(request.argv),
        )
        data = spec.model_dump(mode="json")
        return Prepared(
            request=request,
            kind=kind,
            params=plain,
            name=_one_line(request.name or kind.describe(params)),
            spec=spec,
            data=data,
            key=key_of(data, plain),
            after=after,
            snapshots=(kind_code, *([user_code] if user_code else [])),
            notes=tuple(notes),
        )

    def _kind(self, name: str) -> Kind:
        if name not in self._kinds:
            kind = load_kind(name)
            if getattr(kind, "name", name) != name:
                raise BadInput(
                    f"the kind registered as {name!r} calls itself {kind.name!r}",
                    hint="correct the package that registers it",
                )
            self._kinds[name] = kind
        return self._kinds[name]

    def _kind_code(self, kind: Kind) -> Snapshot:
        if kind.name not in self._kind_codes:
            self._kind_codes[kind.name] = look_at_kind(kind, self.digests, entry=entry_points()[kind.name].value)
        return self._kind_codes[kind.name]

    def _place(self, request: Request, kind: Kind) -> tuple[Place, Snapshot | None, list[str]]:
        if not kind.user_code:
            if request.code is not None and str(request.code) != NO_CODE:
                raise BadInput(f"kind {kind.name} runs no code of yours", hint="leave --code out")
            return Place(self.cwd), None, []
        if request.code is not None and str(request.code) == NO_CODE:
            return Place(self.cwd), None, []
        if request.code is not None:
            root = Path(os.path.normpath(self.cwd / Path(request.code).expanduser()))
        else:
            root = top_of(self.cwd) or self.cwd
        found = self._look(root)
        if request.code is None and git_ignores(root, found.listing, found.ref.subdir):
            root = self.cwd
            found = self._look(root)
        notes = [f"not copied with the code: {why}" for why in found.listing.left_out]
        return Place(self.cwd, root, found.ref.subdir), found, notes

    def _look(self, root: Path) -> Snapshot:
        rel = os.path.relpath(self.cwd, root)
        subdir = "" if rel == "." or rel == ".." or rel.startswith("../") else Path(rel).as_posix()
        if (root, subdir) not in self._roots:
            self._roots[root, subdir] = look_at_root(root, self.digests, home=self.home, subdir=subdir)
        return self._roots[root, subdir]

    def _versions(self, kind: Kind) -> dict[str, str]:
        if kind.name not in self._packages:
            versions = {}
            for name in kind.packages:
                try:
                    versions[name] = importlib.metadata.version(name)
                except importlib.metadata.PackageNotFoundError:
                    raise BadInput(
                        f"kind {kind.name} needs the package {name}, which is not installed here",
                        hint=f"install it beside lab: pip install {name}",
                    ) from None
            self._packages[kind.name] = versions
        return self._packages[kind.name]


def prepare(home: Home, request: Request, cwd: Path, *, write: bool = False) -> Prepared:
    """Validate, hash and key one request. Nothing is written, except the code snapshots when `write` is true."""
    journal = Journal.open(home, Role.READER) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, journal) as preparer:
            return store_code(preparer, [request])[0] if write else preparer.prepare(request)
    finally:
        if journal is not None:
            journal.close()


def store_code(
    preparer: Preparer, requests: Sequence[Request], prepared: Sequence[Prepared] | None = None
) -> list[Prepared]:
    """Put the code of `requests` into the store, and give them as prepared with what was stored.

    Args:
        prepared: what `preparer` just made of them.

    Raises:
        BadInput: code keeps changing while it is copied.
    """
    for _ in range(3):
        now = list(prepared) if prepared is not None else [preparer.prepare(r) for r in requests]
        snapshots = {s.ref.store: s for p in now for s in p.snapshots}
        if all(s.store(preparer.home) for s in snapshots.values()):
            return now
        preparer.forget_code()
        prepared = None
    raise BadInput("the code changes while it is being copied", hint="submit again when it is still")


def _needs(given: Mapping[str, Any]) -> Needs:
    values = dict(given)
    if isinstance(values.get("memory_mb"), str):
        values["memory_mb"] = memory_mb(values["memory_mb"], "memory_mb")
    return _model(Needs, values, "the needs")


def _limits(given: Mapping[str, Any]) -> Limits:
    values = dict(given)
    for name, value in values.items():
        if isinstance(value, str) and name in Limits.model_fields:
            values[name] = duration(value, name)
    return _model(Limits, values, "the limits")


def _expect(given: Mapping[str, Any], kind: Kind) -> Expectation:
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


def _after(word: str) -> tuple[Cond, int | str]:
    text = str(word).strip()
    cond, colon, what = text.partition(":")
    if not colon:
        cond, what = str(Cond.OK), text
    if cond not in set(Cond) or not what:
        raise BadInput(
            f"the dependency {word!r} cannot be read", hint="write ok:ID (it must succeed) or any:ID (it must end)"
        )
    return Cond(cond), int(what) if what.isdigit() else what


def _retries(given: Mapping[str, int]) -> dict[Cause, int]:
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


def _unreachable(word: str) -> str:
    if word == "wait":
        return word
    head, _, length = word.partition(":")
    if head != "requeue-after":
        raise BadInput(f"on_unreachable is {word!r}", hint="give wait, or requeue-after:2h")
    return f"requeue-after:{duration(length, 'requeue-after'):g}s"


def _env(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _VARIABLE.fullmatch(name):
            raise BadInput(f"{name!r} is no name of a variable", hint="use letters, digits and underscores")
        if name in _OURS:
            raise BadInput(f"the variable {name} is set by lab itself", hint="leave it out")
        if not isinstance(value, str) or "\0" in value:
            raise BadInput(f"the variable {name} is {value!r}, which is not text", hint="give text")
    return dict(given)


def _refuse_odd(request: Request) -> None:
    if isinstance(request.priority, bool) or not isinstance(request.priority, int) or abs(request.priority) > 1_000_000:
        raise BadInput(f"the priority is {request.priority!r}", hint="give a whole number between -1000000 and 1000000")
    if request.idem is not None and not request.idem.strip():
        raise BadInput("--key is empty", hint="give a word that names this very job, or leave it out")
    for tag in request.tags:
        if not isinstance(tag, str) or not tag or any(c in tag for c in ", \t\n"):
            raise BadInput(f"the tag {tag!r} cannot be used", hint="use a word without spaces and commas")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 3] + "..."


def input_bytes(inputs: Sequence[InputFile]) -> int:
    return sum(item.size for item in inputs)
