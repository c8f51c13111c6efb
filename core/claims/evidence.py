"""What a claim stands on, as it was found now: read-only facts, recounted and hashed again, without an opinion.

Nothing here is taken from a field that says that something is well. What could not be read stands in `problems`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.claims.definition import EVALS, SINGLE, Definition
from core.claims.words import Rung, Waiver

Row = Mapping[str, Any]


@dataclass(frozen=True)
class FileSeen:
    """One sealed file: its digest by the seal and by its bytes now. `now` is empty where it cannot be read."""

    path: str
    sealed: str
    now: str
    problem: str = ""


@dataclass(frozen=True)
class Taken:
    """An input that another job made.

    Attributes:
        recorded: its digest, as the attempt that took it wrote down.
        now: the same of the maker's files now; empty where they cannot be read.
    """

    name: str
    maker: int | None
    file: str
    recorded: str
    now: str


@dataclass(frozen=True)
class Images:
    """Pictures, counted and hashed one by one from their bytes.

    Attributes:
        digests: SHA-256 of each one's float32 little-endian C-order bytes.
        ids: as the file names them, or empty.
        content: SHA-256 over the sorted digests, each followed by a newline.
    """

    digests: tuple[str, ...]
    content: str
    ids: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.digests)


@dataclass(frozen=True)
class Weights:
    """Arrays of a network: SHA-256 of all, and of each that is large enough to be told from chance."""

    content: str
    arrays: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """Which code ran. `stored`: the whole tree is kept under its digest, so that a dirty one can be looked at."""

    digest: str
    stored: bool
    commit: str = ""
    dirty: bool = False


@dataclass(frozen=True)
class Cited:
    """A job that the claim cites.

    Attributes:
        role: as the claim calls it: `eval`, `sweep.0`, `seeds.1.train`.
        key, key_now: as the journal has it, and recomputed from the spec.
        code: of the kind, and of the user where there is such.
        environment: what env.json says was realised.
        submitted, finished: sequence numbers in the journal.
        relaxed: checks that its parameters or its submit switched off.
        planned: what must be there at its end, as it said before the work.
        tables: rows by table. documents: JSON artifacts by name. images, weights, series: of NPZ artifacts.
        waivers: that the run itself wrote.
        problems: what could not be read, in sentences.
    """

    role: str
    job: int
    kind: str
    name: str
    state: str
    key: str
    key_now: str
    submitted: int
    finished: int | None
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    code: tuple[Code, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    undeclared: tuple[str, ...] = ()
    relaxed: tuple[str, ...] = ()
    planned: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[FileSeen, ...] = ()
    taken: tuple[Taken, ...] = ()
    tables: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Images] = field(default_factory=dict)
    weights: Mapping[str, Weights] = field(default_factory=dict)
    series: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    identities: frozenset[str] = frozenset()
    waivers: tuple[Waiver, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"

    @property
    def own(self) -> str:
        """The role without the list that it is in: `seeds.1.train` is a `train`, `sweep.0` a `sweep`."""
        parts = [p for p in self.role.split(".") if not p.isdigit()]
        return parts[-1]

    def rows(self, column: str) -> Iterator[Row]:
        """Rows of all tables that have this column."""
        for rows in self.tables.values():
            yield from (r for r in rows if column in r)

    def metrics(self, name: str | None = None) -> list[Row]:
        """Rows of `metric` and `value`; those of one metric."""
        return [r for r in self.rows("metric") if "value" in r and name in (None, r["metric"])]

    def sealed(self, path: str) -> str:
        """The digest of one file now; empty where it is not there."""
        return next((f.now for f in self.files if f.path == path), "")


@dataclass(frozen=True)
class Node:
    """A job of the package. `reason`: why it did not succeed."""

    job: int
    name: str
    state: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled", "skipped")


@dataclass(frozen=True)
class Sibling:
    """A job that differs from a cited one in choices alone (seeds, checkpoints, what the rule goes over).

    Attributes:
        of: the role of the cited one; choices: parameter -> value, for the sibling, over its whole making.
        cited: its role, or empty.
        value: of the metric by which the rule chooses, or None.
    """

    of: str
    job: int
    state: str
    finished: int | None
    choices: Mapping[str, Any]
    cited: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Earlier:
    """What the journal says of an earlier evaluation: its label, and digests of what it was made of."""

    seq: int
    rung: Rung | None
    reached: bool
    items: Mapping[str, str]


@dataclass(frozen=True)
class Evidence:
    """Everything that the gates look at.

    Attributes:
        stated: sequence number of the statement.
        unresolved: role -> why no job could be found for it.
        nodes: of the package; nodes_problem: why there are none.
        waivers: that people gave for this claim.
        gate_code: SHA-256 of the code of the gates.
        earlier: the last evaluation that reached what the claim wants, or None.
        current: digests of everything by name, to be compared with `earlier.items`.
    """

    claim: Definition
    stated: int
    cited: tuple[Cited, ...]
    unresolved: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    nodes_problem: str = ""
    siblings: tuple[Sibling, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    gate_code: str = ""
    earlier: Earlier | None = None
    current: Mapping[str, str] = field(default_factory=dict)

    def of(self, role: str) -> Cited | None:
        """The job of exactly this role."""
        return next((c for c in self.cited if c.role == role), None)

    @property
    def jobs(self) -> list[Cited]:
        """Every cited job once, under the first of its roles."""
        return list({c.job: c for c in reversed(self.cited)}.values())[::-1]

    def all(self, *own: str) -> list[Cited]:
        """Every job whose role, without the list that it is in, is one of `own`; one that is there twice, beside the
        same others, counts once."""
        found: dict[tuple[int, ...], Cited] = {}
        for cited in self.cited:
            if cited.own in own:
                beside = [self.chain(cited, r) for r in ("train", "sample", "eval")]
                found.setdefault((cited.job, own.index(cited.own), *(b.job if b else 0 for b in beside)), cited)
        return list(found.values())

    @property
    def judged(self) -> list[Cited]:
        """Every evaluation: of the roles that are one, and of any other role whose job has rows of metrics."""
        others = {c.own for c in self.cited if c.own not in SINGLE and c.metrics()}
        return self.all(*EVALS, *sorted(others - set(EVALS)))

    def chain(self, cited: Cited, own: str) -> Cited | None:
        """The cited job `own` that stands beside `cited`: of the same seed where it is of one, else the main one."""
        prefix = ".".join(cited.role.split(".")[:-1]) if cited.role.startswith("seeds.") else ""
        return (self.of(f"{prefix}.{own}") if prefix else None) or self.of(own)

    def why_not(self, role: str) -> str:
        """Why there is no job of this role."""
        return self.unresolved.get(role, f"no job is cited as {role}")
