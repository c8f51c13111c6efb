"""The least that a kind can run in: no run directory, no lane. What the real context refuses, this one does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.kind import Kind
from core.rundir import Checkpoint


class Left(Exception):
    """`leave()` was called."""


class Recorder:
    """A context that keeps what the kind says."""

    job, attempt, key = 1, 1, "k" * 64
    gpus: tuple[int, ...] = ()

    def __init__(
        self, kind: Kind, params: Any, root: Path, *, cores: int = 2, inputs: Mapping[str, Path] | None = None
    ) -> None:
        self.kind, self.params, self.cores = kind, params, cores
        self.work, self.artifacts = root / "work", root / "artifacts"
        self.work.mkdir(parents=True)
        self.artifacts.mkdir()
        self.raw: Mapping[str, Any] = {}
        self.expected: dict[str, Any] = {}
        self.inputs = {**kind.inputs(params), **(inputs or {})}
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.logs: list[str] = []
        self.steps: list[tuple[float, float]] = []
        self.stopping = False

    def run(self) -> None:
        """Run the kind in this process with the scratch folder as the current one, as a lane does."""
        before = Path.cwd()
        os.chdir(self.work)
        try:
            self.kind.run(self)
        finally:
            os.chdir(before)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the table that is named as the kind is."""
        return self.tables.get(self.kind.name, [])

    def table(self, name: str) -> pa.Table:
        return pa.Table.from_pylist(self.tables[name], schema=self.kind.tables()[name])

    def expect(self, **what: Any) -> None:
        assert not self.tables, "the plan must be known before the work starts"
        self.expected = what

    def log(self, message: str) -> None:
        self.logs.append(message)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.steps.append((done, total))

    def metrics(self, step: int, **values: Any) -> None: ...

    def results(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        schema = self.kind.tables()[table]
        for row in rows:
            assert set(row) == set(schema.names)
        pa.Table.from_pylist([dict(r) for r in rows], schema=schema).validate(full=True)
        self.tables.setdefault(table, []).extend(dict(r) for r in rows)

    def artifact(self, name: str) -> Path:
        return self.artifacts / name

    def input(self, name: str) -> Path:
        assert name in self.inputs, f"no input {name} was declared"
        return self.inputs[name].absolute()

    def has_input(self, name: str) -> bool:
        return name in self.inputs

    @contextlib.contextmanager
    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> Iterator[Path]:
        yield self.work

    def load_checkpoint(self) -> None:
        return None

    def checkpoints(self) -> Iterator[Checkpoint]:
        return iter(())

    def leave(self) -> None:
        raise Left
