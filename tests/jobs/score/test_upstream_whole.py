"""One checkout with small networks, twice: a training asks them, and its artefact is scored; the numbers stay apart."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from core.journal import Journal
from core.states import JobState
from core.tables import read_table
from jobs.score.formula import Score
from jobs.train.bundle import FILE
from lab.asked import Request
from lab.submission import submit
from tests.jobs.score import fake
from tests.jobs.train.checkout import HEIGHT, WIDTH, frames, make_checkout, small_video
from tests.jobs.train.data_context import encoder
from tests.support import lab, wait_state

pytestmark = encoder
PAIRS = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, as a user's: no folder of a test's long name is a code root."""
    made = Path(tempfile.mkdtemp(prefix="lab-upstream-tests-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_a_trainings_value_is_no_score_though_the_same_networks_gave_both(shared_home: Home, folder: Path) -> None:
    checkout = make_checkout(folder / "challenge", video=small_video(PAIRS))
    names = ["astronaut", "chelsea", "coffee"]
    recipe = {"epochs": 2, "h": 3, "pairs": 3, "pairs_per_epoch": 2, "group": 2, "photographs": names}
    data = {"held_out": ["coffee"], "width": WIDTH, "height": HEIGHT, "evaluation_pairs": 1, "preset": 12}
    more = {"preview": False, "candidate_epochs": 1, "cache": str(folder / "cache")}
    asked = {"objective": "upstream", "checkout": str(checkout), **recipe, **data, **more}
    (answer,) = submit(shared_home, [Request("train", asked, literal=True, code="none")], cwd=folder)
    trained = answer.id
    assert wait_state(shared_home, trained, JobState.SUCCEEDED, JobState.FAILED).state is JobState.SUCCEEDED

    # What would ship is in the archive, and the frames stand for what a decoder makes with it.
    mine = fake.make_submission(folder / "mine")
    shown = b"".join((frame // 16 * 16).tobytes() for frame in frames(PAIRS))
    shipped = shared_home.attempts / str(trained) / "1" / "artifacts" / "bundle" / FILE
    with zipfile.ZipFile(mine / "archive.zip", "w") as packed:
        packed.writestr("0.z", fake.packed(shown))
        packed.write(shipped, FILE)
    size_of = {"samples": PAIRS, "batch": 2, "height": HEIGHT, "width": WIDTH}
    asked = {"archive": str(mine / "archive.zip"), "decoder": str(mine), "checkout": str(checkout), **size_of}
    scored = submit(shared_home, [Request("score", asked, literal=True)], cwd=folder)[0].id
    assert wait_state(shared_home, scored, JobState.SUCCEEDED, JobState.FAILED).state is JobState.SUCCEEDED

    with Journal.open(shared_home) as journal:
        (training,) = read_table(shared_home, journal.conn, "training", [trained]).to_pylist()
        candidates = read_table(shared_home, journal.conn, "candidates", [trained]).to_pylist()
        (score,) = read_table(shared_home, journal.conn, "score", [scored]).to_pylist()
    assert {training["quantity"], *(row["quantity"] for row in candidates)} == {"upstream training value"}
    assert not any("score" in name for name in (*training, *candidates[0])), "no column of a training is called so"
    size, whole = (mine / "archive.zip").stat().st_size, (checkout / "videos" / "0.mkv").stat().st_size
    assert score["score"] == Score(score["pose"], score["seg"], size, whole).value
    assert score["seg"] > 0
    assert score["pose"] > 0
    assert {"torch", "av"} <= set(json.loads(score["evaluator_packages"])), "of the evaluator's own process"

    told = json.loads(lab(shared_home, "floor", "--json").stdout)
    (hypothesis,) = (h for h in told["hypotheses"] if h["job"] == trained)
    assert (hypothesis["quantity"], hypothesis["authority"]) == ("upstream training value", "training")
    assert hypothesis["scored_in"] == [scored], "its very file was in that archive"
    judged = {job for candidate in told["candidates"] for job in candidate["jobs"]}
    assert scored in judged
    assert trained not in judged

    compared = json.loads(lab(shared_home, "compare", str(trained), str(scored), "--json").stdout)
    assert compared["ranking"] is None
    assert not [t["name"] for t in compared["tables"] if t["rows"][0] and t["rows"][1]], "no table has rows of both"
    refused = lab(shared_home, "compare", str(trained), str(scored), str(trained), check=False)
    assert refused.returncode == 2
    assert "these jobs are of 2 kinds (score, train), and only jobs of one are ranked" in refused.stderr
