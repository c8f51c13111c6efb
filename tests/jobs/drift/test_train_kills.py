"""A drift training that is really killed, through a controller and a lane, ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.fsio import sha256_file
from core.home import Home
from core.journal import Journal, Role, query
from core.states import Cause, JobState
from lab.submission import Request, submit
from lanes.start import ensure_controller, wake
from tests.jobs.drift.small import SMALL, Attempt, data
from tests.support import end_all, tail, wait_state

pytestmark = [pytest.mark.kill, pytest.mark.long, pytest.mark.timeout(600)]

# In the order in which they are reached: at the first step, inside the writing of the first checkpoint, while an older
# checkpoint is removed, and while the newest is read.
POINTS = ("drift.step", "drift.in_state", "child.in_checkpoint_removal", "drift.loading")
PARAMS = {**SMALL, "steps": 200, "checkpoint_steps": 10, "last_checkpoints": 2}


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="lab-drift-"))
    home = Home(folder / "home")
    (folder / "points").mkdir()
    os.environ["LAB_FAILPOINTS"] = str(folder / "points")
    try:
        home.create()
        Journal.open(home, Role.CLIENT, create=True).close()
        yield home
    finally:
        del os.environ["LAB_FAILPOINTS"]
        end_all(home)
        shutil.rmtree(home.runtime, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def test_killed_it_ends_with_the_same_digest(home: Home, tmp_path: Path) -> None:
    points, given = home.path.parent / "points", data(home.path.parent / "data")
    plain = Attempt(tmp_path, {"data": given}, **PARAMS)
    plain.run()
    asked = Request(
        "drift-train", PARAMS, needs={"cores": 1}, inputs=[f"data={given}"], retries={"signal": 9}, literal=True
    )
    for point in POINTS:
        (points / point).touch()
    number = submit(home, [asked], cwd=home.path.parent)[0].id
    ensure_controller(home)
    wake(home)
    wait_state(home, number, JobState.SUCCEEDED, deadline_s=540)
    with Journal.open(home) as journal:
        causes = [a.cause for a in query.attempts(journal.conn, number)]
    assert causes == [Cause.SIGNAL] * len(POINTS) + [Cause.OK], tail(home)
    assert not list(points.iterdir())
    artifacts = home.run_dir(number, len(causes)).artifacts
    for name in ("model.npz", "config.json", "models/step-000190.npz", "models/step-000200.npz"):
        assert sha256_file(artifacts / name) == sha256_file(plain.artifacts / name)
    log = home.run_dir(number, len(causes)).log.read_text()
    assert "going on from the checkpoint of step" in log
    assert json.loads((artifacts / "config.json").read_text())["steps_done"] == 200
