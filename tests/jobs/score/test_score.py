"""The kind `score` against a made checkout: the true number, and everything that must not become one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from core.errors import BadInput, DiskFull, JobFailed, LabError
from core.fsio import sha256_file
from jobs.score import checkout as look
from jobs.score import versions
from jobs.score.evaluator import PREFIX, EvaluatorFailed, remove_leftovers, scratch
from jobs.score.report import ReportRefused
from jobs.score_kind import ScoreKind, ScoreParams, runtime_files
from tests.jobs.context import Left, Recorder
from tests.jobs.score import fake

KIND = ScoreKind()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return fake.make_checkout(tmp_path / "challenge")


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    return fake.make_submission(tmp_path / "mine")


@pytest.fixture
def asked() -> bool:
    """Tests that want this ask the evaluator's interpreter what it is; the others are spared that process."""
    return True


@pytest.fixture(autouse=True)
def _not_asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "asked" not in request.fixturenames:
        known = versions.Interpreter("3.11.7", "cpython", {}, {"numpy": "2"})
        monkeypatch.setattr(versions, "ask", lambda *_: known)


def params(checkout: Path, submission: Path, /, **more: Any) -> ScoreParams:
    given: dict[str, Any] = {
        "archive": str(submission / "archive.zip"),
        "checkout": str(checkout),
        "decoder": str(submission),
        "samples": fake.PAIRS,
        "batch": fake.BATCH,
        "height": fake.HEIGHT,
        "width": fake.WIDTH,
        "limit_s": 60,
        **more,
    }
    return ScoreParams(**given)


def context(root: Path, p: ScoreParams) -> Recorder:
    ctx = Recorder(KIND, p, root / "attempts" / "1")
    ctx.raw = {"inputs": [{"name": n, "sha256": "f" * 64} for n in ctx.inputs]}
    return ctx


def left_over(root: Path) -> list[Path]:
    return sorted(root.rglob(f"{PREFIX}*"))


def scored(root: Path, p: ScoreParams) -> dict[str, Any]:
    ctx = context(root, p)
    ctx.run()
    assert left_over(root) == [], "what was written is gone"
    assert ctx.table("score").num_rows == ctx.expected["rows"]["score"] == 1
    assert len(ctx.tables["score_files"]) == ctx.expected["rows"]["score_files"]
    return ctx.tables["score"][0]


def refused(root: Path, p: ScoreParams, error: type[LabError], said: str) -> Recorder:
    ctx = context(root, p)
    with pytest.raises(error) as caught:
        ctx.run()
    assert said in str(caught.value)
    assert ctx.tables == {}
    assert left_over(root) == []
    return ctx


def test_a_submission_is_scored(tmp_path: Path, checkout: Path, submission: Path) -> None:
    row = scored(tmp_path, params(checkout, submission))
    pose, seg = fake.distortions(16)
    assert (row["pose"], row["seg"]) == (pytest.approx(pose, abs=0.5e-8), pytest.approx(seg, abs=0.5e-8))
    assert seg > 0
    assert pose > 0
    size, original = (submission / "archive.zip").stat().st_size, fake.video().nbytes
    assert (row["archive_bytes"], row["original_bytes"]) == (size, original)
    whole = 100 * seg + math.sqrt(10 * pose) + 25 * size / original
    assert row["score"] == pytest.approx(whole, abs=row["resolution"])
    assert row["printed"] == round(row["score"], 2)
    assert row["value"] == row["score"]
    assert (row["samples"], row["device"], row["view"]) == (fake.PAIRS, "cpu", "archive")
    assert (row["authority"], row["why"]) == ("scorer", "the evaluator is not pinned")
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (row["checkout_commit"], row["checkout_dirty"]) == (head.stdout.strip(), False)
    assert row["archive_sha256"] == sha256_file(submission / "archive.zip")


