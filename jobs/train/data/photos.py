"""Real photographs that lie in scikit-image's wheel, as panning sequences. Nothing is downloaded.

All but one of them are smaller than a frame of 1164×874. They are continued by mirroring and not enlarged: an enlarged
photograph has no detail finer than its own pixels, so the way down to 522×392 would lose nothing of it and there would
be nothing to win back. Mirrored, each pixel stays as sharp as the photograph has it, and no edge is made at a seam.

The frames are the same on every machine: the chances come from SHA-256, places are rounded to 1/64 pixel, and all
arithmetic on pixels is element by element in float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput, JobFailed
from core.fsio import sha256_file
from jobs.train.data.clip import Frame

WIDTH, HEIGHT = 1164, 874
PHASES = 64  # places are multiples of 1/64 pixel
_TAPS = 6
_TURN = 0.05  # radians a frame: how fast the direction of a pan may change

# One file a scene: motorcycle_right shows what motorcycle_left shows, and microaneurysms.png is a part of retina.jpg.
# The drawn ones (logo, phantom, chessboards, colour wheel, horse) and lfw_subset (25×25 pixels) are no photographs.
_FILES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
}
NAMES = tuple(_FILES)


@dataclass(frozen=True)
class Photograph:
    """One photograph, of `width` by `height` pixels; a grey one becomes three equal channels."""

    name: str
    path: Path
    width: int
    height: int
    coloured: bool

    def pixels(self) -> Frame:
        """(height, width, 3), uint8, read-only."""
        return _read(self.path)


@dataclass(frozen=True)
class Panning:
    """A walk over one photograph.

    Attributes:
        photograph: by name.
        pairs: of frames (2i, 2i+1).
        seed: of the place, the direction and the speed.
        width, height: of a frame.
        speed: pixels that the picture moves from a frame to the next, at most; a walk moves at half of it to all of it.
    """

    photograph: str
    pairs: int
    seed: int = 0
    width: int = WIDTH
    height: int = HEIGHT
    speed: float = 3.0

    def __post_init__(self) -> None:
        if self.photograph not in _FILES:
            raise BadInput(f"there is no photograph {self.photograph!r}", hint=f"take of {', '.join(NAMES)}")
        if self.pairs < 1:
            raise BadInput(f"{self.pairs} pairs of {self.photograph} are no data", hint="ask for at least one")
        if self.width < 2 or self.height < 2 or self.width % 2 or self.height % 2:
            raise BadInput(
                f"frames of {self.width}×{self.height} cannot be encoded as 4:2:0", hint="give even sides of at least 2"
            )
        if not 0 <= self.speed <= 64:
            raise BadInput(f"a pan of {self.speed} pixels a frame is none", hint="give a speed from 0 to 64")

    @property
    def name(self) -> str:
        return self.photograph

    @cached_property
    def source(self) -> Photograph:
        return find(self.photograph)

    def identity(self) -> dict[str, Any]:
        return {
            "photograph": self.photograph,
            "sha256": sha256_file(self.source.path),
            "pairs": self.pairs,
            "seed": self.seed,
            "size": [self.width, self.height],
            "speed": float(self.speed),
        }

    def places(self) -> list[tuple[int, int]]:
        """Where the upper left corner of each frame lies, (y, x) in 1/64 pixel; the photograph goes on mirrored."""
        word = f"{self.photograph} {self.seed}"
        y = _chance(word, "y") * 2 * self.source.height
        x = _chance(word, "x") * 2 * self.source.width
        angle = _chance(word, "direction") * 2 * math.pi
        turn = (_chance(word, "turn") * 2 - 1) * _TURN
        speed = self.speed * (1 + _chance(word, "speed")) / 2
        places = []
        for _ in range(2 * self.pairs):
            places.append((round(y * PHASES), round(x * PHASES)))
            y, x, angle = y + speed * math.sin(angle), x + speed * math.cos(angle), angle + turn
        return places

    def frames(self) -> Iterator[Frame]:
        pixels = self.source.pixels()
        for y, x in self.places():
            yield window(pixels, y, x, self.height, self.width)


@cache
def available() -> tuple[Photograph, ...]:
    """The photographs that this installation of scikit-image brings along.

    Raises:
        JobFailed: there is none.
    """
    import skimage
    from PIL import Image

    folder = Path(skimage.__file__).parent / "data"
    found = []
    for name, file in _FILES.items():
        if (folder / file).is_file():
            with Image.open(folder / file) as picture:
                found.append(Photograph(name, folder / file, picture.width, picture.height, picture.mode != "L"))
    if not found:
        raise JobFailed(f"this scikit-image has no photographs in {folder}", hint="install scikit-image from its wheel")
    return tuple(found)


def find(name: str) -> Photograph:
    """The photograph of this name.

    Raises:
        BadInput: there is none.
    """
    for photograph in available():
        if photograph.name == name:
            return photograph
    raise BadInput(
        f"there is no photograph {name!r} in this scikit-image",
        hint=f"take of {', '.join(p.name for p in available())}",
    )


def split(
    held_out: Sequence[str] | None = None, *, seed: int = 0, count: int = 4, of: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(photographs to train on, photographs held out), by name; no photograph and no scene is on both sides.

    Args:
        held_out: the ones held out; None: `count` of them, drawn by `seed`.
        of: the photographs to divide; None: all that there are.

    Raises:
        BadInput: a name is unknown or given twice, or one side would be empty.
    """
    names = [find(n).name for n in of] if of is not None else [p.name for p in available()]
    if held_out is None:
        ranked = sorted(names, key=lambda n: hashlib.sha256(f"held out {seed} {n}".encode()).digest())
        held = [n for n in names if n in ranked[: max(count, 0)]]
    else:
        held = [find(n).name for n in held_out]
        stranger = next((n for n in held if n not in names), None)
        if stranger is not None:
            raise BadInput(f"{stranger} is held out but not among the photographs", hint="add it, or hold out another")
    for given in (names, held):
        twice = next((n for n in given if given.count(n) > 1), None)
        if twice is not None:
            raise BadInput(f"the photograph {twice} is named twice", hint="name it once")
    training = tuple(n for n in names if n not in held)
    if not training or not held:
        side = "to train on" if not training else "held out"
        raise BadInput(
            f"of {len(names)} photographs with {len(held)} held out none is left {side}",
            hint=f"hold out 1 to {len(names) - 1}" if len(names) > 1 else "take at least two photographs",
        )
    return training, tuple(held)


