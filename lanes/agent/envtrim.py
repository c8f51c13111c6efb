"""Environments of a lane that nobody needs any more: removed when its disk is scarce, and never before.

To make one anew takes minutes and a transfer, and until then no attempt can start. So one goes only when it is shown
that nobody needs it: each lane below this root has said which interpreters it starts attempts with, no live attempt,
batch or crew names it, and no process runs from it. What cannot be shown keeps them all.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any, Iterable, List, Optional, Set, Tuple

from core.fsio import tree_size, write_json
from lanes.agent import owner, procs
from lanes.agent.envmake import MARKER
from lanes.agent.leftovers import listed, named_by_processes
from lanes.agent.safe import number, read_dict
from lanes.agent.trees import remove_tree

TOLD = "pythons.json"  # in the agent's own folder: the interpreters that its head named, and when it did so last
TOLD_FOR_S = 7 * 86400.0  # an attempt whose data is still being sent was ordered with what was named before
FRESH_S = 86400.0  # what was made or asked for so recently is about to be named
_NAME = re.compile(r"[0-9a-f]{16,20}")


def tell(root: Path, pythons: Iterable[str]) -> None:
    """The head will start attempts with these interpreters.

    Args:
        root: the agent's own folder.
    """
    now = time.time()
    told = read_dict(root / TOLD).get("pythons")
    kept = {p: at for p, at in told.items() if number(at) and now - at < TOLD_FOR_S} if isinstance(told, dict) else {}
    write_json(root / TOLD, {"pythons": {**kept, **dict.fromkeys(pythons, now)}}, sync=False)


def touch(place: Path) -> None:
    """Somebody asked for this environment just now."""
    with contextlib.suppress(OSError):
        os.utime(place / MARKER)


def make_room(base: Path, size: int, used: Set[str]) -> Tuple[int, List[List[str]]]:
    """Remove environments that nobody needs, longest unasked first, until `size` bytes are free.

    Args:
        base: the lane's root folder.
        used: every text in the specs of live attempts and batches.

    Returns:
        the bytes that were freed, and [["env", name], ...]
    """
    freed = 0
    dropped: List[List[str]] = []
    for place in _unneeded(base, used):
        if freed >= size:
            break
        gone = place.parent / f".gone-{os.urandom(4).hex()}"
        weight = tree_size(place)
        with contextlib.suppress(OSError):
            os.rename(place, gone)  # never seen half removed
            freed += weight
            dropped.append(["env", place.name])
            remove_tree(gone)
    return freed, dropped


def _unneeded(base: Path, used: Set[str]) -> List[Path]:
    found = {}
    for place in listed(base / "env"):
        if place.name.startswith(".gone-"):
            remove_tree(place)  # whoever removed it was killed
        elif _NAME.fullmatch(place.name) and time.time() - _asked_at(place) > FRESH_S:
            found[place.name] = place
    if not found or not procs.has_proc():
        return []
    named = _named(base)
    if named is None:
        return []
    texts = "\n".join([*used, *named])
    free = {name for name in found if name not in texts}
    free -= named_by_processes(free, ("cmdline", "environ", "maps"))
    return sorted((found[name] for name in free), key=_asked_at)


def _named(base: Path) -> Optional[List[str]]:
    """The interpreters that lanes and crews below this root use; None: one of them has not said."""
    found: List[str] = []
    try:
        about = read_dict(base / owner.OWNER)
        lanes = about.get("lanes")
        for lane in lanes if isinstance(lanes, dict) else {}:
            told: Any = read_dict(base / "heads" / str(about.get("home")) / lane / TOLD).get("pythons")
            if not isinstance(told, dict):
                return None
            found += told
        for setup in base.glob("heads/*/*/crews/*/setup.json"):
            found.append(str(read_dict(setup).get("python")))
    except OSError:
        return None
    return found if lanes else None


def _asked_at(place: Path) -> float:
    """When it was made or asked for last; the future if that cannot be told."""
    try:
        return os.lstat(place / MARKER).st_mtime
    except OSError:
        return float("inf")
