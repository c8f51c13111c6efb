"""What controller and pool say to each other about batches of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from core.states import AttemptState, Cause


class Cell(NamedTuple):
    """One cell as it is placed."""

    job: int
    attempt: int
    key: str
    params: str  # JSON


@dataclass(frozen=True)
class Batch:
    """Cells of one crew that are given to one worker at once.

    Attributes:
        nonce: eight hexadecimal digits that no other batch has.
        dir: name of its run directory below the home's `batches`.
        spec: the JobSpec as JSON; all cells share it.
        grant: what it occupies on the lane while it runs.
    """

    nonce: str
    dir: str
    lane: str
    spec_digest: str
    spec: dict[str, Any]
    grant: dict[str, Any]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class CellEnd:
    """A cell that did not end plainly well. One that read undeclared files is SUCCEEDED, OK, and names them."""

    job: int
    attempt: int
    state: AttemptState
    cause: Cause
    message: str
    seconds: float | None = None
    undeclared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableBytes:
    """Rows of one table: an Arrow IPC stream with the columns job, attempt and the kind's."""

    data: bytes
    rows: int
    first: int
    last: int


@dataclass(frozen=True)
class BatchDone:
    """How a batch ended. `ok`, `ends` and `back` hold each of its cells exactly once.

    Attributes:
        ok: jobs that plainly succeeded, ascending.
        back: jobs that did not begin, or whose work counts for nothing: as if never placed.
        manifest: SHA-256 of the batch's manifest.json; None when nobody could seal it.
        worker_died: the worker ended before the batch did.
        no_room: the disk of the run directories is full.
    """

    nonce: str
    ok: list[int]
    ends: list[CellEnd]
    back: list[int]
    tables: dict[str, TableBytes]
    seconds: float
    manifest: str | None
    worker_died: bool = False
    no_room: bool = False
