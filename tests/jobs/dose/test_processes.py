"""Each training is a process of its own: what one does to its configuration or its memory, no other sees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.home import Home
from core.states import JobState
from jobs.dose import network_oracle
from jobs.dose.design import SETS, Design
from jobs.dose.reconstruction import Reconstruction
from jobs.dose_kinds.train import DoseTrain
from lab.api import Job, Lab
from tests.jobs.context import Recorder
from tests.jobs.dose.test_train import made
from tests.support import wait_state

SHORT: dict[str, Any] = {"frames_per_step": 8, "frames_per_epoch": 16, "width": 4}


def submitted(home: Home, inputs: Path, **params: Any) -> Job:
    """A training as any other, and its end."""
    folders = {name: inputs / name for name in ("data", "views")}
    labs = Lab(home)
    done = labs.submit("dose-train", params=params, inputs=folders, code="none", needs={"cores": 1}, cwd=inputs)
    wait_state(home, done.id, JobState.SUCCEEDED, deadline_s=300)
    return done


def process_of(job: Job) -> int:
    (row,) = job.results("dose_training_time").to_pylist()
    return int(row["process"])


def picture_of(job: Job) -> Any:
    return Reconstruction.load(job.artifacts()["reconstruction.npz"]).object


def test_a_configuration_that_is_changed_here_is_that_of_no_job(
    shared_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: a module's global, set by one study and read by the next."""
    made(tmp_path, 1)
    kind, inputs = DoseTrain(), {name: tmp_path / name for name in ("data", "views")}

    def here(name: str) -> Any:
        ctx = Recorder(kind, kind.Params(arm="physics"), tmp_path / name, inputs=inputs)
        ctx.run()
        return Reconstruction.load(ctx.artifacts / "reconstruction.npz").object

    right = here("right")
    monkeypatch.setattr(network_oracle, "FIXED_STEPS", 1)
    first, second = (submitted(shared_home, tmp_path, arm="physics", seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(picture_of(first), right)
    assert len({process_of(first), process_of(second), os.getpid()}) == 3
    # The twin: in the process of the one who changed it, it is changed.
    assert not np.allclose(here("spoilt"), right, atol=1e-3)


def test_the_sets_of_the_design_cannot_be_changed() -> None:
    tiny = Design.named("tiny")
    with pytest.raises(TypeError, match="does not support item assignment"):
        SETS["tiny"] = tiny  # type: ignore[index]
    assert tiny.chosen(seeds=[7]) != tiny, "a choice is another design"
    assert Design.named("tiny") is tiny


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_trainings_on_tensorflow_share_no_process(shared_home: Home, tmp_path: Path) -> None:
    """The trap: TensorFlow keeps memory from one training to the next. Each reports the process that it ran in."""
    made(tmp_path, 1)
    both = [submitted(shared_home, tmp_path, arm="pinn", epochs=2, seed=seed, **SHORT) for seed in (1, 2)]
    assert len({*map(process_of, both), os.getpid()}) == 3
    for job in both:
        (row,) = job.results("dose_training").to_pylist()
        assert (row["status"], row["backend"], row["epochs_done"]) == ("trained", "tensorflow", 2)
    # Once more after both, it is the same training again: nothing of what ran before is left in it.
    again = Lab(shared_home).rerun(both[0], force=True)
    wait_state(shared_home, again.id, JobState.SUCCEEDED, deadline_s=300)
    sha = [job.results("dose_training").to_pylist()[0]["bundle_sha256"] for job in (*both, again)]
    assert sha[0] == sha[2] != sha[1]
    assert process_of(again) != process_of(both[0])
