"""From what a person asked for to a job that could be recorded: validated, hashed, keyed. Nothing is started here.

prepared = prepare(home, Request("parity", {"sizes": "[1, 4]"}), cwd)
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
from core.spec import InputFile, JobSpec, key_of, sweep_key
from core.states import Cond
from lab import asked, resident
from lab.asked import Request
from lab.capacity import lane_books, refuse_impossible
from lab.cells import Cells, expand
from lab.files import (
    Place,
    declared_inputs,
    kind_inputs,
    lane_inputs,
    made_inputs,
    names_below,
    read_prefixes,
    refuse_twins,
)
from lab.params import check
from lab.taking import Maker, makers, making_order, waits_for
from lanes.ledger import LaneBook

__all__ = ["Prepared", "PreparedSweep", "Preparer", "Request", "prepare", "store_code"]

NO_CODE = "none"  # `--code none`: the program is started without a copy of any code

_LONGEST_NAME = 200


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
    pooled: bool = False

    @functools.cached_property
    def spec_digest(self) -> str:
        return digest(self.data)


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that could be recorded: as `Prepared`, with its cells in the order of the grid."""

    request: Request
    kind: Kind
    name: str
    key: str
    spec: JobSpec
    data: dict[str, Any]
    cells: Cells
    after: tuple[tuple[Cond, int | str], ...]
    snapshots: tuple[Snapshot, ...]
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def spec_digest(self) -> str:
        return digest(self.data)


@dataclass(frozen=True)
class _Frame:
    """All of a job but what follows from its parameters."""

    spec_for: Callable[[Mapping[str, Path]], JobSpec]
    after: tuple[tuple[Cond, int | str], ...]
    snapshots: tuple[Snapshot, ...]
    notes: tuple[str, ...]


