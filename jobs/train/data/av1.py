"""Frames through a real AV1 encoder (libsvtav1) and decoder (libdav1d), by way of PyAV.

The way of a frame: RGB at full size → Lanczos down (Pillow, 8 bit) → Y'CbCr 4:2:0 → SVT-AV1 → dav1d, which puts the
film grain on → RGB → bicubic up (Pillow, 8 bit). Both conversions are ours and are each other's inverse but for
rounding and the chroma's quarter resolution: ITU-R BT.601 matrix, limited range (Y 16..235, C 16..240), chroma in the
middle of its four pixels, the mean of them on the way in and bilinear on the way out. That is how the challenge's
evaluator reads a video, and the stream is marked so.

The encoder is given one call a sequence, so that frames are predicted from one another. SVT-AV1 gives the same bytes
for the same frames and settings whatever its threads; `lp=1` is set all the same, for memory and for a quiet machine.
Where it may (as root), it gives its threads, and the one that calls it, real-time priority for good, before which
nothing else on the machine runs. That is undone at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput, JobFailed
from jobs.train.data.clip import Frame

ENCODER, DECODER = "libsvtav1", "libdav1d"
CONVERSION = "BT.601 limited range, 4:2:0, centred chroma: mean of four down, bilinear up"
RESIZING = "Lanczos down, bicubic (a=-0.5) up, Pillow, 8 bit"
FULL = (1164, 874)
REDUCED = (522, 392)

_LIMITED, _BT470BG, _SMPTE170M = 1, 5, 6  # of ffmpeg's colour ranges and spaces; 5 and 6 are both BT.601
_Y = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Settings:
    """What the encoder is told.

    Attributes:
        width, height: of the encoded frames.
        crf: constant quality, 1 (best) to 63.
        preset: 0 (slowest) to 13.
        film_grain: strength of the grain that is taken off before and put on after; 0: none.
        keyint: frames from one key frame to the next; -1: only the first is one.
        sharpness: of the loop filter and the rate decision, -7 to 7.
        rate: frames a second, written into the stream; the rate control looks at it.
    """

    width: int = REDUCED[0]
    height: int = REDUCED[1]
    crf: int = 34
    preset: int = 6
    film_grain: int = 22
    keyint: int = -1
    sharpness: int = 1
    rate: int = 20

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("width", self.width, 16, 8192),
            ("height", self.height, 16, 8192),
            ("crf", self.crf, 1, 63),
            ("preset", self.preset, 0, 13),
            ("film_grain", self.film_grain, 0, 50),
            ("keyint", self.keyint, -1, 100_000),
            ("sharpness", self.sharpness, -7, 7),
            ("rate", self.rate, 1, 240),
        ):
            if not low <= value <= high:
                raise BadInput(f"the encoder's {name} cannot be {value}", hint=f"give {low} to {high}")
        if self.width % 2 or self.height % 2:
            raise BadInput(
                f"frames of {self.width}×{self.height} cannot be encoded as 4:2:0", hint="give two even sides"
            )

    @property
    def params(self) -> str:
        """The encoder's own options, as `svtav1-params` takes them."""
        return f"film-grain={self.film_grain}:keyint={self.keyint}:sharpness={self.sharpness}:lp=1"

    def document(self) -> dict[str, Any]:
        """All that decides the encoded bytes and the decoded frames, but for the versions."""
        return {**asdict(self), "params": self.params, "conversion": CONVERSION, "resizing": RESIZING}


def reduced(width: int, height: int) -> tuple[int, int]:
    """The encoded size of frames of another size: the same part of it as 522×392 of 1164×874, even, 16 or more."""
    return (
        max(16, 2 * round(width * REDUCED[0] / FULL[0] / 2)),
        max(16, 2 * round(height * REDUCED[1] / FULL[1] / 2)),
    )


