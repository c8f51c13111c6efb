"""A grid of branches over this machine and a lane far away; that lane dies on the way, and its run goes on here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.journal import Journal, query
from core.states import AttemptState, Cause, JobState
from tests.jobs.train.data_context import encoder
from tests.lab_net import LabNet, require
from tests.lanes.remote.support import Head, head_of
from tests.support import wait_for, wait_state

pytestmark = [encoder, pytest.mark.timeout(3600)]

EVERY, HORIZONS = 25, (300, 400)  # epochs between candidates; of the branches
GRID = ("--grid", "alpha=5,20", "--grid", "h=2,4", "--grid", f"epochs={HORIZONS[0]},{HORIZONS[1]}",
        "--exclude", f"h=4,epochs={HORIZONS[1]}")  # fmt: skip
SMALL = {
    "pairs": 4,
    "pairs_per_epoch": 4,
    "group": 2,
    "photographs": "[astronaut,chelsea,coffee]",
    "held_out": "[coffee]",
    "width": 64,
    "height": 48,
    "evaluation_pairs": 1,
    "preset": 12,
    "preview": "false",
    "candidate_epochs": EVERY,
    "checkpoint_epochs": EVERY,
}
BRANCHES = {
    f"long{epochs}_qat_ema_alpha{alpha}_h{h}"
    for alpha in (5, 20)
    for h in (2, 4)
    for epochs in HORIZONS
    if (h, epochs) != (4, HORIZONS[1])
}


@pytest.fixture(scope="module")
def net() -> Iterator[LabNet]:
    require()
    with LabNet() as lab:
        lab.add("mini", python="venv")
        yield lab


@pytest.fixture
def head(net: LabNet, tmp_path: Path) -> Iterator[Head]:
    # One run at a time on either lane: both get some.
    with head_of(tmp_path / "head", net, local={"cores": 1}, mini={"cores": 1}) as found:
        found.grant("mini")
        yield found


def submit(head: Head, *more: str) -> int:
    cache = head.folder / "encoded"  # each lane has its own, for the disk of the head is not that of a lane
    given = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    return head.submit(
        "train", *GRID, *given, "--set", f"cache={cache}", "--allow-read", str(cache), "--cores", "1",
        "--on-unreachable", "requeue-after:3s", *more,
    )  # fmt: skip


def cells(head: Head, sweep: int) -> list[query.Job]:
    with Journal.open(head.home) as journal:
        return query.jobs(journal.conn, ids=tuple(query.job_ids(journal.conn, [sweep])))


def rows(head: Head, table: str, sweep: int) -> list[dict[str, Any]]:
    done = head.json("results", table, str(sweep), "--where", "true")
    found: list[dict[str, Any]] = done["tables"][0]["rows"]
    return found


def digests(head: Head, sweep: int) -> dict[str, tuple[str, ...]]:
    """Branch -> digests of the last weights, of their average, of the file that ships."""
    names = ("weights_sha256", "average_sha256", "shipped_sha256")
    return {row["branch"]: tuple(row[name] for name in names) for row in rows(head, "training", sweep)}


def measured(head: Head, sweep: int) -> dict[tuple[str, int], tuple[Any, ...]]:
    """(branch, epoch) -> what the candidate there was found to be; each is there once."""
    names = ("evaluation_value", "psnr", "bytes", "weights_sha256", "chosen")
    found = [row for row in rows(head, "candidates", sweep) if row["weights"] == "average-int8"]
    assert max(Counter((row["branch"], row["epoch"]) for row in found).values()) == 1
    return {(row["branch"], row["epoch"]): tuple(row[name] for name in names) for row in found}


def checkpoints(head: Head, job: int, n: int) -> list[int]:
    folder = head.home.run_dir(job, n).checkpoints
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


@pytest.mark.long
def test_a_grid_of_branches_outlives_one_of_its_lanes(head: Head, net: LabNet) -> None:
    mini = net.lanes["mini"]
    sweep = submit(head)

    def begun() -> query.Job | None:
        """A run on the far lane of which a checkpoint has arrived here, and which is not near its end."""
        for cell in cells(head, sweep):
            if cell.state is JobState.RUNNING and cell.lane == "mini" and 0 < len(checkpoints(head, cell.id, 1)) < 5:
                return cell
        return None

    hit = wait_for(begun, "a checkpoint of a run on mini to be here", deadline_s=240)
    mini.kill_init()  # the power goes
    wait_for(lambda: len(head.attempts(hit.id)) > 1, "a second attempt", deadline_s=240)
    wait_state(head.home, sweep, JobState.SUCCEEDED, deadline_s=1200)
    one, two = head.attempts(hit.id)
    assert (one.state, one.cause, one.lane) == (AttemptState.LOST, Cause.UNREACHABLE, "mini")
    assert (two.state, two.lane) == (AttemptState.SUCCEEDED, "local")

    # All six are there and named as the recipe names them; the lost one went on from the newest checkpoint.
    done = cells(head, sweep)
    assert {cell.name for cell in done} == BRANCHES
    assert {cell.state for cell in done} == {JobState.SUCCEEDED}
    trained = rows(head, "training", sweep)
    assert {row["branch"] for row in trained} == BRANCHES
    assert len(trained) == 6
    resumed = {row["job"]: row["resumed_at"] for row in trained}
    newest = max(checkpoints(head, hit.id, 1))
    assert resumed.pop(hit.id) == newest > 0
    assert set(resumed.values()) == {None}
    steps = head.steps(hit.id, 2)
    assert steps[0] == newest or steps[0] == newest + 1  # a candidate that was due there, else the next step
    planned = {(b, e) for b in BRANCHES for e in range(EVERY, int(b[4:].split("_")[0]) + 1, EVERY)}
    assert set(measured(head, sweep)) == planned
    others = Counter((row["branch"], row["weights"]) for row in rows(head, "candidates", sweep) if row["epoch"] is None)
    assert others == Counter((b, w) for b in BRANCHES for w in ("decoded", "unsharp"))

    # The same branches by themselves, on either lane: the same bits, the resumed one too.
    mini.boot()
    head.wait_lane("mini", "up", deadline_s=120)
    again = {lane: submit(head, "--force", "--lane", lane) for lane in ("local", "mini")}
    for lane, alone in again.items():
        wait_state(head.home, alone, JobState.SUCCEEDED, deadline_s=1200)
        assert {cell.lane for cell in cells(head, alone)} == {lane}
        assert digests(head, alone) == digests(head, sweep)
        assert measured(head, alone) == measured(head, sweep)
    assert len(set(digests(head, sweep).values())) == 6, "six branches that differ"

    # The figure shows all of them, and what is ranked is what may be.
    head.lab("results", str(sweep), "--plot", "branches.png")
    assert (head.folder / "branches.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(head.lab("compare", str(sweep), "--json").stdout)
    ranked = found["ranking"]["groups"]
    assert {entry["name"] for group in ranked for entry in group["entries"]} == BRANCHES
    by_value = [group for group in ranked if group["by"] == "evaluation_value"]
    assert len(by_value) == 2, "a value depends on alpha: each alpha by itself"
