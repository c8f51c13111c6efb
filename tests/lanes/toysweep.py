"""Kinds for tests of sweeps: one that pools and the same one that does not. Cells that fail, die, wait, or go well."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

from core.kind import Context, Kind, Params


class ToyParams(Params):
    """`do`: what happens; `mark`: a file that says that it happened already, or that a waiting cell may go on."""

    i: int
    do: str = "fine"
    mark: str = ""
    s: float = 0.0


class Toy(Kind):
    name: ClassVar[str] = "toy-pooled"
    summary: ClassVar[str] = "a cell"
    Params: ClassVar[type[Params]] = ToyParams
    pooled: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("core",)

    def tables(self) -> dict[str, Any]:
        import pyarrow as pa

        return {"toy": pa.schema([("i", pa.int64()), ("square", pa.int64())])}

    def run(self, ctx: Context) -> None:
        p = ctx.params
        if p.do == "fail":
            raise ValueError(f"no luck with {p.i}")
        if p.do == "die" or (p.do == "die-once" and not os.path.exists(p.mark)):
            if p.mark:
                Path(p.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if p.do == "wait":
            Path(f"{p.mark}.{p.i}").touch()
            while not os.path.exists(p.mark):
                time.sleep(0.01)
        if p.do == "stuck-once":  # whoever comes first is stuck until it is let go; making a folder opens nothing
            try:
                os.mkdir(f"{p.mark}.{p.i}")
            except FileExistsError:
                pass
            else:
                while not os.path.exists(p.mark):
                    time.sleep(0.01)
        if p.s:
            time.sleep(p.s)
        ctx.results("toy", [{"i": p.i, "square": p.i * p.i}])


class Plain(Toy):
    name: ClassVar[str] = "toy-plain"
    pooled: ClassVar[bool] = False
