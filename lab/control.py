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
_AGAIN_S = 0.5  # one that goes down is looked after this often


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

    One that was asked to go down before that does so, and is started again: what was asked last counts.

    Raises:
        Unavailable: it does not answer in time, or somebody asked it to go down meanwhile.
    """
    from lanes.start import ensure_controller

    with Journal.open(home) as journal:
        began = int(journal.conn.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])
    started, again = ensure_controller(home), 0.0

    def up() -> bool:
        nonlocal started, again
        with Journal.open(home) as journal:
            if journal.conn.execute("SELECT 1 FROM event WHERE seq > ? AND kind = 'down-asked'", (began,)).fetchone():
                raise Unavailable(
                    f"the controller of {home.path} was asked to go down meanwhile", hint="`lab up` starts it again"
                )
            said = query.controller(journal.conn)
            leaving = query.down_wish(journal.conn) is not None or (said is not None and said[1] is not None)
        if not leaving:
            return answers(home)
        if not started and time.monotonic() > again:
            started, again = ensure_controller(home), time.monotonic() + _AGAIN_S
        return False

    if not wait_until(up, timeout_s):
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


NOT_JOINED = "its warm workers run without Ray until `lab down` and `lab up`: no joined lane was declared at the start"


def joins_now(home: Home) -> bool:
    """Can lanes join the Ray of the controller that runs? True where none runs: the next one lets them."""
    from lanes.start import controller_alive

    if not home.journal.exists() or not controller_alive(home):
        return True
    with Journal.open(home) as journal:
        said = query.controller(journal.conn)
    return said is None or said[0].get("joins") is not False
