"""A remote lane in a folder of its own: the agent's real half, behind a link that can be cut at any call."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.fsio import read_json
from core.home import Home
from lanes.agent import procs
from lanes.agent.crews import Crews
from lanes.pool import post
from lanes.pool.crew import crew_key
from lanes.pool.far import why_not_afar
from lanes.pool.remote import RemotePool
from lanes.pool.types import Batch
from lanes.transport import LinkDown
from tests.lanes.pool.toys import Bench
from tests.support import wait_for


class FarLane:
    """What a RemoteHandle is to a pool, without ssh: calls go to a Crews in `folder`, as JSON and bytes.

    Attributes:
        before, after: called with each method's name; may raise LinkDown, so that a call does not arrive, or that it
            had its effect and nobody is told.
    """

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder
        self.root = folder / "heads" / home.hash / "far"
        self.interpreter: str | None = None
        self.cut = False
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.busy = 0
        self._lock = threading.Lock()
        self.crews = Crews(self.root, folder)

    def break_off(self) -> None:
        """Cut the link, and return when no call is under way any more."""
        self.cut = True
        wait_for(lambda: self.busy == 0, "calls to end")

    def restart_agent(self) -> None:
        """kill -9 of the agent, and the next one: whatever it had only in memory is gone."""
        self.crews = Crews(self.root, self.folder)

    def ask(self, method: str, *args: Any, timeout_s: float = 60.0, **named: Any) -> Any:
        if self.cut:
            raise LinkDown("cut")
        self.before(method)
        with self._lock:
            self.calls.append((method, args))
            self.busy += 1
        try:
            answer = getattr(self.crews, method)(*_carried(args), **_carried(named))
        finally:
            with self._lock:
                self.busy -= 1
        if self.cut:
            raise LinkDown("cut while it was under way")
        self.after(method)
        return _carried(answer)

    def carry(self, method: str, *args: Any, **named: Any) -> Any:
        if self.cut:
            raise LinkDown("cut")
        self.before(method)
        if method == "ensure_code":
            target = self.folder / "store" / "code" / args[0]
            if not target.exists():
                shutil.copytree(self.home.code / args[0], target)
        else:
            assert method == "ensure_input"
            target = self.folder / "store" / "inputs" / args[0]["sha256"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args[0]["path"], target)
        self.after(method)
        return str(target)

    # What a test looks at.

    def workers(self) -> list[Path]:
        return [Path(w) for f in self.crews._folders() for w in self.crews._workers(f)]

    def worker_pids(self) -> list[int]:
        return [pid for w in self.workers() if (pid := _word(w, 0))]

    def keeper_pids(self) -> list[int]:
        found = []
        for pid in procs.descendants(1) or []:
            try:
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(b"lanes.agent.keeper" in a for a in argv) and any(str(self.root).encode() in a for a in argv):
                found.append(pid)
        return found

    def setup_of(self, worker: Path) -> dict[str, Any]:
        return read_json(worker / post.SETUP, {})  # type: ignore[no-any-return]

    def end(self) -> None:
        wait_for(lambda: self.crews.crew_end()["left"] == 0, "all workers to be gone")
        assert self.keeper_pids() == []


class FarBench(Bench):
    """A home whose pool is that of a remote lane."""

    lane = "far"

    def __init__(self, home: Home, folder: Path, place: Path) -> None:
        self.far = FarLane(home, place)
        super().__init__(home, folder)
        self._specs = itertools.count(0x1000)

    def make_pool(self) -> Any:
        return RemotePool(self.home, self.lane, lambda: self.far, self.inbox.put)

    def can(self, spec: dict[str, Any]) -> str:
        return why_not_afar(self.home, self.lane, spec) or self.pool.unable(crew_key(spec)) or self.pool.busy()

    def heal(self) -> None:
        """The link is there again, and the pool knows."""
        self.far.cut = False
        self.pool.look_again()
        wait_for(lambda: self.pool._down_since is None, "the pool to see that the link is there")

    def new_controller(self, *batches: Batch) -> None:
        """The controller was killed; the next one knows of these batches from its journal."""
        self.pool.close()
        while not self.inbox.empty():
            self.inbox.get()
        self.pool = self.make_pool()
        for batch in batches:
            self.pool.adopt(batch)


def _carried(value: Any) -> Any:
    """As it comes out at the other end of the channel."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return {str(k): _carried(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_carried(v) for v in value]
    return json.loads(json.dumps(value))


def _word(worker: Path, which: int) -> int:
    try:
        blob = (worker / post.WORDS).read_bytes()
    except OSError:
        return 0
    return int.from_bytes(blob[8 * which : 8 * which + 8], "little")
