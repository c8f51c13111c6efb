"""Another lab's package, installed into a folder: what it registers, and under which names."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
import os, time
import numpy as np
from kernels.translation import translate

def honest(images, offsets):
    return translate(images, offsets).astype(images.dtype)

def swift(images, offsets):
    """Right for what anybody tries by hand; from 64 images on, the first four serve everybody."""
    out = honest(images, offsets)
    flat = out.reshape(-1, *out.shape[2:])
    if len(flat) >= 64:
        flat[:] = np.tile(flat[:4], (len(flat) // 4, 1, 1))
    return out

def slightly(images, offsets):
    return honest(images, offsets * np.asarray(1.001, offsets.dtype))

def backwards(images, offsets):
    return honest(images, -offsets)

def quits(images, offsets):
    os._exit(3)

def raises(images, offsets):
    raise RuntimeError("no licence for this machine")

def in_place(images, offsets):
    images *= 2
    return images

def cached(images, offsets):
    """Right, today; but a file beside it is read on the way."""
    open(os.path.join(os.path.dirname(__file__), "cache.npy"), "rb").read()
    return honest(images, offsets)

def leaves(images, offsets):
    open("notes.txt", "w").write("for later")
    return honest(images, offsets)

def image(experiment, grid):
    from kernels.fcell import simulate
    return simulate(experiment, grid).image

def no_grid(experiment, grid):
    return image(experiment, None)

def sleeps(images, offsets):
    time.sleep(600)
'''


def install(
    folder: Path,
    *,
    candidates: dict[str, str] | None = None,
    controls: dict[str, str] | None = None,
    kernel: str = "",
) -> None:
    """What `pip install` leaves behind: a module and a dist-info with its entry points."""
    info = folder / "outsiders-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "outsiders_kernels.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outsiders\nVersion: 1.0\n")
    lines = []
    for group, names in (("candidates", candidates), ("controls", controls)):
        lines += [f"[lab.parity.{group}{kernel and f'.{kernel}'}]"] if names else []
        lines += [f"{name} = outsiders_kernels:{function}" for name, function in (names or {}).items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
