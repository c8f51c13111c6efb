"""A joined lane's Ray node, as the controller sees it: kept up while the head's Ray is, and never trusted to be.

The lane's agent starts and ends it; one thread here looks after it. When it dies only the pool of this lane waits for
the next one: attempts on the lane have nothing to do with it. A node never rejoins another session of the head's Ray:
it is ended and started afresh.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.cluster import LaneConfig
from lanes.joined.checks import Refusal, arguments, here, refusal, resource, unreachable
from lanes.later import Message
from lanes.pool.far import Reach
from lanes.transport import LinkDown, LinkRefused

LOOK_S = 2.0
AGAIN_S = 30.0  # between two tries of a lane that cannot join
CALL_S = 30.0
UP_S = 60.0  # from `ray start` until the head's Ray knows the node
_SHARE = 1e-4  # of the lane's resource: its workers are counted by our own ledger


@dataclass(frozen=True)
class HeadSession:
    """The head's Ray as lanes join it.

    Attributes:
        id: of this session and no other.
        address, port: where the control service listens.
        token: of the cluster.
    """

    id: str
    address: str
    port: int
    token: str


def look(
    lane: str, ask: Callable[..., Any], interpreter: str | None, head: tuple[str, int] | None = None
) -> Refusal | None:
    """Ask the lane whether it could join. None: it could.

    Args:
        ask: calls the lane's agent: ask(method, *arguments, timeout_s=...).
        interpreter: the one that attempts there have; None: the one that runs the agent.
        head: where the head's Ray listens, if it does.

    Raises:
        LinkDown, LinkRefused, RemoteError: it cannot be asked.
    """
    found = ask("node_versions", interpreter, timeout_s=CALL_S)
    why = refusal(lane, found, here())
    if why is None and head is not None:
        reached = ask("node_reach", head[0], head[1], timeout_s=CALL_S)
        if not reached["ok"]:
            why = unreachable(lane, head[0], head[1], str(reached["error"]))
    return why


class JoinedNode:
    """Keeps the node up, and starts workers there.

    Args:
        reach: the hold on the lane as it is now.
        cores: how many the lane's pool may use.
        say: puts a message into the controller's inbox.
    """

    def __init__(
        self,
        config: LaneConfig,
        session: HeadSession,
        reach: Callable[[], Reach],
        cores: int,
        say: Callable[[Message], None],
    ) -> None:
        self._config = config
        self._session = session
        self._reach = reach
        self._cores = cores
        self._say = say
        self._why = f"the Ray node of lane {config.name} is being started"
        self._refused = ""
        self._said = ""
        self._asked: dict[str, Any] = {}  # worker's folder -> its actor
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name=f"ray-node-{config.name}", daemon=True)
        self._thread.start()

    def ready(self) -> str:
        """Empty when workers can be started there, else why not just now."""
        return self._why

    def refused(self) -> str:
        """Why it cannot join until a person does something; empty while there is no such reason."""
        return self._refused

    def start(self, folder: str) -> None:
        """Have Ray start the worker whose folder that is, unless it was asked before."""
        import ray
        from ray import cloudpickle

        from lanes.joined import worker

        with self._lock:
            if folder in self._asked or self._why or self._closed.is_set():
                return
            cloudpickle.register_pickle_by_value(worker)
            try:
                options: dict[str, Any] = {
                    "num_cpus": 0,
                    "resources": {resource(self._config.name): _SHARE},
                    "max_restarts": 0,
                    "max_task_retries": 0,
                }
                actor = ray.remote(worker.FarWorker).options(**options).remote()
                serving = actor.serve.remote(folder)
            finally:
                cloudpickle.unregister_pickle_by_value(worker)
            self._asked[folder] = actor
        serving.future().add_done_callback(lambda f: self._gone(folder, f.exception()))

    def close(self) -> None:
        """Look after it no more. The node is ended if the lane can be told; else it ends itself without its head."""
        self._closed.set()
        with contextlib.suppress(Exception):
            self._reach().ask("node_end", timeout_s=2.0)

    def _gone(self, folder: str, error: BaseException | None) -> None:
        """The actor has ended. Its keeper sees that, but not if the actor never came to be."""
        with self._lock:
            self._asked.pop(folder, None)
        if error is not None and not self._closed.is_set():
            # Not here: this is a thread of Ray's, and what we ask goes through Ray.
            threading.Thread(target=self._tell_keeper, args=(folder,), daemon=True).start()

    def _tell_keeper(self, folder: str) -> None:
        with contextlib.suppress(Exception):
            self._reach().ask("crew_kill", folder, timeout_s=CALL_S)

    def _look_after(self) -> None:
        pause = 0.0
        while not self._closed.wait(pause):
            pause = LOOK_S
            try:
                why = self._see_to_it()
            except (LinkDown, LinkRefused):
                continue  # what runs there runs on; whether the node lives is seen when the lane is heard again
            except Exception as error:
                why = f"the Ray node of lane {self._config.name} cannot be looked after: {error}"
            if why and why != self._said:
                self._said = why
                self._say(("lane-error", self._config.name, why))
            self._why = why
            pause = AGAIN_S if why else LOOK_S

    def _see_to_it(self) -> str:
        """Make the node be there. Why it is not, if it cannot be."""
        reach, name, session = self._reach(), self._config.name, self._session
        status = reach.ask("node_status", timeout_s=CALL_S)
        if status["state"] == "up" and status["session"] == session.id and self._joined():
            return ""
        self._why = self._why or f"the Ray node of lane {name} is being started"
        why = look(name, reach.ask, reach.interpreter, (session.address, session.port))
        self._refused = f"{why.message}; {why.hint}" if why is not None else ""
        if why is not None:
            return self._refused
        order = {
            "session": session.id,
            "python": reach.interpreter,
            "arguments": arguments(
                self._config,
                head=session.address,
                port=session.port,
                address=self._address(reach),
                cores=self._cores,
            ),
            "token": session.token,
        }
        reach.ask("node_begin", order, timeout_s=CALL_S)
        until = time.monotonic() + UP_S
        while time.monotonic() < until and not self._closed.wait(0.3):
            status = reach.ask("node_status", timeout_s=CALL_S)
            if status["state"] in ("failed", "dead"):
                return f"the Ray node of lane {name} does not start: {status['error'] or 'it died'}"
            if status["state"] == "up" and self._joined():
                self._said = ""
                return ""
        return f"the Ray node of lane {name} was started and is not seen by the head after {UP_S:g} s"

    def _address(self, reach: Reach) -> str:
        """The lane's own address on the way to the head: the one by which the head finds its node."""
        found = reach.ask("node_address", self._session.address, self._session.port, timeout_s=CALL_S)
        return str(found)

    def _joined(self) -> bool:
        """Does the head's Ray know a living node with this lane's resource?"""
        import ray

        wanted = resource(self._config.name)
        return any(n["Alive"] and wanted in n["Resources"] for n in ray.nodes())