class Preparer:
    """Prepares the requests of one submit: kinds, code and lanes are looked at once for all of them."""

    def __init__(
        self, home: Home, cwd: Path, journal: Journal | None = None, *, lanes: resident.Lanes | None = None
    ) -> None:
        self.home = home
        self.lanes = lanes or resident.Lanes(home)
        self.cwd = Path(os.path.abspath(cwd))
        self.cluster = cluster.load(home.cluster_file)
        self.books: dict[str, LaneBook] = lane_books(self.cluster, journal.conn if journal is not None else None)
        self.digests = Digests(home.digests)
        self._conn = journal.conn if journal is not None else None
        self._kinds: dict[str, Kind] = {}
        self._kind_codes: dict[str, Snapshot] = {}
        self._roots: dict[tuple[Path, str], Snapshot] = {}
        self._packages: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.digests.close()

    def prepare_all(self, requests: Sequence[Request]) -> list[Prepared | PreparedSweep]:
        """`prepare` each, what takes a file after what makes it: the key of the one is part of the other's."""
        out: dict[int, Prepared | PreparedSweep] = {}
        named: dict[str, Maker] = {}
        for place in making_order(requests):
            request = requests[place]
            found = out[place] = self.prepare(request, named)
            keeps = isinstance(found, Prepared) and not found.pooled
            named.setdefault(request.name, Maker(found.key, request.name, found.kind.name, keeps))
        return [out[place] for place in range(len(requests))]

    def prepare(self, request: Request, named: Mapping[str, Maker] | None = None) -> Prepared | PreparedSweep:
        """Check everything that can be checked before the job exists. Writes nothing (but asks lanes for their data).

        Args:
            named: jobs of the same submit whose files it may take.

        Raises:
            LabError: one sentence, with `request.where` in front of it when there is one.
        """
        try:
            made = makers(request, named or {}, self._conn)
            return self._one(request, made) if request.grid is None else self._sweep(request)
        except LabError as error:
            if request.where and not error.message.startswith(request.where):
                error.message = f"{request.where}: {error.message}"
                error.args = (error.message,)
            raise

    def forget_code(self) -> None:
        """Code changed while it was stored: look again."""
        self._kind_codes.clear()
        self._roots.clear()

    def _one(self, request: Request, made: Sequence[Maker]) -> Prepared:
        kind = self.kind(request.kind)
        params, plain = check(kind, request.params, literal=request.literal)
        frame = self._frame(request, kind, made)
        spec = frame.spec_for(kind.inputs(params))
        data = spec.model_dump(mode="json")
        return Prepared(
            request=request,
            kind=kind,
            params=plain,
            name=_one_line(request.name or kind.describe(params)),
            spec=spec,
            data=data,
            key=key_of(data, plain),
            after=frame.after,
            snapshots=frame.snapshots,
            notes=frame.notes,
            pooled=kind.pooled and kind.pools(params) and not request.takes,
        )

    def _sweep(self, request: Request) -> PreparedSweep:
        assert request.grid is not None
        kind = self.kind(request.kind)
        # Made when the first cell is known to be right: a typing error must not wait for a gigabyte to be hashed.
        made: list[_Frame] = []

        def spec_for(found: Mapping[str, Path]) -> JobSpec:
            if not made:
                made.append(self._frame(request, kind))
            return made[0].spec_for(found)

        cells = expand(kind, request, spec_for)
        frame = made[0]
        idle = request.grid.idle_excludes()
        notes = [f"the exclude {_partial(p)} matches no cell" for p in idle]
        return PreparedSweep(
            request=request,
            kind=kind,
            name=_one_line(request.name or request.grid.summary()),
            key=sweep_key(cell.key for cell in cells.rows),
            spec=cells.spec,
            data=cells.data,
            cells=cells,
            after=frame.after,
            snapshots=frame.snapshots,
            notes=(*frame.notes, *notes),
        )

    def _frame(self, request: Request, kind: Kind, made: Sequence[Maker] = ()) -> _Frame:
        # Cheap checks first, so that a typing error is not found after a gigabyte was hashed.
        needs = asked.read_needs({**kind.needs, **request.needs}, admission=request.admission)
        here, there = resident.split(request.inputs, self.cwd, self.cluster)
        needs = resident.bound(needs, there)
        refuse_impossible(self.cluster, self.books, needs)
        limits = asked.read_limits(request.limits)
        expect = asked.read_expect(request.expect, kind)
        outputs = names_below(request.outputs, "an output")
        after = waits_for([asked.read_after(word) for word in request.after], request.takes)
        retries = asked.read_retries(request.retries)
        on_unreachable = asked.read_unreachable(request.on_unreachable)
        env = asked.read_env(request.env)
        packages = self._versions(kind)
        asked.refuse_odd(request)
        place, user_code, notes = self._place(request, kind)
        declared = declared_inputs(here, place, self.digests, into_work=kind.user_code)
        declared += lane_inputs(there, place, self.lanes.look, into_work=kind.user_code)
        taken = [(take, maker.key, maker.label) for take, maker in zip(request.takes, made, strict=True)]
        declared += made_inputs(taken, place, into_work=kind.user_code)
        kind_code = self._kind_code(kind)

        def spec_for(found: Mapping[str, Path]) -> JobSpec:
            inputs = [*kind_inputs(found, place, self.digests), *declared]
            refuse_twins(inputs)
            return JobSpec(
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

        return _Frame(spec_for, after, (kind_code, *([user_code] if user_code else [])), tuple(notes))

    def kind(self, name: str) -> Kind:
        """The kind registered under `name`. Raises UnknownKind."""
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
    """Validate, hash and key one job. Nothing is written, except the code snapshots when `write` is true."""
    journal = Journal.open(home, Role.READER) if home.journal.exists() else None
    try:
        with Preparer(home, cwd, journal) as preparer:
            found = store_code(preparer, [request])[0] if write else preparer.prepare(request)
            assert isinstance(found, Prepared)
            return found
    finally:
        if journal is not None:
            journal.close()


def store_code(
    preparer: Preparer, requests: Sequence[Request], prepared: Sequence[Prepared | PreparedSweep] | None = None
) -> list[Prepared | PreparedSweep]:
    """Put the code of `requests` into the store, and give them as prepared with what was stored.

    Args:
        prepared: what `preparer` just made of them.

    Raises:
        BadInput: code keeps changing while it is copied.
    """
    for _ in range(3):
        now = list(prepared) if prepared is not None else preparer.prepare_all(requests)
        snapshots = {s.ref.store: s for p in now for s in p.snapshots}
        if all(s.store(preparer.home) for s in snapshots.values()):
            return now
        preparer.forget_code()
        prepared = None
    raise BadInput("the code changes while it is being copied", hint="submit again when it is still")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 3] + "..."


def _partial(partial: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in partial.items())


def input_bytes(inputs: Sequence[InputFile]) -> int:
    return sum(item.size for item in inputs)