def test_the_same_bytes_under_another_name_score_the_same(tmp_path: Path, checkout: Path, submission: Path) -> None:
    other = tmp_path / "a_much_longer_name_than_before"
    shutil.copytree(submission, other)
    a = scored(tmp_path / "a", params(checkout, submission))
    b = scored(tmp_path / "b", params(checkout, other))
    assert {k: v for k, v in a.items() if k not in ("seconds", "report_sha256")} == {
        k: v for k, v in b.items() if k not in ("seconds", "report_sha256")
    }
    (other / "weights.q").write_bytes(b"other")
    c = scored(tmp_path / "c", params(checkout, other))
    assert c["bundle_sha256"] != b["bundle_sha256"]
    assert c["contract_sha256"] == b["contract_sha256"]


def test_what_the_decoder_needs_is_listed_and_counted(tmp_path: Path, checkout: Path, submission: Path) -> None:
    ctx = context(tmp_path, params(checkout, submission, view="faithful"))
    ctx.run()
    files = {f["name"]: f for f in ctx.tables["score_files"]}
    inside = files.pop("archive.zip/0.z")
    packed = zipfile.ZipFile(submission / "archive.zip").read("0.z")
    assert (inside["bytes"], inside["sha256"]) == (len(packed), hashlib.sha256(packed).hexdigest())
    assert inside["counts"] is False, "it is paid for with the archive"
    assert set(files) == {"archive.zip", "inflate.sh", "inflate.py", "weights.q"}
    for name, row in files.items():
        assert (row["bytes"], row["sha256"]) == ((submission / name).stat().st_size, sha256_file(submission / name))
    (row,) = ctx.tables["score"]
    assert row["faithful_bytes"] == sum((submission / n).stat().st_size for n in files)
    assert row["faithful_rate"] == row["faithful_bytes"] / fake.video().nbytes
    assert row["faithful_score"] - row["score"] == pytest.approx(25 * (row["faithful_rate"] - row["rate"]))
    assert row["value"] == row["faithful_score"] > row["score"]


def test_content_is_paid_for_once(tmp_path: Path, checkout: Path, submission: Path) -> None:
    shutil.copy(submission / "weights.q", submission / "again.q")
    with zipfile.ZipFile(submission / "archive.zip", "a") as packed:
        packed.write(submission / "inflate.py", "inflate.py")
    ctx = context(tmp_path, params(checkout, submission))
    ctx.run()
    assert {f["name"]: f["counts"] for f in ctx.tables["score_files"]} == {
        "archive.zip": True,
        "archive.zip/0.z": False,
        "archive.zip/inflate.py": False,
        "again.q": True,
        "inflate.py": False,
        "inflate.sh": True,
        "weights.q": False,
    }


def test_a_file_that_is_not_listed_is_not_there(tmp_path: Path, checkout: Path, submission: Path) -> None:
    """The decoder has what is counted and nothing else: leaving a file out of the count breaks it."""
    refused(tmp_path, params(checkout, submission, without=["inflate.py"]), EvaluatorFailed, "the decoder ended with")


def test_a_pinned_evaluator(tmp_path: Path, checkout: Path, submission: Path) -> None:
    p = params(checkout, submission)
    digest = look.scorer_digest(look.Layout().parts(checkout))
    for pin in (p.commit, digest):
        row = scored(tmp_path / str(pin)[:4], params(checkout, submission, pin=pin))
        assert (row["authority"], row["why"], row["scorer_sha256"]) == ("upstream", "", digest)
    for wrong in ("0" * 40, "0" * 64):
        with pytest.raises(BadInput, match="not the one that is pinned"):
            KIND.inputs(params(checkout, submission, pin=wrong))
    (checkout / "modules.py").write_text((checkout / "modules.py").read_text() + "# changed\n")
    with pytest.raises(BadInput, match="with changes"):
        KIND.inputs(params(checkout, submission, pin=p.commit))


