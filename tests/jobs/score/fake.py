"""A checkout with the layout of the challenge's, with small random networks in NumPy, and a submission for it.

Written for the tests: it reads frames, compares what two linear networks say of them, and prints such a report.
"""

from __future__ import annotations

import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH, PAIRS, BATCH = 12, 16, 8, 4
U8 = npt.NDArray[np.uint8]

_FRAMES = """
import numpy as np
from pathlib import Path

HEIGHT, WIDTH = 12, 16

def original(folder, name):
    return np.frombuffer((Path(folder) / name).read_bytes(), np.uint8).reshape(-1, 2, HEIGHT, WIDTH, 3)

def decoded(folder, name):
    return np.fromfile(Path(folder) / (name.rsplit(".", 1)[0] + ".raw"), np.uint8).reshape(-1, 2, HEIGHT, WIDTH, 3)
"""

_MODULES = """
import numpy as np
from pathlib import Path

NETS = np.load(Path(__file__).resolve().parent / "models" / "nets.npz")

def pose(pairs):
    return pairs.reshape(len(pairs), -1).astype(np.float64) @ NETS["pose"]

def classes(pairs):
    return np.argmax(pairs[:, 1].astype(np.float64) @ NETS["seg"], axis=-1)
"""

_EVALUATE = """
import argparse, math, os, sys
from pathlib import Path
import numpy as np
from frame_utils import original, decoded
from modules import pose, classes

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--submission-dir", type=Path)
parser.add_argument("--uncompressed-dir", type=Path, default=Path("./videos/"))
parser.add_argument("--seed", type=int, default=1234)
parser.add_argument("--device", type=str, default=None)
parser.add_argument("--report", type=Path, default=Path("./report.txt"))
parser.add_argument("--video-names-file", type=Path)
args = parser.parse_args()
print("=== Evaluation config ===")
for name in sorted(vars(args)):
    print(f"  {name}: {vars(args)[name]}")
size = (args.submission_dir / "archive.zip").stat().st_size
whole = sum(f.stat().st_size for f in args.uncompressed_dir.rglob("*") if f.is_file())
rate = size / whole
poses = segs = count = 0
for name in [n.strip() for n in open(args.video_names_file)]:
    true, comp = original(args.uncompressed_dir, name), decoded(args.submission_dir / "inflated", name)
    for at in range(0, min(len(true), len(comp)), args.batch_size):
        a, b = true[at : at + args.batch_size], comp[at : at + args.batch_size]
        assert a.shape == b.shape, f"batch shape mismatch: {a.shape} vs {b.shape}"
        poses += ((pose(a) - pose(b)) ** 2).mean(axis=1).sum()
        segs += (classes(a) != classes(b)).mean(axis=(1, 2)).sum()
        count += len(a)
p, s = poses / count, segs / count
score = 100 * s + math.sqrt(p * 10) + 25 * rate
#LIE
lines = [
    f"=== Evaluation results over {count} samples ===",
    f"  Average PoseNet Distortion: {p:.8f}",
    f"  Average SegNet Distortion: {s:.8f}",
    f"  Submission file size: {size:,} bytes",
    f"  Original uncompressed size: {whole:,} bytes",
    f"  Compression Rate: {rate:.8f}",
    f"  Final score: 100*segnet_dist + sqrt(10*posenet_dist) + 25*rate = {score:.2f}",
]
print("\\n".join(lines))
args.report.write_text("\\n".join(lines) + "\\n")
"""

_INFLATE_SH = """#!/usr/bin/env bash
set -e
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python "$HERE/inflate.py" "$1" "$2" "$3"
"""

_INFLATE_PY = """
import sys, zlib
from pathlib import Path
source, target, names = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
for name in names.read_text().split():
    base = name.rsplit(".", 1)[0]
    (target / f"{base}.raw").write_bytes(zlib.decompress((source / f"{base}.z").read_bytes()))
print("decoded")
"""


def video(seed: int = 1) -> U8:
    """(pairs, 2, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (PAIRS, 2, HEIGHT, WIDTH, 3), np.uint8)


def nets() -> dict[str, npt.NDArray[np.float64]]:
    rng = np.random.default_rng(7)
    return {"pose": rng.normal(0, 1e-5, (2 * HEIGHT * WIDTH * 3, 6)), "seg": rng.normal(0, 1, (3, 5))}


def make_checkout(folder: Path, *, lie: str = "", git: bool = True) -> Path:
    """A checkout; `lie` replaces what stands before the report."""
    (folder / "videos").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "evaluate.py").write_text(_EVALUATE.replace("#LIE", lie))
    (folder / "modules.py").write_text(_MODULES)
    (folder / "frame_utils.py").write_text(_FRAMES)
    (folder / "public_test_video_names.txt").write_text("0.mkv\n")
    (folder / "videos" / "0.mkv").write_bytes(video().tobytes())
    np.savez(folder / "models" / "nets.npz", **nets())  # type: ignore[arg-type]
    if git:
        commit(folder)
    return folder


def commit(folder: Path) -> str:
    """Everything in `folder`, as a commit. Returns its name."""
    me = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *me, "-C", str(folder), *words], check=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def packed(frames: bytes) -> bytes:
    """As the decoder here unpacks them."""
    return zlib.compress(frames, 9)


def decoded_frames(step: int) -> U8:
    """What a codec of this coarseness makes of the video."""
    return (video() // step * step).astype(np.uint8)


def make_submission(folder: Path, *, step: int = 16) -> Path:
    """A folder with archive.zip, the decoder, and what is no part of it."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        info = zipfile.ZipInfo("0.z", (2020, 1, 1, 0, 0, 0))
        archive.writestr(info, packed(decoded_frames(step).tobytes()))
    (folder / "inflate.sh").write_text(_INFLATE_SH)
    (folder / "inflate.py").write_text(_INFLATE_PY)
    (folder / "weights.q").write_bytes(bytes(range(100)))
    (folder / "compress.sh").write_text("exit 1\n")
    (folder / "README.md").write_text("# about\n")
    (folder / "inflated").mkdir()
    (folder / "inflated" / "0.raw").write_bytes(b"stale")
    (folder / "report.txt").write_text("stale\n")
    return folder


def distortions(step: int, pairs: int = PAIRS) -> tuple[float, float]:
    """(pose, seg) of the first pairs, computed here."""
    true, comp, made = video()[:pairs], decoded_frames(step)[:pairs], nets()
    poses = [(a.reshape(-1) @ made["pose"] - b.reshape(-1) @ made["pose"]) for a, b in zip(true, comp, strict=True)]
    pose = float(np.mean(np.square(poses)))
    differ = np.argmax(true[:, 1] @ made["seg"], -1) != np.argmax(comp[:, 1] @ made["seg"], -1)
    return pose, float(differ.mean())
