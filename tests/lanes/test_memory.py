"""The kernel's own out-of-memory killer, in a small control group that a test makes: version 1 or 2 of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.rundir import verify_manifest
from tests.lanes.support import Lane
from tests.support import wait_for

pytestmark = pytest.mark.root
LIMIT = 48 << 20
# A program that goes into the group, says so, and takes memory: more than there is, or a little.
EATER = """
import os, sys, time
with open(sys.argv[1] + "/cgroup.procs", "w") as f:
    f.write(str(os.getpid()))
kept = []
for _ in range(int(sys.argv[2])):
    kept.append(bytearray(b"x" * (1 << 20)))
print("had enough")
"""


def _versions() -> list[tuple[Path, str, str]]:
    """(where groups are made, the file of the limit, of the limit with swap) of each version that is mounted."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, place, kind, options, *_ = line.split()
            if kind == "cgroup" and "memory" in options.split(","):
                found.append((Path(place), "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
            elif kind == "cgroup2" and "memory" in Path(place, "cgroup.controllers").read_text().split():
                found.append((Path(place), "memory.max", "memory.swap.max"))
    return found


def _make(place: Path, limit: str, swap: str) -> Path:
    """A control group with LIMIT bytes of memory. Raises OSError."""
    made = place / f"lab-test-{os.getpid()}"
    newer = limit == "memory.max"
    if newer:
        with contextlib.suppress(OSError):
            (place / "cgroup.subtree_control").write_text("+memory")
    made.mkdir()
    try:
        (made / limit).write_text(str(LIMIT))
    except OSError:
        made.rmdir()
        raise
    with contextlib.suppress(OSError):  # there may be no account of swap, nor any swap
        (made / swap).write_text(str(0 if newer else LIMIT))
    return made


@pytest.fixture
def group() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("making a control group needs root")
    why = ["no control groups of memory are mounted here"]
    made = None
    for version in _versions():
        try:
            made = _make(*version)
            break
        except OSError as error:
            why.append(f"{version[0]}: {error}")
    if made is None:
        pytest.skip(f"no control group can be made: {'; '.join(why)}")
    yield made
    inside = made / "cgroup.procs"
    wait_for(lambda: not inside.read_text().strip(), "the group to be empty")
    made.rmdir()


def test_who_is_killed_for_want_of_memory_is_told_from_who_is_killed(group: Path, tmp_path: Path) -> None:
    lane = Lane(tmp_path)
    try:
        outcome = lane.outcome(lane.python(1, EATER, str(group), str(2 * LIMIT >> 20)))
        assert (outcome["cause"], outcome["signal"]) == ("host-memory", 9), lane.log(1)
        assert "out-of-memory killer" in outcome["message"]
        assert verify_manifest(lane.run_dir(1)) == [], "what it left is kept"
        assert lane.outcome(lane.python(2, EATER, str(group), str(LIMIT >> 22)))["cause"] == "ok"
        suicide = "import os; os.kill(os.getpid(), 9)"
        assert lane.outcome(lane.python(3, suicide))["cause"] == "signal", "the killer struck before, not now"
    finally:
        lane.end()