def test_an_evaluator_that_nobody_can_name_only_ranks(tmp_path: Path, checkout: Path, submission: Path) -> None:
    (checkout / "notes.txt").write_text("beside the point")
    assert params(checkout, submission).dirty is False, "what does not make the score does not count"
    (checkout / "modules.py").write_text((checkout / "modules.py").read_text() + "# changed\n")
    row = scored(tmp_path / "a", params(checkout, submission))
    assert (row["authority"], row["checkout_dirty"]) == ("proxy", True)
    bare = fake.make_checkout(tmp_path / "bare", git=False)
    row = scored(tmp_path / "b", params(bare, submission))
    assert (row["authority"], row["checkout_commit"]) == ("proxy", None)


def test_nobody_types_the_commit(checkout: Path, submission: Path) -> None:
    with pytest.raises(BadInput, match="leave commit and dirty out"):
        KIND.inputs(params(checkout, submission, commit="1" * 40, dirty=False))
    (checkout / "modules.py").write_text("# nothing\n")
    honest = params(checkout, submission)
    assert honest.dirty is True
    with pytest.raises(BadInput, match="leave commit and dirty out"):
        KIND.inputs(params(checkout, submission, commit=honest.commit, dirty=False))


@pytest.mark.parametrize(
    ("lie", "error", "said"),
    [
        ("score -= 0.02", ReportRefused, "its parts give"),
        ("p = float('nan')", ReportRefused, "pose is nan"),
        (
            "size -= 1; rate = size / whole; score = 100 * s + math.sqrt(p * 10) + 25 * rate",
            ReportRefused,
            "the file has",
        ),
        ("whole += 1; rate = size / whole; score = 100 * s + math.sqrt(p * 10) + 25 * rate", ReportRefused, "original"),
        ("count -= 1", ReportRefused, "is over 7 samples, and must be over 8"),
        ("raise ValueError('no such network')", EvaluatorFailed, "ValueError: no such network"),
        ("os.kill(os.getpid(), 9)", EvaluatorFailed, "the evaluator was ended by SIGKILL"),
        ("sys.exit(0)", EvaluatorFailed, "wrote no report"),
        ("sys.exit(3)", EvaluatorFailed, "the evaluator ended with exit 3; it said last:"),
        ("args.report = Path('elsewhere.txt')", EvaluatorFailed, "wrote no report"),
    ],
)
def test_an_evaluator_that_fails_or_lies(
    tmp_path: Path, submission: Path, lie: str, error: type[LabError], said: str
) -> None:
    refused(tmp_path, params(fake.make_checkout(tmp_path / "c", lie=lie), submission), error, said)


def test_a_report_of_the_decoders_is_not_taken_for_the_evaluators(tmp_path: Path, submission: Path) -> None:
    quiet = fake.make_checkout(tmp_path / "c", lie="sys.exit(0)")
    script = (submission / "inflate.sh").read_text()
    (submission / "inflate.sh").write_text(script + 'echo "Final score: 100*1 = 0.01" > "$HERE/report.txt"\n')
    refused(tmp_path, params(quiet, submission), EvaluatorFailed, "wrote no report")


def test_a_decoder_has_neither_the_video_nor_the_networks(tmp_path: Path, checkout: Path, submission: Path) -> None:
    """The challenge's rule; and who copies the original has no distortion at all."""
    script = (submission / "inflate.py").read_text()
    (submission / "inflate.py").write_text(
        "from pathlib import Path\nprint(sorted(map(str, Path().glob('*'))))\n" + script
    )
    ctx = context(tmp_path / "a", params(checkout, submission))
    ctx.run()
    found = next(line for line in ctx.logs if line.startswith("['"))
    assert "frame_utils.py" in found, "its Python is there, decoders use it"
    assert "videos" not in found
    assert "models" not in found
    cheat = 'import shutil, sys\nshutil.copy("videos/0.mkv", sys.argv[2] + "/0.raw")\n'
    (submission / "inflate.py").write_text(cheat)
    refused(tmp_path / "b", params(checkout, submission), EvaluatorFailed, "No such file or directory: 'videos/0.mkv'")


