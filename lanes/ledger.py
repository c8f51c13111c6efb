"""Who holds what on each lane: our own count, not Ray's. Rebuilt from the journal at every start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core.cluster import LaneConfig
from core.journal.query import Attempt
from core.spec import Needs
from core.states import LaneState
from lanes.placement import Capacity, LaneView

_BARRED = 32  # specs of which it is kept why they are barred from a lane


@dataclass
class LaneBook:
    """One lane: what it has, and which open attempts and batches hold what of it."""

    config: LaneConfig
    state: LaneState = LaneState.DECLARED
    reason: str = ""
    hello: dict[str, Any] = field(default_factory=dict)
    held: dict[tuple[int, int] | str, dict[str, Any]] = field(default_factory=dict)
    admitted: frozenset[str] = frozenset()  # of a remote lane: the roles that it has earned
    admitting: bool = False  # the jobs of its ladder may be placed
    link: dict[str, Any] = field(default_factory=dict)  # what is known of the way to it while it is down
    barred: dict[str, str] = field(default_factory=dict)  # spec digest -> why its cells get no warm worker here now
    down_since: float | None = None  # monotonic: when it was last heard, while it is out of reach

    def total(self) -> Capacity:
        """The declared capacity, never more than what the probe found."""
        probed_gpus = tuple(int(g["index"]) for g in self.hello.get("gpus") or ())
        gpus = probed_gpus if self.config.gpus is None else probed_gpus[: self.config.gpus]
        return Capacity(
            cores=_least(self.config.cores, self.hello.get("cores")) or 1,
            memory_mb=_least(self.config.memory_mb, self.hello.get("memory_mb")),
            gpus=gpus,
            resources=frozenset(self.config.resources),
        )

    def free(self) -> Capacity:
        total = self.total()
        cores, memory = total.cores, total.memory_mb
        gpus, resources = set(total.gpus), set(total.resources)
        for grant in self.held.values():
            cores -= int(grant.get("cores", 1))
            if memory is not None:
                memory -= int(grant.get("memory_mb") or 0)
            gpus -= set(grant.get("gpus") or ())
            resources -= set(grant.get("resources") or ())
        disk = int(self.hello["disk_free"]) >> 20 if "disk_free" in self.hello else None
        return Capacity(cores, memory, tuple(sorted(gpus)), frozenset(resources), disk)

    def view(self) -> LaneView:
        why = (
            ""
            if self.state is LaneState.UP
            else f"the lane is {self.state}" + (f": {self.reason}" if self.reason else "")
        )
        roles = self.roles
        is_open = self.state is LaneState.UP
        return LaneView(
            self.config.name, self.total(), self.free(), roles, is_open, why, self.pools, admitting=self.admitting
        )

    @property
    def batches(self) -> list[str]:
        """The batches that hold something here."""
        return [at for at in self.held if isinstance(at, str)]

    @property
    def roles(self) -> frozenset[str]:
        """What may be placed here: a remote lane has to earn it, and may have no more than is declared."""
        declared = frozenset(self.config.roles)
        return self.admitted & declared if self.config.remote else declared

    @property
    def pools(self) -> bool:
        """Can cells run here in warm workers?"""
        return not self.config.remote or "sweep" in self.roles

    def bar(self, spec: str, why: str) -> None:
        """Keep, for people, why no batch of this spec is sent here now; empty: one can be."""
        self.barred.pop(spec, None)
        if why:
            self.barred[spec] = why
            while len(self.barred) > _BARRED:
                del self.barred[next(iter(self.barred))]

    def hold(self, attempt: Attempt) -> None:
        self.held[(attempt.job, attempt.n)] = attempt.grant

    def release(self, job: int, n: int) -> None:
        self.held.pop((job, n), None)

    def hold_batch(self, nonce: str, grant: dict[str, Any]) -> None:
        """All cells of a batch share one slot: its worker runs them one after another."""
        self.held[nonce] = grant

    def release_batch(self, nonce: str) -> None:
        self.held.pop(nonce, None)


def grant_of(needs: Needs, gpus: tuple[int, ...]) -> dict[str, Any]:
    """What an attempt gets, as written into the journal and its spec."""
    return {"cores": needs.cores, "memory_mb": needs.memory_mb, "gpus": list(gpus), "resources": list(needs.resources)}


def _least(declared: int | None, probed: int | None) -> int | None:
    known = [v for v in (declared, probed) if v is not None]
    return min(known) if known else None
