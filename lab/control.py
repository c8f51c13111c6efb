"""Starting the controller and waiting for its answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from core import cluster
from core.errors import Unavailable
from core.home import Home
from core.journal import Journal, query
from core.states import LaneState

_POLL_S = 0.05


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Ask `done` often until it says yes. False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def start_and_wait(home: Home, timeout_s: float) -> bool:
    """Start the controller unless it runs, and wait until it answers. True when it had to be started.

    Raises:
        Unavailable: it does not answer in time.
    """
    from lanes.start import ensure_controller

    started = ensure_controller(home)
    if not wait_until(lambda: answers(home), timeout_s):
        raise Unavailable(
            f"the controller of {home.path} does not answer after {timeout_s:g} s",
            hint=f"read the end of {home.controller_log}, then `lab doctor`",
        )
    return started


def answers(home: Home) -> bool:
    """Is the controller there, has it finished its start, and is a lane of it up?"""
    from lanes.start import controller_alive

    if not controller_alive(home):
        return False
    with Journal.open(home) as journal:
        said = query.controller(journal.conn)
        if said is None or said[1] is not None:
            return False
        lanes = query.lanes(journal.conn)
    if any(lane.state in (LaneState.UP, LaneState.DRAINING) for lane in lanes):
        return True
    # A lab may have remote lanes only, and none of them need be in reach.
    return all(lane.remote for lane in cluster.load(home.cluster_file).lanes)
