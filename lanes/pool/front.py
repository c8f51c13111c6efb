"""All pools behind one door: batches for this machine go to its own pool, those for another lane to that lane's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cluster import LaneConfig
from core.states import Cause
from lanes.pool.far import Reach, why_not_afar
from lanes.pool.pool import Pool
from lanes.pool.remote import RemotePool
from lanes.pool.types import Batch, BatchDone, Cell
from lanes.transport import LinkDown

if TYPE_CHECKING:
    from lanes.joined.node import HeadSession, JoinedNode
    from lanes.mirror import Mirror
    from lanes.ray_session import RaySession


class Front:
    """Routes by the lane of a batch. Owned by the controller's one thread.

    Attributes:
        session: the head's Ray as lanes join it; None while there is none that could be joined.
    """

    def __init__(self, local: Pool, mirror: Mirror) -> None:
        self.local = local
        self.m = mirror
        self.session: HeadSession | None = None
        self._nodes: dict[str, JoinedNode] = {}
        self._far: dict[str, RemotePool] = {}
        self._configs: dict[str, LaneConfig] = {}
        self._why: dict[tuple[str, str], str] = {}  # spec digest, lane -> why its cells can never be pooled there

    def join(self, session: RaySession) -> None:
        """Ray is up: where `joined` lanes find it, if any are to. Those declared later run their workers without it."""
        if session.listens is not None:
            from lanes.joined.node import HeadSession

            self.session = HeadSession(session.id, *session.listens, session.token)

    def is_far(self, lane: str) -> bool:
        book = self.m.books.get(lane)
        return book is not None and book.config.remote

    def crew(self, spec_digest: str, spec: Mapping[str, Any]) -> str:
        """The crew that serves this spec, on whichever lane."""
        return self.local.crew(spec_digest, spec)

    def can(self, spec_digest: str, spec: Mapping[str, Any], lane: str) -> str:
        """Empty when cells of this spec can run in warm workers of that lane, else why not."""
        why = self._why.get((spec_digest, lane))
        if why is None:
            far = self.is_far(lane)
            why = why_not_afar(self.m.home, lane, spec) if far else self.local.can(spec)
            self._why[(spec_digest, lane)] = why
        if why or not self.is_far(lane):
            return why
        return self._pool(lane).unable(self.crew(spec_digest, spec))

    def busy(self, lane: str) -> str:
        """Why no batch is sent to that lane just now; empty when one can be."""
        return self._pool(lane).busy() if self.is_far(lane) else ""

    def size(self, crew: str, lane: str) -> int:
        """How many cells the next batch should hold."""
        return self._of(lane).size(crew)

    def seconds(self, crew: str, cells: int, lane: str) -> float:
        """How long a batch of so many cells should take; infinity when nobody knows."""
        return self._of(lane).seconds(crew, cells)

    def load(self, crew: str, lane: str) -> tuple[int, int]:
        """(batches that hold a slot, batches that wait behind them)."""
        return self._of(lane).load(crew)

    def start(self, batch: Batch, *, time_limit: float | None = None, ahead: bool = False) -> None:
        self._of(batch.lane).start(batch, time_limit=time_limit, ahead=ahead)

    def adopt(self, batch: Batch) -> None:
        """A batch that an earlier controller sent to another lane: the lane will say what became of it."""
        self._pool(batch.lane).adopt(batch)

    def stop_cells(self, jobs: set[int], cause: Cause) -> None:
        self.local.stop_cells(jobs, cause)
        for pool in self._far.values():
            pool.stop_cells(jobs, cause)

    def stop_batch(self, batch: Batch, cause: Cause) -> None:
        """Have all cells of this one batch stopped; others that have the same cells go on."""
        self._of(batch.lane).stop_cells({c.job for c in batch.cells}, cause, only=batch.nonce)

    def met(self, lane: str) -> None:
        """The lane answers (again). It may have something of an earlier controller's."""
        if self.is_far(lane) and self.m.books[lane].pools:
            self._pool(lane).look_again()

    def give_up(self, lane: str) -> None:
        """The lane is not to be waited for: the cells of its batches come back."""
        if lane in self._far:
            self._far[lane].give_up()

    def collect(self, folder: Path, cells: Iterable[Cell]) -> BatchDone:
        """What a batch of this machine has proven whose worker is dead."""
        return self.local.collect(folder, cells)

    def tick(self) -> None:
        self.local.tick()
        for pool in self._far.values():
            pool.tick()

    def close(self, *, kill: bool = False) -> None:
        """End the workers of this machine. Those of other lanes work on, unless they are to be killed too."""
        for pool in self._far.values():
            pool.close(kill=kill)
        for node in self._nodes.values():
            node.close()
        self.local.close()

    def _of(self, lane: str) -> Pool | RemotePool:
        return self._pool(lane) if self.is_far(lane) else self.local

    def _pool(self, lane: str) -> RemotePool:
        found, config = self._far.get(lane), self.m.books[lane].config
        if found is not None and config != self._configs[lane] and not found.in_flight():
            # It is declared otherwise now.
            found.close()
            node = self._nodes.pop(lane, None)
            if node is not None:
                node.close()
            found = None
        if found is None:
            self._configs[lane] = config
            found = RemotePool(self.m.home, lane, lambda: self._reach(lane), self.local.say, ray=self._node(lane))
            self._far[lane] = found
        return found

    def _node(self, lane: str) -> JoinedNode | None:
        book = self.m.books[lane]
        if book.config.transport != "joined" or self.session is None:
            return None
        if lane not in self._nodes:
            from lanes.joined.node import JoinedNode

            reach, cores = (lambda: self._reach(lane)), book.total().cores
            self._nodes[lane] = JoinedNode(book.config, self.session, reach, cores, self.local.say)
        return self._nodes[lane]

    def _reach(self, lane: str) -> Reach:
        handle: Any = self.m.handles.get(lane)
        if handle is None or not handle.remote:
            raise LinkDown(f"lane {lane} is not in touch with us")
        return handle  # type: ignore[no-any-return]
