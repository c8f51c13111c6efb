"""A program that counts steps on a lane until it is told that it is enough, and what is asked of it."""

from __future__ import annotations

import os

from core.states import JobState
from tests.lab_net import Lane
from tests.lanes.remote.support import Head
from tests.support import job, wait_for, wait_state

# A step and a line of its log every tenth of a second, up to a number, or until a file says that it is enough.
PROGRAM = r"""
import json, os, sys, time
from pathlib import Path
last, enough = int(sys.argv[1]), Path("/var/tmp") / sys.argv[2]
with open(os.environ["LAB_METRICS"], "a") as metrics:
    for step in range(last + 1):
        print(f"line {step}", flush=True)
        metrics.write(json.dumps({"step": step, "pid": os.getpid()}) + "\n")
        metrics.flush()
        if enough.exists():
            break
        time.sleep(0.1)
Path("result.txt").write_text(f"reached {step}\n")
"""
FOREVER = 1_000_000


def submit(head: Head, steps: int, *options: str, lane: str = "mini") -> int:
    """`steps`, or FOREVER: until `finish`."""
    expect = [] if steps == FOREVER else ["--expect-step", str(steps)]
    return head.submit(
        "command", "--lane", lane, "--output", "result.txt", *expect, "--allow-read", "/var/tmp/*", *options,
        "--", "python3", "program.py", str(steps), f"enough-{os.urandom(6).hex()}",
    )  # fmt: skip


def finish(head: Head, number: int, lane: Lane) -> int:
    """Have the program end, wait for its job, and return the last step that it says it reached."""
    lane.run("touch", f"/var/tmp/{job(head.home, number).params['argv'][-1]}")
    wait_state(head.home, number, JobState.SUCCEEDED, deadline_s=120)
    out = head.folder / f"out-{number}"
    head.lab("fetch", str(number), "-o", str(out))
    return int(next(out.rglob("result.txt")).read_text().split()[1])


def wrong_with(steps: list[int], last: int) -> str:
    """Empty when every step is there once and in order."""
    return "" if steps == list(range(last + 1)) else f"steps are {steps[:3]}..{steps[-3:]}, {len(steps)} of {last + 1}"


def lines_of(head: Head, number: int) -> list[int]:
    text = head.lab("logs", str(number)).stdout
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]


def reach(head: Head, number: int, step: int, n: int = 1) -> None:
    wait_for(lambda: (head.steps(number, n) or [-1])[-1] >= step, f"step {step} of job {number} to be here")
