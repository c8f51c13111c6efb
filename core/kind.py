"""What a kind of job is, and the context in which it runs.

A kind is a class registered in the entry-point group `lab.kinds`; packages of other people add theirs in the
same way. It declares parameters (a pydantic model), tables (Arrow schemas), needs, and `run(ctx)`.
Module level imports of a kind stay light: the command line imports it to check parameters, and TensorFlow or
torch there would cost every `lab submit` seconds.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from core.errors import UnknownKind

if TYPE_CHECKING:
    import pyarrow as pa

    from core.rundir import Checkpoint
    from core.study import Study

GROUP = "lab.kinds"


class Params(BaseModel):
    """Base of every kind's parameters: frozen, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True)
class Expect:
    """What must be there at the end. Checked by the runner in the lane and again by the head.

    Attributes:
        rows: table name -> exact number of result rows.
        last_step: the highest `step` that the metrics must reach.
        artifacts: names under artifacts/ that must exist and not be empty.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    last_step: int | None = None
    artifacts: Sequence[str] = ()


@dataclass(frozen=True)
class Question:
    """Something that people ask of a kind's tables (`lab results KIND --ask NAME`).

    Attributes:
        about: what it answers, a phrase.
        sql: over the kind's tables. `{jobs}` becomes a condition that holds for rows of the jobs asked about.
        jobs: how many jobs it compares, as `{0}`, `{1}` in the order given; 0: any number.
    """

    about: str
    sql: str
    jobs: int = 0


@dataclass(frozen=True)
class Measure:
    """One number by which jobs of a kind may be ranked.

    Attributes:
        column: of the ranking's rows.
        label: a column with words for what the number is; the same for all that are ranked together.
        within: a column; only rows with equal values are ranked against each other. Null: the row is not ranked.
        apart: why not, where there are several such groups; a sentence.
        greater: the greatest is the best.
    """

    column: str
    label: str
    within: str
    apart: str
    greater: bool = False


@dataclass(frozen=True)
class Ranking:
    """How jobs of a kind may be ranked by what they found (`lab compare`).

    Attributes:
        sql: over the kind's tables, one row for each job: `job`, `name`, and the columns that are named here.
            `{jobs}` becomes a condition that holds for rows of the jobs asked about.
        repeats: a column; rows that are equal in it differ by chance only (in their seeds).
    """

    sql: str
    measures: tuple[Measure, ...]
    repeats: str


@dataclass(frozen=True)
class Absent:
    """A job without results: it failed, or has not ended. `name`: as lists call it; `why`: its state and cause."""

    job: int
    name: str
    why: str


class Context(Protocol):
    """What a kind may touch. Everything else is somebody else's."""

    @property
    def job(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def params(self) -> Any:
        """The kind's own `Params` instance."""
        ...

    @property
    def work(self) -> Path:
        """Empty scratch folder, also the current folder."""
        ...

    @property
    def artifacts(self) -> Path: ...
    @property
    def cores(self) -> int: ...
    @property
    def gpus(self) -> tuple[int, ...]: ...
    @property
    def raw(self) -> Mapping[str, Any]:
        """The frozen spec.json (code folder, environment, outputs): for kinds that start programs."""
        ...

    def input(self, name: str) -> Path:
        """The path of a declared input. Raises BadInput for a name that was not declared, or whose file is absent."""
        ...

    def has_input(self, name: str) -> bool:
        """Is there an input of this name? One that another job makes may be absent, where that job failed."""
        ...

    def expect(
        self, *, rows: Mapping[str, int] | None = None, last_step: int | None = None, artifacts: Sequence[str] = ()
    ) -> None:
        """Say, before working, what must be there at the end. Exit 0 alone is not success."""
        ...

    def log(self, message: str) -> None: ...
    def progress(self, done: float, total: float, note: str = "") -> None:
        """Shown live; cheap enough for every step (written at most ten times a second)."""
        ...

    def metrics(self, step: int, **values: float | int | str) -> None:
        """One step row, appended to metrics.jsonl. Steps never go backwards within an attempt."""
        ...

    def results(self, table: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
        """Append result rows. The kind's schema is enforced; call it as often as wanted."""
        ...

    def artifact(self, name: str) -> Path:
        """A path below artifacts/ to write to. Raises BadInput when `name` leads outside."""
        ...

    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> AbstractContextManager[Path]:
        """`with ctx.save_checkpoint(step) as folder:` fill the folder; on exit it is sealed and renamed.

        A kill at any moment leaves it whole or not at all. One of the same step is replaced.

        Args:
            keep: at least 2. Once the new one is sealed, those of this attempt that are older than the newest `keep`
                whose every byte verifies are removed (this reads them: on a large state it costs as much as hashing
                it `keep` times). None: all stay. A remote lane's are copied to the head one at a time, newest first:
                keep enough that one is not removed while it travels.
            meta: kept beside it, `Checkpoint.meta`; plain JSON values.
        """
        ...

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, of this or an earlier attempt of this job, whose every byte verifies."""
        ...

    def checkpoints(self) -> Iterator[Checkpoint]:
        """The same and then those before it, for a kind that cannot go on from it; each verified as it is asked for.

        What does not verify is passed over, and the log says why. A kind that refuses one for what is in it logs that
        itself, and says so when it starts over.
        """
        ...

    @property
    def stopping(self) -> bool:
        """True once a warn signal came (time limit, cancel, preemption): checkpoint, then `leave()`."""
        ...

    def leave(self) -> None:
        """End now as `preempted` (raises, never returns)."""
        ...


class Kind:
    """Base class of kinds. Subclasses are stateless; all state is in the context and the run directory."""

    name: ClassVar[str]
    summary: ClassVar[str]
    Params: ClassVar[type[Params]]
    # Top-level packages whose source is part of the key: a changed line there makes a new job.
    code: ClassVar[tuple[str, ...]] = ("core", "kernels", "jobs")
    # Distributions whose installed versions are part of the key.
    packages: ClassVar[tuple[str, ...]] = ()
    # Bump when results change for a reason that no digest sees.
    version: ClassVar[int] = 1
    # Does the key include the user's code root (a snapshot is made)? Only kinds that start user programs.
    user_code: ClassVar[bool] = False
    # Pure and short: may run in batches inside warm workers.
    pooled: ClassVar[bool] = False
    # Default needs; the user's win. Same names as core.spec.Needs.
    needs: ClassVar[Mapping[str, Any]] = {}
    # Parameters that `describe` says in full: cells of a sweep over these are called by it, not by their axes.
    described: ClassVar[tuple[str, ...]] = ()

    def tables(self) -> dict[str, pa.Schema]:
        """Arrow schemas of the result tables, without job, attempt, lane and key (the head adds those).

        The schema metadata `lab.headline` (column names with commas between) says which a person sees first;
        `lab.plot` (COLUMN=VALUE) which rows a figure shows unless it is told.
        """
        return {}

    def questions(self) -> Mapping[str, Question]:
        """What people ask of the tables, by name."""
        return {}

    def ranking(self) -> Ranking | None:
        """How its jobs may be ranked, or None."""
        return None

    def figure(
        self, out: BinaryIO, form: str, tables: Mapping[str, pa.Table], absent: Sequence[Absent], title: str
    ) -> Sequence[str] | None:
        """Draw what the result tables of some jobs say together (`lab results ID --plot`, with no table or column).

        Args:
            out: to write to. form: png, pdf or svg.
            tables: the rows of all tables of the kind, by name, with `job`.
            absent: jobs of which there are none.

        Returns:
            What is drawn, in a phrase, and then what the reader has to know, in sentences; None: this kind has no
            figure of its own.

        Raises:
            BadInput: they cannot stand in one figure.
        """
        return None

    def describe(self, params: Any) -> str:
        """One line for lists: what this job is, e.g. the command or the matrix."""
        return ""

    def inputs(self, params: Any) -> dict[str, Path]:
        """Inputs that follow from the parameters, name -> path, hashed at submit like declared ones."""
        return {}

    def pools(self, params: Any) -> bool:
        """May a job with these parameters run in a batch? One that is long, or keeps files, runs by itself.

        Of a sweep all cells must.
        """
        return self.pooled

    def study(self, params: Any) -> Study | None:
        """A DAG of jobs and sweeps that is recorded in place of one job, or None (the usual case)."""
        return None

    def run(self, ctx: Context) -> None:
        """Do the work. Return means success if the expectations hold; raise otherwise."""
        raise TypeError(f"the kind {self.name!r} has no run()")


@functools.cache
def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """Registered kinds by name. The class itself is loaded only by `load_kind`."""
    return {ep.name: ep for ep in importlib.metadata.entry_points(group=GROUP)}


def load_kind(name: str) -> Kind:
    """The kind registered under `name`.

    Raises:
        UnknownKind: no such kind; the message lists those there are, nearest first.
    """
    found = entry_points().get(name)
    if found is None:
        import difflib

        names = sorted(entry_points())
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise UnknownKind(f"no kind is called {name!r}", hint=hint)
    try:
        cls = found.load()
    except Exception as error:
        raise UnknownKind(
            f"the kind {name!r} ({found.value}) cannot be loaded: {type(error).__name__}: {error}",
            hint="repair or uninstall the package that registers it",
        ) from error
    kind = cls()
    if not isinstance(kind, Kind):
        raise UnknownKind(f"{found.value} is registered as a kind but is no core.kind.Kind", hint="repair its package")
    return kind