def library() -> Any:
    """PyAV.

    Raises:
        JobFailed: it is not installed, or was built without the encoder or the decoder.
    """
    # The encoder writes a page of greetings to stderr for each sequence; errors (1) are still said.
    os.environ.setdefault("SVT_LOG", "1")
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        raise JobFailed(f"PyAV cannot be imported ({error})", hint="install it with `pip install av`") from None
    for name, mode, what in ((ENCODER, "w", "encoder"), (DECODER, "r", "decoder")):
        try:
            av.Codec(name, mode)
        except (ValueError, LookupError) as error:
            raise JobFailed(
                f"the PyAV {av.__version__} in {Path(av.__file__).parent} has no AV1 {what} {name} ({error})",
                hint="install the wheel of PyPI with `pip install --force-reinstall av`",
            ) from None
    return av


def versions() -> dict[str, str]:
    """Of everything that has a hand in the bytes: PyAV, FFmpeg, Pillow, and the files of encoder and decoder."""
    import PIL

    av = library()
    folder = Path(av.__file__).parent.parent / "av.libs"  # the wheel's; their names hold version and digest
    files = sorted(p.name for p in folder.glob("*") if "SvtAv1" in p.name or "dav1d" in p.name)
    return {
        "av": str(av.__version__),
        "ffmpeg": str(av.ffmpeg_version_info),
        "libavcodec": ".".join(str(n) for n in av.library_versions["libavcodec"]),
        "codecs": " ".join(files) or "of the system",
        "pillow": PIL.__version__,
    }


def encode(frames: Iterable[Frame], settings: Settings) -> bytes:
    """One IVF file of one sequence; `frames` are RGB of any one size and are reduced to the settings' size.

    Raises:
        BadInput: there are no frames, or one differs in size.
        JobFailed: the encoder is missing, or it failed.
    """
    av = library()
    out = io.BytesIO()
    size: tuple[int, ...] | None = None
    try:
        with av.open(out, "w", format="ivf") as container:
            options = {"crf": str(settings.crf), "preset": str(settings.preset), "svtav1-params": settings.params}
            stream = container.add_stream(ENCODER, rate=settings.rate, options=options)
            stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
            context = stream.codec_context
            context.color_range, context.colorspace = _LIMITED, _SMPTE170M
            context.color_primaries = context.color_trc = _SMPTE170M
            for i, frame in enumerate(frames):
                if size is not None and frame.shape != size:
                    raise BadInput(f"frame {i} is {_size(frame.shape)}, those before it {_size(size)}")
                size = frame.shape
                planes = to_planes(resize(frame, settings.width, settings.height, "lanczos"))
                picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                picture.pts, picture.time_base = i, Fraction(1, settings.rate)
                picture.color_range, picture.colorspace = _LIMITED, _SMPTE170M
                packets = stream.encode(picture)
                if i == 0:
                    undo_real_time()
                for packet in packets:
                    container.mux(packet)
            if size is None:
                raise BadInput("there are no frames to encode", hint="give at least two")
            for packet in stream.encode(None):
                container.mux(packet)
    except av.FFmpegError as error:
        raise JobFailed(
            f"{ENCODER} failed on {settings.width}×{settings.height} frames with crf {settings.crf}, preset "
            f"{settings.preset}, {settings.params}: {error}",
            hint="try other settings of the encoder",
        ) from error
    finally:
        undo_real_time()
    return out.getvalue()


def decode(data: bytes) -> Iterator[Frame]:
    """The frames of an encoded sequence as RGB, at the size they were encoded at, the film grain on them.

    Raises:
        JobFailed: the decoder is missing, or the bytes are no such sequence.
    """
    av = library()
    context = av.CodecContext.create(DECODER, "r")
    context.thread_count = 1
    try:
        with av.open(io.BytesIO(data), "r", format="ivf") as container:
            for packet in container.demux(video=0):
                yield from (to_rgb(_planes(f)) for f in context.decode(packet if packet.size else None))
    except av.FFmpegError as error:
        raise JobFailed(f"{DECODER} cannot read the {len(data)} encoded bytes: {error}") from error


def through(frames: Iterable[Frame], settings: Settings) -> tuple[bytes, Iterator[Frame]]:
    """(encoded bytes, frames decoded and back at their first size); the frames are consumed before this returns.

    Raises:
        BadInput, JobFailed: as `encode` and `decode` do; also when the decoder gives another number of frames.
    """
    seen: list[tuple[int, ...]] = []

    def watched() -> Iterator[Frame]:
        for frame in frames:
            seen.append(frame.shape)
            yield frame

    data = encode(watched(), settings)
    return data, _enlarged(data, len(seen), seen[0])


