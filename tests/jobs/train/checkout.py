"""A checkout with the layout of the challenge's: two small networks in torch with random weights, a real video.

What the public one does is done here too, in other words: the conversion to Y'CbCr takes no gradients and clamps in
place, the pose network looks at both frames and the other one at the last, outputs are a mapping with 12 numbers and
logits of 5 classes. Its evaluator decodes the video itself and compares batch by batch.
"""

from __future__ import annotations

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.jobs.score.fake import commit

HEIGHT, WIDTH = 48, 64  # of a frame

FRAME_UTILS = """
import torch
from pathlib import Path

seq_len = 2
camera_size = (64, 48)
segnet_model_input_size = (32, 24)

@torch.no_grad()
def rgb_to_yuv6(rgb):
    red, green, blue = (rgb[..., k, :, :] for k in range(3))
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).clamp_(0.0, 255.0)
    planes = [luma[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
    for colour, unit in ((blue, 1.772), (red, 1.402)):
        chroma = ((colour - luma) / unit + 128.0).clamp_(0.0, 255.0)
        planes.append(sum(chroma[..., y::2, x::2] for x in (0, 1) for y in (0, 1)) / 4)
    return torch.stack(planes, dim=-3)

def video(path):
    import av
    with av.open(str(path)) as container:
        frames = [rgb(torch.from_numpy(f.to_ndarray(format="yuv420p")).float()) for f in container.decode(video=0)]
    return torch.stack(frames).reshape(-1, seq_len, camera_size[1], camera_size[0], 3)

def rgb(planes):
    width, height = camera_size
    luma = (planes[:height] - 16) * (255 / 219)
    chroma = planes[height:].reshape(1, 2, height // 2, width // 2)
    chroma = torch.nn.functional.interpolate(chroma, size=(height, width), mode="bilinear")[0]
    blue, red = (chroma - 128) * (255 / 224)
    mixed = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    return torch.stack(mixed, dim=-1).clamp(0, 255).round().to(torch.uint8)

def raw(path):
    frames = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
    return frames.reshape(-1, seq_len, camera_size[1], camera_size[0], 3)
"""

NETWORKS = """
import torch
from torch import nn
from pathlib import Path
from frame_utils import rgb_to_yuv6, segnet_model_input_size

MODELS = Path(__file__).resolve().parent / "models"

def reduced(x):
    size = (segnet_model_input_size[1], segnet_model_input_size[0])
    return nn.functional.interpolate(x, size=size, mode="bilinear")

class PoseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 12, 1, 1), 127.5))
        self.see = nn.Sequential(nn.Conv2d(12, 8, 3, stride=2), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout(0.5))
        self.tell = nn.Linear(8 * 5 * 7, 12)

    def preprocess_input(self, x):
        b, t = x.shape[:2]
        planes = rgb_to_yuv6(reduced(x.reshape(b * t, *x.shape[2:])))
        return planes.reshape(b, t * 6, *planes.shape[-2:])

    def forward(self, x):
        return {"pose": self.tell(self.see((x - self.mean) / 64).flatten(1))}

    def compute_distortion(self, a, b):
        return (a["pose"][..., :6] - b["pose"][..., :6]).pow(2).mean(dim=1)

class SegNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 1))

    def preprocess_input(self, x):
        return reduced(x[:, -1])

    def forward(self, x):
        return self.layers(x / 32 - 4)

    def compute_distortion(self, a, b):
        return (a.argmax(dim=1) != b.argmax(dim=1)).float().mean(dim=(1, 2))

class DistortionNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.posenet, self.segnet = PoseNet(), SegNet()

    def load(self, ending):
        for net, name in ((self.posenet, "posenet"), (self.segnet, "segnet")):
            net.load_state_dict(torch.load(MODELS / (name + ending), weights_only=True))
        return self.eval()

    def forward(self, x):
        x = x.permute(0, 1, 4, 2, 3).float()
        return self.posenet(self.posenet.preprocess_input(x)), self.segnet(self.segnet.preprocess_input(x))

    @torch.inference_mode()
    def compute_distortion(self, x, y):
        (pose_x, seg_x), (pose_y, seg_y) = self(x), self(y)
        return self.posenet.compute_distortion(pose_x, pose_y), self.segnet.compute_distortion(seg_x, seg_y)
"""

