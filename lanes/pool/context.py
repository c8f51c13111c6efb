"""The context of one pooled cell: what core.kind.Context promises to a pure, short kind, and nothing else.

There may be a hundred thousand of these a second, so nothing is written here: rows and step rows are kept and the
loop writes them for many cells at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from core.errors import BadInput
from lanes.context import Leaving, _plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from core.rundir import Checkpoint
    from lanes.pool.columns import Columns


class Shared:
    """What the cells of one batch have in common.

    Attributes:
        spec: the JobSpec as JSON, with `grant`, `lane` and the rest of what the batch was told.
        stopped: is this job to stop? Asked when a cell asks whether it should.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        grant: Mapping[str, Any],
        columns: Columns,
        scratch: Path,
        stopped: Callable[[int], bool],
    ) -> None:
        self.spec = spec
        self.cores = int(grant.get("cores") or 1)
        self.gpus = tuple(int(g) for g in grant.get("gpus") or ())
        self.columns = columns
        self.scratch = scratch
        self.inputs = {str(i["name"]): Path(i["path"]) for i in spec.get("inputs") or ()}
        self.stopped = stopped


class CellContext:
    """One cell's context."""

    __slots__ = (
        "_begun", "_last_step", "_shared", "attempt", "expected", "job", "key", "params", "progressed", "rows", "steps",
    )  # fmt: skip

    def __init__(self, shared: Shared, job: int, attempt: int, key: str, params: Any) -> None:
        self._shared = shared
        self.job = job
        self.attempt = attempt
        self.key = key
        self.params = params
        # What the kind said. None where it said nothing, which is cheaper than many empty lists.
        self.rows: dict[str, list[Any]] | None = None
        self.steps: list[dict[str, Any]] | None = None
        self.expected: dict[str, Any] | None = None
        self.progressed: tuple[float, float, str] | None = None
        self._last_step: int | None = None
        self._begun = 0.0

    @property
    def cores(self) -> int:
        return self._shared.cores

    @property
    def gpus(self) -> tuple[int, ...]:
        return self._shared.gpus

    @property
    def work(self) -> Path:
        return self._shared.scratch

    @property
    def artifacts(self) -> Path:
        raise _none("artifacts")

    @property
    def raw(self) -> Mapping[str, Any]:
        return {
            **self._shared.spec,
            "job": self.job,
            "attempt": self.attempt,
            "key": self.key,
            "params": self.params.model_dump(mode="json"),
        }

    def input(self, name: str) -> Path:
        found = self._shared.inputs.get(name)
        if found is None:
            known = ", ".join(sorted(self._shared.inputs)) or "none"
            raise BadInput(f"no input is called {name!r}", hint=f"declared are: {known}")
        return found

    def has_input(self, name: str) -> bool:
        return name in self._shared.inputs

    def expect(
        self, *, rows: Mapping[str, int] | None = None, last_step: int | None = None, artifacts: Sequence[str] = ()
    ) -> None:
        if artifacts:
            raise _none("artifacts")
        plan = self.expected = self.expected or {"rows": {}, "last_step": None}
        plan["rows"].update({str(k): int(v) for k, v in (rows or {}).items()})
        if last_step is not None:
            plan["last_step"] = int(last_step)

    def log(self, message: str) -> None:
        print(message)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.progressed = (done, total, note)

    def metrics(self, step: int, **values: float | int | str) -> None:
        step = int(step)
        if self._last_step is not None and step < self._last_step:
            raise BadInput(f"step {step} came after step {self._last_step}", hint="steps never go backwards")
        now = time.monotonic()
        if self.steps is None:
            self.steps, self._begun = [], now
        row: dict[str, Any] = {"job": self.job, "step": step, "t": round(now - self._begun, 4)}
        for name, value in values.items():
            row[name] = _plain(name, value)
        self.steps.append(row)
        self._last_step = step

    def results(self, table: str, rows: Any) -> None:
        mine = self.rows
        if mine is None:
            mine = self.rows = {}
        kept = mine.get(table)
        if kept is None:
            kept = []
            self._shared.columns.take(table, rows, kept)
            mine[table] = kept
        else:
            more: list[Any] = []  # none of them is added when one is wrong
            self._shared.columns.take(table, rows, more)
            kept += more

    def artifact(self, name: str) -> Path:
        raise _none(f"artifacts ({name!r})")

    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> AbstractContextManager[Path]:
        raise _none("checkpoints")

    def load_checkpoint(self) -> None:
        return None

    def checkpoints(self) -> Iterator[Checkpoint]:
        return iter(())

    @property
    def stopping(self) -> bool:
        return self._shared.stopped(self.job)

    def leave(self) -> NoReturn:
        raise Leaving

    # For the loop, not for kinds.

    def unmet(self, demanded: Mapping[str, Any]) -> list[str]:
        """One sentence for each thing that the user or the kind planned and that is not there."""
        missing: list[str] = []
        for plan in (demanded, self.expected or {}):
            for table, want in (plan.get("rows") or {}).items():
                have = sum(getattr(r, "num_rows", 1) for r in (self.rows or {}).get(table, ()))
                if have != int(want):
                    missing.append(f"the table {table} has {have} rows and {want} were planned")
            step = plan.get("last_step")
            last = self._last_step
            if step is not None and (last is None or last < int(step)):
                there = "there are no step rows" if last is None else f"the step rows end at {last}"
                missing.append(f"{there} and step {step} was planned")
        return list(dict.fromkeys(missing))


def _none(what: str) -> BadInput:
    return BadInput(f"a cell of a pooled kind has no {what}", hint="keep the result in a table, or drop `pooled`")
