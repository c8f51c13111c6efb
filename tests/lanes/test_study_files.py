"""Files of one job that another takes: as the lanes get them, damaged ones, and the whole way through a controller."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.digests import Content, Digests
from core.errors import BadInput
from core.home import Home
from core.made import NotThere, Standing, content
from core.rundir import RunDir, build_manifest
from core.states import Cause, JobState
from core.study import Study
from lab.api import Lab
from lab.named import members
from lanes.agent.setup import SetupError, prepare
from lanes.carrier.carrier import _input
from lanes.carrier.errors import NotSendable
from lanes.carrier.source import Source
from lanes.context import RunContext
from tests.support import lab, wait_state


@pytest.fixture
def made(tmp_path: Path) -> Standing:
    """A sealed attempt with files in folders, and links among them."""
    run = RunDir(tmp_path / "attempts" / "7" / "1")
    run.create()
    for name in ("b.npz", "a/z.txt", "a/deep/y.txt", "a-b.txt", "A.txt"):
        (run.artifacts / name).parent.mkdir(parents=True, exist_ok=True)
        (run.artifacts / name).write_text(f"this is {name}")
    (run.artifacts / "a" / "link").symlink_to("../b.npz")
    (run.artifacts / "folder").symlink_to("a")
    return Standing(7, 1, run.path, build_manifest(run, outcome={})["files"])


def item(made: Standing, file: str) -> dict[str, Any]:
    what = content(made, file)
    path = made.run / "artifacts" / file if file else made.run / "artifacts"
    told = {"name": "data", "path": str(path), "dest": None, "sha256": what.sha256, "size": what.size}
    return {**told, "tree": what.tree, "lane": None, "made": {"key": "k", "file": file, "job": 7, "attempt": 1}}


@pytest.mark.parametrize("file", ["", "a/deep", "b.npz", "a/deep/y.txt", "a/link"])
def test_the_digest_by_the_seal_is_that_of_the_bytes(made: Standing, tmp_path: Path, file: str) -> None:
    """What lanes here compare with, and what is sent to lanes elsewhere."""
    told = item(made, file)
    with Digests(None) as digests:
        assert digests.of(Path(told["path"])) == Content(told["sha256"], told["size"], told["tree"])
        assert Source(_input(told), digests).size > 0
    run = RunDir(tmp_path / "taker")
    prepare({"inputs": [told]}, run, digests=None, tick=lambda: None)
    taken = run.inputs / "data"
    assert taken.is_dir() if told["tree"] else taken.read_bytes() == Path(told["path"]).read_bytes()


@pytest.mark.parametrize("file", ["", "a/deep", "a/deep/y.txt"])
def test_a_flipped_byte_is_found_where_it_is_taken(made: Standing, tmp_path: Path, file: str) -> None:
    told = item(made, file)
    hurt = made.run / "artifacts" / "a" / "deep" / "y.txt"
    hurt.write_bytes(hurt.read_bytes()[:-1] + b"!")
    with pytest.raises(SetupError, match=r"the input 'data' .* is not what job 7 made .*`lab rerun 7`") as found:
        prepare({"inputs": [told]}, RunDir(tmp_path / "taker"), digests=None, tick=lambda: None)
    assert found.value.cause == Cause.STALE_INPUT
    with Digests(None) as digests, pytest.raises(NotSendable, match=r"changed .*since job 7 made it") as unsent:
        Source(_input(told), digests)
    assert unsent.value.cause == Cause.STALE_INPUT


def test_what_was_not_made_or_leads_outside_cannot_be_taken(made: Standing) -> None:
    with pytest.raises(NotThere, match=r"job 7 made no file 'c.npz'; it made: A.txt, a-b.txt, a/deep/y.txt"):
        content(made, "c.npz")
    with pytest.raises(NotThere, match="folder of job 7 is a link to a folder"):
        content(made, "folder")
    out = Standing(7, 1, made.run, {"artifacts/x": ["link:../../log.txt", 0]})
    with pytest.raises(NotThere, match=r"x of job 7 is a link that leads out of its artifacts, to ../../log.txt"):
        content(out, "x")
    with pytest.raises(NotThere, match=r"a/link of job 7 is a link that leads out of a/, to ../b.npz"):
        content(made, "a")
    with pytest.raises(NotThere, match="made no files"):
        content(Standing(7, 1, made.run, {"log.txt": ["0" * 64, 1]}), "")


def test_an_absent_input_says_so(tmp_path: Path) -> None:
    spec = {"job": 1, "attempt": 1, "inputs": [{"name": "a"}], "absent": [{"name": "b", "made": {"label": "s/pinn"}}]}
    ctx = RunContext(RunDir(tmp_path), spec, SimpleNamespace())
    assert [ctx.has_input(name) for name in ("a", "b", "c")] == [True, False, False]
    with pytest.raises(BadInput, match=r"the input 'b' is absent: the job that makes it \(s/pinn\) did not succeed"):
        ctx.input("b")
    with pytest.raises(BadInput, match="no input is called 'c'"):
        ctx.input("c")


def test_a_study_whose_jobs_take_files_of_each_other(shared_home: Home, tmp_path: Path) -> None:
    mark = tmp_path / "mended"
    s = Study("takers")
    data = s.job(
        "command", bash("mkdir d; echo 1 > d/x; cp -r d $LAB_ARTIFACTS; echo 2 > $LAB_ARTIFACTS/y"), name="data"
    )
    part = s.job("command", bash(f"test -e {mark} && cp y $LAB_ARTIFACTS/z"), name="part", takes={"y": (data, "y")})
    read = "cat $LAB_INPUTS/d/x; if test -e part; then cat part; else echo absent; fi"
    s.job("command", bash(read), name="end", takes={"d": (data, "d"), "part": (s.any(part), "z")})
    labs = Lab(shared_home)
    first = labs.submit_study(s, cwd=tmp_path, code="none", needs={"cores": 1})
    wait_state(shared_home, first[1].id, JobState.FAILED)
    wait_state(shared_home, first[2].id, JobState.SUCCEEDED)
    assert "1\nabsent" in first[2].logs()
    mark.touch()
    lab(shared_home, "rerun", "--failed", "takers", "--wait")
    ids = members(labs.journal.conn, "takers")
    assert ids[0] == first[0].id
    end = labs.job(ids[2])
    assert "1\n2" in end.logs()
    spec = json.loads(shared_home.run_dir(end.id, 1).spec.read_text())
    assert {i["name"]: i["made"]["job"] for i in spec["inputs"]} == {"d": first[0].id, "part": ids[1]}
    # A byte of what the first one made is no longer what it was.
    (shared_home.run_dir(first[0].id, 1).artifacts / "d" / "x").write_text("9\n")
    done = wait_state(shared_home, labs.rerun(end, force=True).id, JobState.FAILED)
    assert (done.cause, f"is not what job {first[0].id} made" in str(done.reason)) == (Cause.STALE_INPUT, True)
    # And where the head itself knows, the lane is not even asked.
    held = labs.submit(
        "command", params=bash("cat y"), takes={"y": (first[0], "y")}, code="none", held=True, cwd=tmp_path
    )
    manifest = shared_home.run_dir(first[0].id, 1).manifest
    manifest.write_text(manifest.read_text() + " ")
    held.release()
    done = wait_state(shared_home, held.id, JobState.FAILED)
    assert f"the manifest of job {first[0].id} is not the one that was committed" in str(done.reason)
    assert done.cause == Cause.STALE_INPUT


def bash(program: str) -> dict[str, Any]:
    return {"argv": ["/bin/bash", "-c", program]}