EVALUATE = """
import argparse, math
from pathlib import Path
import torch
from frame_utils import raw, video
from modules import DistortionNet

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--submission-dir", type=Path)
parser.add_argument("--uncompressed-dir", type=Path, default=Path("./videos/"))
parser.add_argument("--seed", type=int, default=1234)
parser.add_argument("--device", type=str, default="cpu")
parser.add_argument("--report", type=Path, default=Path("./report.txt"))
parser.add_argument("--video-names-file", type=Path)
args = parser.parse_args()
net = DistortionNet().load(".pt").to(args.device)
size = (args.submission_dir / "archive.zip").stat().st_size
whole = sum(f.stat().st_size for f in args.uncompressed_dir.rglob("*") if f.is_file())
poses, segs = [], []
for name in args.video_names_file.read_text().split():
    true = video(args.uncompressed_dir / name)
    made = raw(args.submission_dir / "inflated" / (name.rsplit(".", 1)[0] + ".raw"))
    for a, b in zip(true.split(args.batch_size), made.split(args.batch_size)):
        assert a.shape == b.shape, f"batch shape mismatch: {a.shape} vs {b.shape}"
        pose, seg = net.compute_distortion(a.to(args.device), b.to(args.device))
        poses.append(pose)
        segs.append(seg)
p, s = float(torch.cat(poses).mean()), float(torch.cat(segs).mean())
rate = size / whole
lines = [
    f"=== Evaluation results over {sum(map(len, poses))} samples ===",
    f"  Average PoseNet Distortion: {p:.8f}",
    f"  Average SegNet Distortion: {s:.8f}",
    f"  Submission file size: {size:,} bytes",
    f"  Original uncompressed size: {whole:,} bytes",
    f"  Compression Rate: {rate:.8f}",
    f"  Final score: 100*segnet_dist + sqrt(10*posenet_dist) + 25*rate = {100 * s + math.sqrt(p * 10) + 25 * rate:.2f}",
]
print("\\n".join(lines))
args.report.write_text("\\n".join(lines) + "\\n")
"""


def weights(seed: int = 5) -> dict[str, dict[str, torch.Tensor]]:
    """Of both networks, by the names that their modules have."""
    source = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source).mul_(1.5 / math.prod(shape[1:]) ** 0.5)

    pose = {
        "mean": torch.full((1, 12, 1, 1), 127.5),
        "see.0.weight": some(8, 12, 3, 3),
        "see.0.bias": some(8) / 4,
        "see.1.weight": 1 + some(8) / 8,
        "see.1.bias": some(8) / 8,
        "see.1.running_mean": some(8) / 8,
        "see.1.running_var": 1 + some(8).abs(),
        "see.1.num_batches_tracked": torch.tensor(7),
        "tell.weight": some(12, 280),
        "tell.bias": some(12),
    }
    seg = {
        "layers.0.weight": some(6, 3, 3, 3),
        "layers.0.bias": some(6),
        "layers.2.weight": 4 * some(5, 6, 1, 1),
        "layers.2.bias": some(5),
    }
    return {"posenet": pose, "segnet": seg}


def make_checkout(
    folder: Path, *, ending: str = ".pt", video: bytes = b"a video", git: bool = True, seed: int = 5
) -> Path:
    """A checkout with such weights; `video` is the content of videos/0.mkv (see `small_video`)."""
    for name in ("videos", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "modules.py").write_text(NETWORKS)
    (folder / "frame_utils.py").write_text(FRAME_UTILS)
    (folder / "public_test_video_names.txt").write_text("0.mkv\n")
    (folder / "videos" / "0.mkv").write_bytes(video)
    for name, tensors in weights(seed).items():
        save_weights(folder / "models" / (name + ending), tensors)
    if git:
        commit(folder)
    return folder


def save_weights(path: Path, tensors: dict[str, Any]) -> None:
    """As torch or, by the ending, as safetensors: the length of a JSON table of contents, the table, the values."""
    if path.suffix != ".safetensors":
        out = io.BytesIO()
        torch.save(tensors, out)
        path.write_bytes(out.getvalue())
        return
    table, values = {}, b""
    for name, tensor in tensors.items():
        content = tensor.numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        table[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(values), len(values) + len(content)],
        }
        values += content
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + values)


def small_video(pairs: int = 4, seed: int = 3) -> bytes:
    """Moving waves of 64×48, as a real video (AV1 in IVF, which FFmpeg knows by its content)."""
    from jobs.train.data.av1 import Settings, encode

    return encode(frames(pairs, seed), Settings(width=WIDTH, height=HEIGHT, crf=10, preset=10, film_grain=0))


def frames(pairs: int, seed: int = 3) -> list[npt.NDArray[np.uint8]]:
    """2·pairs frames (48, 64, 3) of waves that move, every one another step."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slopes, phases = rng.uniform(0.1, 0.4, (3, 2)), rng.uniform(0, 6, 3)
    each = list(zip(slopes, phases, strict=True))
    found = []
    for k in range(2 * pairs):
        waves = [np.sin(a * x + b * y + c + 0.2 * k * (i + 1)) for i, ((a, b), c) in enumerate(each)]
        found.append(np.clip(np.rint(127 + 90 * np.stack(waves, axis=-1)), 0, 255).astype(np.uint8))
    return found