def test_a_decoder_cannot_change_the_evaluator(tmp_path: Path, checkout: Path, submission: Path) -> None:
    """What it writes beside itself, into the checkout's Python, is not what evaluates."""
    whole = scored(tmp_path / "a", params(checkout, submission))
    script = (submission / "inflate.sh").read_text()
    forge = 'sed -i "s/poses += .*/pass/; s/segs += .*/pass/" "$HERE/../../evaluate.py"\necho >> "$HERE/archive.zip"\n'
    (submission / "inflate.sh").write_text(script + forge)
    row = scored(tmp_path / "b", params(checkout, submission))
    assert (row["pose"], row["seg"], row["archive_bytes"]) == (whole["pose"], whole["seg"], whole["archive_bytes"])


@pytest.mark.parametrize(
    ("name", "said"),
    [("archive", "the archive changed"), ("weights.q", "the decoder"), ("modules.py", "the evaluator")],
)
def test_what_changes_on_the_way_is_no_evidence(
    tmp_path: Path, checkout: Path, submission: Path, name: str, said: str
) -> None:
    """Inputs as the job reads them: here they are the user's own files, on a lane copies or verified links."""
    target = {"archive": submission / "archive.zip", "weights.q": submission / name}.get(name, checkout / name)
    script = (submission / "inflate.sh").read_text()
    (submission / "inflate.sh").write_text(f"{script}printf x >> '{target}'\n")
    refused(tmp_path, params(checkout, submission), JobFailed, said)


def test_a_decoder_that_imports_itself_by_its_folders_name(tmp_path: Path, checkout: Path, submission: Path) -> None:
    (submission / "inflate.sh").write_text('python -m submissions.robust.inflate "$1" "$2" "$3"\n')
    refused(tmp_path / "a", params(checkout, submission), EvaluatorFailed, "No module named 'submissions.robust'")
    row = scored(tmp_path / "b", params(checkout, submission, submission="robust"))
    assert row["seg"] == pytest.approx(fake.distortions(16)[1], abs=0.5e-8)
    for wrong in ("../x", "a/b", ".hidden", ""):
        with pytest.raises(ValidationError):
            params(checkout, submission, submission=wrong)


@pytest.mark.usefixtures("asked")
def test_the_evaluators_own_interpreter_is_in_the_row(tmp_path: Path, checkout: Path, submission: Path) -> None:
    """Its packages, not ours: an environment of its own says another version of numpy."""
    ours = scored(tmp_path / "a", params(checkout, submission))
    here = {"numpy": np.__version__}
    assert json.loads(ours["evaluator_packages"]) == here
    assert ours["evaluator_python"] == platform.python_version()
    info = tmp_path / "site" / "numpy-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    (info / "RECORD").write_text("numpy/__init__.py,,\n")
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    ctx = context(tmp_path / "b", params(checkout, submission, python=str(other)))
    ctx.run()
    assert json.loads(ctx.rows[0]["evaluator_packages"]) == {"numpy": "0.0.1"}
    told = json.loads(ctx.artifact("interpreter.json").read_text())
    assert told["python"] == platform.python_version()
    assert told["packages"]["pytest"] == pytest.__version__
    assert "pytest" not in told["used"]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(("text", "said"), [("exit 0", "does not say"), ("echo no >&2; exit 3", "installed there: no")])
def test_an_interpreter_that_does_not_answer(
    tmp_path: Path, checkout: Path, submission: Path, text: str, said: str
) -> None:
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\n{text}\n")
    other.chmod(0o755)
    refused(tmp_path, params(checkout, submission, python=str(other)), JobFailed, said)


def test_cuda_needs_a_granted_gpu(tmp_path: Path, checkout: Path, submission: Path) -> None:
    ctx = refused(tmp_path, params(checkout, submission, device="cuda"), BadInput, "submit with --gpus 1")
    assert ctx.logs == []


def test_a_report_over_nobody_says_how_many(tmp_path: Path, submission: Path) -> None:
    checkout = fake.make_checkout(tmp_path / "c")
    text = (checkout / "evaluate.py").read_text().replace("over {count} samples ===", "===")
    (checkout / "evaluate.py").write_text(text)
    refused(tmp_path, params(checkout, submission, samples=None), ReportRefused, "does not say over how many")