def pannings(
    names: Sequence[str], pairs: int, *, seed: int = 0, width: int = WIDTH, height: int = HEIGHT, speed: float = 3.0
) -> tuple[Panning, ...]:
    """One walk over each photograph, `pairs` pairs in all, shared out as evenly as they go.

    Raises:
        BadInput: there are fewer pairs than photographs, or a value cannot be used.
    """
    if not names or pairs < len(names):
        raise BadInput(
            f"{pairs} pairs cannot be shared out to {len(names)} photographs",
            hint="ask for at least one pair of each photograph",
        )
    each, more = divmod(pairs, len(names))
    return tuple(Panning(name, each + (i < more), seed, width, height, speed) for i, name in enumerate(names))


def window(pixels: Frame, y: int, x: int, height: int, width: int) -> Frame:
    """(height, width, 3) of a picture that goes on mirrored, from (y, x) in 1/64 pixel; whole pixels are copied.

    Between pixels it is a Lanczos filter of six taps, along one axis after the other, rounded half to even at the end.
    """
    (top, down), (left, right) = divmod(y, PHASES), divmod(x, PHASES)
    rows = _mirrored(top - 2, height + 5, pixels.shape[0])
    columns = _mirrored(left - 2, width + 5, pixels.shape[1])
    part = pixels[rows[:, None], columns]
    if not down and not right:
        return np.ascontiguousarray(part[2 : 2 + height, 2 : 2 + width])
    values = part.astype(np.float32)
    values = _between(values, down, 0)
    values = _between(values, right, 1)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def taps(phase: int) -> npt.NDArray[np.float32]:
    """The six weights of a place that lies phase/64 pixel after the third tap: multiples of 2^-14, their sum is one."""
    weights = [_lanczos(k - 2 - phase / PHASES) for k in range(_TAPS)]
    whole = [round(w / math.fsum(weights) * 16384) for w in weights]
    whole[2 if 2 * phase <= PHASES else 3] += 16384 - sum(whole)
    return np.array(whole, np.float32) / np.float32(16384)


def _between(values: npt.NDArray[np.float32], phase: int, axis: int) -> npt.NDArray[np.float32]:
    """Five entries shorter along the axis."""
    length = values.shape[axis] - _TAPS + 1
    result: npt.NDArray[np.float32] | None = None
    for k, weight in enumerate(taps(phase)):
        if weight == 0:
            continue
        part = (values[k : k + length] if axis == 0 else values[:, k : k + length]) * weight
        if result is None:
            result = part
        else:
            result += part
    assert result is not None
    return result


def _lanczos(t: float) -> float:
    if t == 0:
        return 1.0
    if abs(t) >= 3 or t == int(t):
        return 0.0
    return 3 * math.sin(math.pi * t) * math.sin(math.pi * t / 3) / (math.pi * t) ** 2


def _mirrored(start: int, count: int, length: int) -> npt.NDArray[np.int64]:
    """Indices start, start+1, ... of a row of `length` that goes on as its mirror image, the edge pixel repeated."""
    index = np.arange(start, start + count, dtype=np.int64) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _chance(*words: str) -> float:
    """From 0 to 1, without 1; the same for the same words everywhere."""
    return int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:6], "big") / 2**48


@cache
def _read(path: Path) -> Frame:
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"), dtype=np.uint8)
    pixels.flags.writeable = False
    return pixels
