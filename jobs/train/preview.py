"""A short video of held-out frames: the decoded input on the left, through the filter on the right.

Both sides show the middle of the frame, which is no choice of anybody's. Each pixel is shown as 2×2, so the halved
resolution of colour in the video takes nothing from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput, JobFailed
from jobs.train.data import av1

if TYPE_CHECKING:
    from jobs.train.data.clip import Clip
    from kernels.postfilter.quantised import Quantised

Image = npt.NDArray[np.uint8]  # (H, W, 3), RGB

LIMIT = 2_000_000  # bytes of the video
SHORTEST_S, LONGEST_S = 2.0, 4.0
PART = 240  # pixels of the frame's middle, both ways, that are shown
ZOOM, LINE, STRIP = 2, 4, 36  # dots: a pixel, the line between, the strip of words above
RATE = 20  # frames a second
PAIRS = 24  # of frames that a pan is made long: 2.4 s
# What can be written, the best known to players first; each with the options of a small file and the quality it starts
# from, which is worsened until the file is small enough.
CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "slow", "x264-params": "chromaloc=1:threads=1"}),
    ("libsvtav1", {"preset": "6", "svtav1-params": "lp=1"}),
)
_QUALITIES = (16, 20, 24, 28, 32, 36, 40, 45, 51)
_LIMITED, _SMPTE170M = 1, 6  # of FFmpeg's colour ranges and spaces: what `av1.to_planes` makes
_PAPER, _INK = (255, 255, 255), (34, 34, 34)


@dataclass(frozen=True)
class Preview:
    """A video that was written.

    Attributes:
        codec: of `CODECS`. crf: the quality it was written with.
        frames: in the video; different: of them, when a short sequence is played to and fro.
        width, height: of the video, in dots.
        decoded, filtered: dB, PSNR of all whole frames that are shown, from their mean squared difference.
    """

    codec: str
    crf: int
    bytes: int
    frames: int
    different: int
    width: int
    height: int
    decoded: float
    filtered: float


def write_preview(
    path: Path,
    poster: Path,
    frames: Iterable[tuple[Image, Image, Image]],
    *,
    rate: int = RATE,
    limit: int = LIMIT,
    codec: str | None = None,
) -> Preview:
    """Write the video as MP4 and its middle frame as PNG; equal frames give equal bytes.

    Args:
        frames: (original, decoded, filtered) in the order of time, (H, W, 3) each, filtered with the weights that ship.
            Read until the video is `LONGEST_S` long; one by one.
        rate: frames a second.
        limit: the most bytes the video may have.
        codec: of `CODECS`; None: the first that there is.

    Raises:
        BadInput: there are no frames, or they differ in size.
        JobFailed: PyAV has neither encoder, the encoding failed, or even the worst quality is too large.
    """
    av = _library()
    name, options = _codec(av, codec)
    middles, psnr = _read(frames, most=int(LONGEST_S * rate))
    words = [f"{what}  {_number(value)}" for what, value in zip(("decoded", "filtered, int8"), psnr, strict=True)]
    pictures = [_picture(left, right, words) for left, right in middles]
    order = to_and_fro(len(pictures), math.ceil(SHORTEST_S * rate))
    for crf in _QUALITIES:
        _encode(av, path, [pictures[i] for i in order], name, {**options, "crf": str(crf)}, rate)
        size = path.stat().st_size
        if size <= limit:
            break
    else:
        path.unlink()
        raise JobFailed(
            f"the preview has {size:,} bytes at the worst quality and may have {limit:,}",
            hint="show fewer frames, or allow more bytes",
        )
    _save(poster, pictures[len(pictures) // 2])
    high, wide = pictures[0].shape[:2]
    return Preview(name, crf, size, len(order), len(pictures), wide, high, *psnr)


def preview_of(
    path: Path,
    poster: Path,
    clip: Clip,
    settings: av1.Settings,
    shipped: Quantised,
    *,
    root: Path | None = None,
    threads: int = 1,
) -> Preview:
    """Encode a held-out sequence as the training's were, filter it with the weights that ship, and write its preview.

    The frames that candidates are measured on are too few of each photograph for this: a pan of its own is taken.

    Args:
        clip: never trained on; a pan over a photograph is made `PAIRS` pairs long.
        root: of the cache of encoded data.

    Raises:
        BadInput, JobFailed, DiskFull: as `write_preview` and `pairs.prepare` do.
    """
    from jobs.train.data.pairs import prepare
    from jobs.train.data.photos import Panning
    from jobs.train.figure import HeldOut

    if isinstance(clip, Panning):
        clip = replace(clip, pairs=PAIRS)
    with prepare([clip], settings, root=root) as pairs, HeldOut(pairs, pairs.sources, shipped, threads=threads) as view:
        shown = map(view, range(len(view)))
        return write_preview(path, poster, ((v.original, v.decoded, v.filtered) for v in shown))


def to_and_fro(count: int, least: int) -> list[int]:
    """The numbers of `count` frames in order, or, where they are too few, forth and back until there are `least`."""
    if count >= least:
        return list(range(count))
    turn = [*range(count), *range(count - 2, 0, -1)]
    return [turn[i % len(turn)] for i in range(least)]


def _library() -> Any:
    os.environ.setdefault("SVT_LOG", "1")
    try:
        import av
    except ImportError as error:
        raise JobFailed(f"PyAV cannot be imported ({error})", hint="install it with `pip install av`") from None
    return av


def _codec(av: Any, asked: str | None) -> tuple[str, dict[str, str]]:
    known = [(name, options) for name, options in CODECS if asked in (None, name)]
    for name, options in known:
        if name in av.codecs_available:
            return name, options
    names = " nor ".join(name for name, _ in known) or asked
    raise JobFailed(
        f"the PyAV {av.__version__} in {Path(av.__file__).parent} has no encoder {names}: no preview can be written",
        hint="install the wheel of PyPI with `pip install --force-reinstall av`",
    )


def _read(
    frames: Iterable[tuple[Image, Image, Image]], most: int
) -> tuple[list[tuple[Image, Image]], tuple[float, float]]:
    """(the middles of decoded and filtered frames, PSNR of both over the whole frames)."""
    middles: list[tuple[Image, Image]] = []
    errors, values = [0, 0], 0
    shape: tuple[int, ...] | None = None
    for original, decoded, filtered in frames:
        for image in (original, decoded, filtered):
            shape = shape or image.shape
            if image.shape != shape:
                raise BadInput(f"a frame of the preview is {image.shape}, those before it {shape}")
        for k, image in enumerate((decoded, filtered)):
            errors[k] += int(np.square(image.astype(np.int32) - original).sum(dtype=np.int64))
        values += original.size
        middles.append((_middle(decoded), _middle(filtered)))
        if len(middles) == most:
            break
    if not middles:
        raise BadInput("there are no held-out frames for a preview", hint="hold out at least one pair")
    first, second = (10 * math.log10(255**2 * values / e) if e else math.inf for e in errors)
    return middles, (first, second)


def _middle(frame: Image) -> Image:
    """The part of the frame that is shown: (up to PART, up to PART, 3), in memory of its own."""
    high, wide = frame.shape[:2]
    h, w = min(PART, high), min(PART, wide)
    y, x = (high - h) // 2, (wide - w) // 2
    return np.array(frame[y : y + h, x : x + w])


def _picture(left: Image, right: Image, words: Sequence[str]) -> Image:
    """Both sides under their words: (even, even, 3)."""
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    sides = [np.repeat(np.repeat(side, ZOOM, axis=0), ZOOM, axis=1) for side in (left, right)]
    high, wide = sides[0].shape[:2]
    picture = Pillow.new("RGB", (2 * wide + LINE, high + STRIP), _PAPER)
    font = ImageFont.load_default(max(10, min(20, wide // 14)))
    draw = ImageDraw.Draw(picture)
    for k, (side, said) in enumerate(zip(sides, words, strict=True)):
        at = k * (wide + LINE)
        picture.paste(Pillow.fromarray(side), (at, STRIP))
        draw.text((at + 8, STRIP // 2), said, fill=_INK, font=font, anchor="lm")
    return np.array(picture)


def _number(decibels: float) -> str:
    return f"{decibels:.2f} dB" if math.isfinite(decibels) else "equal to the original"


def _encode(av: Any, path: Path, pictures: Sequence[Image], codec: str, options: dict[str, str], rate: int) -> None:
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.thread_count = 1
            context.color_range, context.colorspace = _LIMITED, _SMPTE170M
            context.color_primaries = context.color_trc = _SMPTE170M
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(av1.to_planes(picture), format="yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, rate)
                frame.color_range, frame.colorspace = _LIMITED, _SMPTE170M
                packets = stream.encode(frame)
                if i == 0:
                    av1.undo_real_time()
                for packet in packets:
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
    except av.FFmpegError as error:
        raise JobFailed(f"{codec} could not write the preview: {error}") from error
    finally:
        av1.undo_real_time()


def _save(poster: Path, picture: Image) -> None:
    from PIL import Image as Pillow

    Pillow.fromarray(picture).save(poster, format="PNG")