def test_an_evaluator_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, submission: Path) -> None:
    lie = "import subprocess, time; c = subprocess.Popen(['sleep', '300']); print('child', c.pid, flush=True)\n"
    hanging = fake.make_checkout(tmp_path / "c", lie=lie + "time.sleep(300)")
    ctx = refused(tmp_path, params(hanging, submission, limit_s=4), EvaluatorFailed, "took longer than 4 s")
    child = next(int(line.split()[1]) for line in ctx.logs if line.startswith("child "))
    assert gone(child)


def test_what_an_evaluator_leaves_running_is_ended(tmp_path: Path, submission: Path) -> None:
    lie = "import subprocess; c = subprocess.Popen(['sleep', '300']); print('child', c.pid, flush=True)"
    ctx = context(tmp_path, params(fake.make_checkout(tmp_path / "c", lie=lie), submission))
    ctx.run()
    assert gone(next(int(line.split()[1]) for line in ctx.logs if line.startswith("child ")))


def gone(pid: int) -> bool:
    """Has it ended? Orphans are reaped by whoever adopted them, so a zombie counts."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_warn_signal_ends_it(tmp_path: Path, submission: Path) -> None:
    hanging = fake.make_checkout(tmp_path / "c", lie="import time; print('waiting', flush=True); time.sleep(300)")
    ctx = context(tmp_path, params(hanging, submission))

    class Stops(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            ctx.stopping = line == "waiting"

    ctx.logs = Stops()
    with pytest.raises(Left):
        ctx.run()
    assert left_over(tmp_path) == []
    assert ctx.tables == {}


def test_a_full_disk_is_noticed_before_anything_starts(tmp_path: Path, checkout: Path, submission: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    ctx = refused(tmp_path, params(checkout, submission, disk_bytes=free + (1 << 40)), DiskFull, "GB free")
    assert not any(line.startswith(("the decoder:", "the evaluator: /")) for line in ctx.logs), "nothing was started"


def test_the_frames_of_the_challenge_need_their_3_66_gb(checkout: Path, submission: Path) -> None:
    size: dict[str, Any] = {"height": 874, "width": 1164, "batch": 16, "samples": 600}
    assert params(checkout, submission, **size).need == 600 * 2 * 874 * 1164 * 3 == 3_662_409_600
    assert params(checkout, submission, **size, pairs=16).need == 3_662_409_600, "the decoder writes all of them"
    made: dict[str, Any] = {**size, "decoder": None, "frames": "/made"}
    assert params(checkout, submission, **made).need == 0, "they are linked to"
    assert params(checkout, submission, **made, pairs=16).need == 16 * 2 * 874 * 1164 * 3
    assert params(checkout, submission, disk_bytes=7).need == 7


def test_the_disk_that_counts_is_the_one_that_is_written_to(
    tmp_path: Path, checkout: Path, submission: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    real = shutil.disk_usage

    def usage(path: Any) -> Any:
        asked.append(Path(path))
        return real(path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    scored(tmp_path, params(checkout, submission, scratch=str(tmp_path / "big")))
    assert asked == [tmp_path / "big"]


def test_what_a_killed_scoring_left_is_removed_by_the_next(tmp_path: Path, checkout: Path, submission: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from jobs.score.evaluator import scratch\n"
        "with scratch(Path(sys.argv[1]), need=0) as folder:\n"
        "    (folder / 'frames.raw').write_bytes(bytes(1000)); (folder / 'shut').mkdir(mode=0)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    before = tmp_path / "attempts" / "0" / "tmp"
    done = subprocess.run([sys.executable, "-c", program, str(before)], cwd=Path.cwd())
    assert done.returncode == -signal.SIGKILL
    assert left_over(tmp_path) != []
    scored(tmp_path, params(checkout, submission))


def test_a_scratch_folder_that_is_in_use_stays(tmp_path: Path) -> None:
    with scratch(tmp_path, need=0) as folder:
        (folder / "x").write_text("mine")
        assert remove_leftovers(tmp_path) == []
        assert (folder / "x").exists()
    held = tmp_path / f"{PREFIX}abc"
    held.mkdir()
    lock = os.open(held / ".held", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert remove_leftovers(tmp_path) == []
    os.close(lock)
    assert remove_leftovers(tmp_path) == [held.name]


def test_programs_see_a_clean_environment(tmp_path: Path, submission: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LAB_ATTEMPT", "lab:mark")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lie = "print('env', sorted(os.environ)); print('home', os.environ['HOME'])"
    ctx = context(tmp_path, params(fake.make_checkout(tmp_path / "c", lie=lie), submission))
    ctx.run()
    seen = next(line for line in ctx.logs if line.startswith("env "))
    assert "SECRET" not in seen
    assert "PYTHONPATH" not in seen
    assert "LAB_ATTEMPT" in seen
    assert "OMP_NUM_THREADS" in seen
    assert PREFIX in next(line for line in ctx.logs if line.startswith("home "))


def test_all_output_is_kept_and_logged(tmp_path: Path, checkout: Path, submission: Path) -> None:
    ctx = context(tmp_path, params(checkout, submission))
    ctx.run()
    assert "decoded" in ctx.logs
    assert any(line.startswith("  Final score") for line in ctx.logs)
    assert "=== Evaluation config ===" in ctx.artifact("evaluator.log").read_text()
    assert ctx.artifact("report.txt").read_text().startswith("=== Evaluation results over 8 samples")


def test_the_checkout_itself_is_left_alone(tmp_path: Path, checkout: Path, submission: Path) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in checkout.rglob("*") if ".git" not in p.parts)
    scored(tmp_path, params(checkout, submission))
    assert sorted((p, p.stat().st_mtime_ns) for p in checkout.rglob("*") if ".git" not in p.parts) == before


def test_a_proxy_on_the_first_pairs(tmp_path: Path, checkout: Path, submission: Path) -> None:
    whole = scored(tmp_path / "a", params(checkout, submission))
    row = scored(tmp_path / "b", params(checkout, submission, pairs=4))
    pose, seg = fake.distortions(16, 4)
    assert (row["pose"], row["seg"]) == (pytest.approx(pose, abs=0.5e-8), pytest.approx(seg, abs=0.5e-8))
    assert (row["authority"], row["why"], row["samples"]) == ("proxy", "the first 4 pairs only", 4)
    assert row["rate"] == whole["rate"]
    assert row["contract_sha256"] != whole["contract_sha256"], "it is never compared with the whole"
    with pytest.raises(ValidationError, match="no multiple of batch"):
        params(checkout, submission, pairs=5)
    with pytest.raises(ValidationError, match="more than the video has"):
        params(checkout, submission, pairs=12)


def test_a_proxy_on_frames_of_our_own(tmp_path: Path, checkout: Path, submission: Path) -> None:
    own = tmp_path / "frames"
    own.mkdir()
    fake.decoded_frames(4).tofile(own / "0.raw")
    pinned = params(checkout, submission).commit
    row = scored(tmp_path, params(checkout, submission, decoder=None, frames=str(own), pin=pinned))
    assert row["pose"] == pytest.approx(fake.distortions(4)[0], abs=0.5e-8)
    assert row["authority"] == "proxy", "pinned or not"
    assert row["why"].startswith("frames made elsewhere")
    assert row["faithful_score"] is None
    others = [scored(tmp_path / f"w{b}", params(checkout, submission, pin=pinned, batch=b)) for b in (4, 8)]
    contracts = {r["contract_sha256"] for r in (row, *others)}
    assert len(contracts) == 3, "over as many pairs, and compared with no full scoring; nor are batches of another size"
    assert (own / "0.raw").stat().st_size == fake.video().nbytes
    half = scored(tmp_path / "b", params(checkout, submission, decoder=None, frames=str(own), pairs=4))
    assert half["samples"] == 4
    assert (own / "0.raw").stat().st_size == fake.video().nbytes, "ours are not cut"
    with pytest.raises(ValidationError, match="either the decoder"):
        params(checkout, submission, frames=str(own))
    with pytest.raises(ValidationError, match="leaves the decoder out"):
        params(checkout, submission, decoder=None, frames=str(own), view="faithful")


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "left that video out"), (fake.HEIGHT * fake.WIDTH * 3, "no whole pairs"), (7, "no whole pairs")],
)
def test_frames_that_are_no_frames(tmp_path: Path, checkout: Path, submission: Path, size: int, said: str) -> None:
    own = tmp_path / "frames"
    own.mkdir()
    (own / "0.raw").write_bytes(bytes(size))
    refused(tmp_path, params(checkout, submission, decoder=None, frames=str(own)), JobFailed, said)


def test_a_decoder_that_leaves_a_video_out(tmp_path: Path, checkout: Path, submission: Path) -> None:
    (submission / "inflate.sh").write_text("exit 0\n")
    refused(tmp_path, params(checkout, submission), JobFailed, "there is no 0.raw among the decoded frames")


def test_what_cannot_be_scored_is_refused_at_the_submit(tmp_path: Path, checkout: Path, submission: Path) -> None:
    def said(p: ScoreParams) -> str:
        with pytest.raises(BadInput) as error:
            KIND.inputs(p)
        return str(error.value)

    assert "is not there" in said(params(tmp_path / "nowhere", submission))
    assert "has no evaluate.py" in said(params(submission, submission))
    assert "archive=" in said(params(checkout, submission, archive=str(submission / "nothing.zip")))
    assert "no readable zip" in said(params(checkout, submission, archive=str(submission / "README.md")))
    assert "has no inflate.sh" in said(params(checkout, submission, decoder=str(checkout)))
    assert "has no nets" in said(params(checkout, submission, also=["nets"]))
    (checkout / "models" / "nets.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in said(params(checkout, submission))
    other = fake.make_checkout(tmp_path / "old")
    text = (other / "evaluate.py").read_text()
    (other / "evaluate.py").write_text(text.replace('"--submission-dir"', '"--compressed-dir"'))
    assert "takes no --submission-dir" in said(params(other, submission))
    (other / "evaluate.py").write_text("def (")
    assert "is no Python" in said(params(other, submission))
    with pytest.raises(ValidationError, match="no path inside"):
        params(checkout, submission, also=["../secrets"])


def test_an_archive_that_leads_outside_is_refused(tmp_path: Path, checkout: Path, submission: Path) -> None:
    with zipfile.ZipFile(submission / "archive.zip", "a") as packed:
        packed.writestr("../../evaluate.py", "print('mine')")
    refused(tmp_path, params(checkout, submission), BadInput, "leads outside")


def test_all_that_makes_the_score_is_an_input(checkout: Path, submission: Path) -> None:
    """Its bytes are in the job's key, so that a changed network or decoder is never answered by an old score."""
    p = params(checkout, submission)
    assert set(KIND.inputs(p)) == {
        "archive",
        *(f"checkout/{n}" for n in ("evaluate.py", "modules.py", "frame_utils.py", "models", "videos")),
        "checkout/public_test_video_names.txt",
        *(f"decoder/{n}" for n in ("inflate.sh", "inflate.py", "weights.q")),
    }
    assert set(runtime_files(p)) == {"inflate.sh", "inflate.py", "weights.q"}


def test_one_scorer_at_a_time_on_a_lane() -> None:
    from core.spec import Needs

    needs = Needs.model_validate(KIND.needs)
    assert needs.resources == ("scorer",)
    assert needs.role == "eval"


def test_parameters_survive_the_journal(checkout: Path, submission: Path) -> None:
    """On the lane, which has no checkout, they are what they were at the submit."""
    p = params(checkout, submission)
    plain = p.model_dump(mode="json")
    shutil.rmtree(checkout)
    assert ScoreParams(**plain) == p
    assert KIND.describe(p) == "mine/archive.zip"
    assert KIND.describe(p.model_copy(update={"pairs": 4})) == "mine/archive.zip, proxy on 4 pairs"
