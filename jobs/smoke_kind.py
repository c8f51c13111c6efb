"""The kind `smoke` as the command line and the controller see it: its parameters and its one-line description."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from core.kind import Context, Kind, Params
from jobs import smoke


class SmokeParams(Params):
    """How long, how fast, and what it leaves."""

    steps: int = Field(1, ge=1, le=100_000, description="epochs")
    pace_s: float = Field(0.0, ge=0, le=60, description="seconds from one epoch to the next; 0: as fast as it can")
    checkpoint: bool = Field(False, description="save a checkpoint after each epoch, and read it back")
    gpu: bool = Field(False, description="also send numbers to the granted GPU and back")
    seed: int = Field(0, ge=0, lt=2**32, description="of the points that it learns")
    kib: int = Field(64, ge=1, le=65536, description="size of the file that it leaves, in KiB")
    nonce: str = Field("", max_length=128, description="what the bytes of that file follow from")


class Smoke(Kind):
    name: ClassVar[str] = "smoke"
    summary: ClassVar[str] = "a small real training in plain Python: does this lane work at all"
    Params: ClassVar[type[Params]] = SmokeParams
    code: ClassVar[tuple[str, ...]] = ("jobs.smoke", "jobs.smoke_kind")

    def describe(self, params: SmokeParams) -> str:
        epochs = f"{params.steps} epoch{'s' if params.steps > 1 else ''}"
        pace = f", one each {params.pace_s:g} s" if params.pace_s else ""
        return epochs + pace + (", checkpoints" if params.checkpoint else "") + (", on the GPU" if params.gpu else "")

    def run(self, ctx: Context) -> None:
        smoke.run(ctx)
