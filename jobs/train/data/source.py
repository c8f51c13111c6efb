"""The user's own frames: a video that PyAV reads, or a folder of PNG files. Read as they are, nothing is scaled."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BadInput
from core.fsio import sha256_file
from jobs.train.data.av1 import library, to_rgb
from jobs.train.data.clip import Clip, Frame

_FULL_RANGE = 2
_BT601 = (2, 5, 6)  # of ffmpeg's colour spaces: not said, BT.470BG, SMPTE 170M


@dataclass(frozen=True)
class Video:
    """A video file. Frames that are marked as BT.601 or not at all, 4:2:0, 8 bit, limited range, are converted as the
    challenge's evaluator does it (`av1.to_rgb`); all others by FFmpeg, as they are marked.

    Attributes:
        first: number of the first frame that is taken, from 0.
        pairs: how many pairs are taken; None: all; an odd frame at the end is left out.
    """

    path: Path
    width: int
    height: int
    first: int = 0
    pairs: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def identity(self) -> dict[str, Any]:
        return {"video": self.name, "sha256": sha256_file(self.path), **_taken(self)}

    def frames(self) -> Iterator[Frame]:
        wanted = _decoded(self.path, (self.width, self.height))
        return _paired(wanted, self.first, self.pairs, self.path)


@dataclass(frozen=True)
class Stills:
    """A folder of PNG files, in the order of the numbers in their names; `first` and `pairs` as in `Video`."""

    path: Path
    files: tuple[str, ...]
    width: int
    height: int
    first: int = 0
    pairs: int | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{sha256_file(self.path / file)}\n".encode())
        return {"stills": self.name, "sha256": digest.hexdigest(), **_taken(self)}

    def frames(self) -> Iterator[Frame]:
        wanted = (_still(self.path / f, (self.width, self.height)) for f in self.files)
        return _paired(wanted, self.first, self.pairs, self.path)


def open_source(path: Path, *, first: int = 0, pairs: int | None = None) -> Clip:
    """The frames at `path`, after a look at the first ones.

    Raises:
        BadInput: it does not exist, cannot be read, has too few frames or odd sides, or its pictures differ in size.
        JobFailed: PyAV is missing.
    """
    if first < 0 or (pairs is not None and pairs < 1):
        raise BadInput(
            f"{pairs} pairs from frame {first} of {path} are none", hint="give a frame from 0 and at least one pair"
        )
    if path.is_dir():
        return _open_stills(path, first, pairs)
    if not path.is_file():
        raise BadInput(f"there is no video and no folder {path}", hint="name a video file or a folder of PNG files")
    start = list(islice(_decoded(path, None), 2))
    if len(start) < 2:
        raise BadInput(f"{path} has {len(start)} frame(s), a pair needs two", hint="name a longer video")
    height, width, _ = start[0].shape
    _refuse_odd(path, width, height)
    return Video(path, width, height, first, pairs)


def _taken(source: Video | Stills) -> dict[str, Any]:
    """What is taken of it."""
    return {"size": [source.width, source.height], "first": source.first, "pairs": source.pairs}


def _open_stills(folder: Path, first: int, pairs: int | None) -> Stills:
    from PIL import Image

    files = sorted((p.name for p in folder.iterdir() if p.suffix.lower() == ".png" and p.is_file()), key=_numbers)
    needed = first + 2 * (pairs or 1)
    if len(files) < needed:
        raise BadInput(
            f"{folder} has {len(files)} PNG file(s), {needed} are needed", hint="put one file a frame into it"
        )
    sizes: dict[tuple[int, int], str] = {}
    for file in files:
        try:
            with Image.open(folder / file) as picture:
                sizes.setdefault(picture.size, file)
        except (OSError, SyntaxError, ValueError) as error:
            raise BadInput(f"{folder / file} is no picture ({error})", hint="write it anew or take it away") from None
        if len(sizes) > 1:
            (one, a), (other, b) = sizes.items()
            raise BadInput(
                f"the pictures in {folder} differ in size: {a} is {one[0]}×{one[1]}, {b} is {other[0]}×{other[1]}",
                hint="keep pictures of one size in a folder",
            )
    width, height = next(iter(sizes))
    _refuse_odd(folder, width, height)
    return Stills(folder, tuple(files), width, height, first, pairs)


def _paired(frames: Iterator[Frame], first: int, pairs: int | None, path: Path) -> Iterator[Frame]:
    """An even number of frames: two or more, or exactly as many as are asked for."""
    frames = islice(frames, first, None if pairs is None else first + 2 * pairs)
    given = 0
    for frame in frames:
        second = next(frames, None)
        if second is None:
            break
        yield frame
        yield second
        given += 1
    if given < (pairs or 1):
        raise BadInput(
            f"{path} has {given} pair(s) from frame {first} on, {pairs or 1} are needed",
            hint="ask for fewer pairs or name a longer one",
        )


def _decoded(path: Path, size: tuple[int, int] | None) -> Iterator[Frame]:
    """All frames of a video as RGB; of `size` (width, height), or of the first one's."""
    av = library()
    hint = "name a video that FFmpeg can read"
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadInput(f"{path} has no pictures in it", hint=hint)
            for i, picture in enumerate(container.decode(video=0)):
                size = size or (picture.width, picture.height)
                if (picture.width, picture.height) != size:
                    raise BadInput(
                        f"frame {i} of {path} is {picture.width}×{picture.height}, the first is {size[0]}×{size[1]}",
                        hint="write the video anew in one size",
                    )
                if i == 0:
                    _refuse_odd(path, *size)
                yield _rgb(picture)
    except (av.FFmpegError, OSError) as error:
        raise BadInput(f"{path} cannot be read as a video ({error})", hint=hint) from None


def _rgb(picture: Any) -> Frame:
    plain = picture.format.name == "yuv420p" and int(picture.color_range) != _FULL_RANGE
    if plain and int(picture.colorspace) in _BT601:
        return to_rgb(picture.to_ndarray())
    frame: Frame = picture.to_ndarray(format="rgb24")
    return frame


def _still(path: Path, size: tuple[int, int]) -> Frame:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            frame = np.array(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error})", hint="write it anew or take it away") from None
    if (frame.shape[1], frame.shape[0]) != size:
        raise BadInput(f"{path} is {frame.shape[1]}×{frame.shape[0]} now and was {size[0]}×{size[1]}")
    return frame


def _refuse_odd(path: Path, width: int, height: int) -> None:
    if width % 2 or height % 2:
        raise BadInput(
            f"{path} is {width}×{height}; odd sides cannot be encoded as 4:2:0", hint="crop it to even sides"
        )


def _numbers(name: str) -> tuple[tuple[int, str], ...]:
    """frame2.png before frame10.png."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(p), p) if p.isdecimal() else (-1, p) for p in parts)