def undo_real_time() -> None:
    """Every thread of this process that has real-time priority becomes an ordinary one. On Linux; nothing elsewhere."""
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_setscheduler") or not tasks.is_dir():
        return
    for task in tasks.iterdir():
        with contextlib.suppress(OSError):  # it ended just now
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


def resize(frame: Frame, width: int, height: int, how: str) -> Frame:
    """A frame at another size by Pillow's `lanczos` or `bicubic`, which widen their filters on the way down."""
    from PIL import Image

    if frame.shape[:2] == (height, width):
        return frame
    filters = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(frame).resize((width, height), filters[how]))


def to_planes(rgb: Frame) -> npt.NDArray[np.uint8]:
    """RGB (h, w, 3) as planes Y, Cb, Cr one below another, (h·3/2, w), the way FFmpeg's yuv420p lies in memory."""
    height, width, _ = rgb.shape
    red, green, blue = (rgb[..., i].astype(np.float32) for i in range(3))
    luma = red * np.float32(_Y[0]) + green * np.float32(_Y[1]) + blue * np.float32(_Y[2])
    planes = np.empty(height * width * 3 // 2, np.uint8)
    planes[: height * width] = np.rint(luma * np.float32(219 / 255) + np.float32(16)).clip(16, 235).reshape(-1)
    at = height * width
    for colour, span in ((blue, 2 * (1 - _Y[2])), (red, 2 * (1 - _Y[0]))):
        difference = colour - luma
        mean = (difference[::2, ::2] + difference[::2, 1::2]) + (difference[1::2, ::2] + difference[1::2, 1::2])
        value = mean * np.float32(224 / 255 / span / 4) + np.float32(128)
        planes[at : at + value.size] = np.rint(value).clip(16, 240).reshape(-1)
        at += value.size
    return planes.reshape(height * 3 // 2, width)


def to_rgb(planes: npt.NDArray[np.uint8]) -> Frame:
    """The inverse of `to_planes`: (h·3/2, w) to (h, w, 3)."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    flat, area = planes.reshape(-1), height * width
    luma = (flat[:area].reshape(height, width).astype(np.float32) - np.float32(16)) * np.float32(255 / 219)
    blueness, redness = (
        (_doubled(_doubled(part, 0), 1) - np.float32(128)) * np.float32(255 / 224)
        for part in flat[area:].astype(np.float32).reshape(2, height // 2, width // 2)
    )
    to_blue, to_red = 2 * (1 - _Y[2]), 2 * (1 - _Y[0])
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[..., 0] = np.rint(luma + redness * np.float32(to_red)).clip(0, 255)
    green = luma - blueness * np.float32(to_blue * _Y[2] / _Y[1]) - redness * np.float32(to_red * _Y[0] / _Y[1])
    rgb[..., 1] = np.rint(green).clip(0, 255)
    rgb[..., 2] = np.rint(luma + blueness * np.float32(to_blue)).clip(0, 255)
    return rgb


def _enlarged(data: bytes, count: int, shape: tuple[int, ...]) -> Iterator[Frame]:
    got = 0
    for frame in decode(data):
        got += 1
        yield resize(frame, shape[1], shape[0], "bicubic")
    if got != count:
        raise JobFailed(f"{DECODER} gave {got} frames for {count} that were encoded", hint="try another PyAV")


def _doubled(values: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Twice as long along the axis, bilinear between the middles of pixels, the edge kept."""
    values = np.moveaxis(values, axis, 0)
    before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
    result = np.empty((2 * len(values), *values.shape[1:]), np.float32)
    result[::2] = values * np.float32(0.75) + before * np.float32(0.25)
    result[1::2] = values * np.float32(0.75) + after * np.float32(0.25)
    return np.moveaxis(result, 0, axis)


def _planes(picture: Any) -> npt.NDArray[np.uint8]:
    if picture.format.name != "yuv420p":
        raise JobFailed(f"{DECODER} gave {picture.format.name} where yuv420p was encoded")
    planes: npt.NDArray[np.uint8] = picture.to_ndarray()
    return planes


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"
