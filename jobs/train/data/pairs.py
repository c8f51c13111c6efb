"""Pairs of frames, original and decoded, as a training reads them: mapped from the cache, handed over in advance."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.train.data import av1, cache
from jobs.train.data.clip import Clip, Frame

if TYPE_CHECKING:
    import torch

_POLL_S = 0.1
_Buffers = tuple["torch.Tensor", "torch.Tensor"]


@dataclass
class Pairs:
    """Frames 2i and 2i+1 of each clip, before and after the encoder.

    Attributes:
        original, decoded: uint8 (n, 2, H, W, 3), RGB, C order, memory-mapped, read-only.
        digest: SHA-256 (hex) of their content and of how they were made.
        sources: what each pair was taken from.
        encoded_bytes: of all encoded sequences together.
        encoded: their files (IVF), in the order of the clips.
    """

    original: npt.NDArray[np.uint8]
    decoded: npt.NDArray[np.uint8]
    digest: str
    sources: tuple[str, ...]
    encoded_bytes: int
    encoded: tuple[Path, ...] = ()
    _entry: cache.Entry | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.original)

    def close(self) -> None:
        """Let the cache remove them when it has to; the arrays may be read on as long as somebody has them."""
        if self._entry is not None:
            self._entry.close()
            self._entry = None

    def __enter__(self) -> Pairs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare(
    clips: Sequence[Clip],
    settings: av1.Settings | None = None,
    *,
    root: Path | None = None,
    limit: int = cache.LIMIT,
    say: cache.Say = lambda sentence: None,
) -> Pairs:
    """The pairs of these clips: from the cache, or encoded now; one call of the encoder a clip.

    Args:
        settings: of the encoder; None: the recipe's, at the recipe's part of the frames' size.
        root, limit, say: as in `cache.take`.

    Raises:
        BadInput: there are no clips, their sizes differ, or a source cannot be read.
        JobFailed: the encoder is missing or failed. DiskFull: no space in the cache.
    """
    if not clips:
        raise BadInput("there is nothing to encode", hint="name photographs, a video or a folder of PNG files")
    size = (clips[0].width, clips[0].height)
    for clip in clips:
        if (clip.width, clip.height) != size:
            raise BadInput(
                f"{clip.name} is {clip.width}×{clip.height}, {clips[0].name} is {size[0]}×{size[1]}",
                hint="train on frames of one size",
            )
    settings = settings or av1.Settings(*av1.reduced(*size))
    how = {
        "sources": [clip.identity() for clip in clips],
        "settings": settings.document(),
        "versions": av1.versions(),
    }

    def make(folder: Path) -> dict[str, Any]:
        return _write(folder, clips, settings, say)

    entry = cache.take(how, make, root=root, limit=limit, say=say)
    try:
        return _mapped(entry)
    except BaseException:
        entry.close()
        raise


@dataclass(frozen=True)
class Group:
    """The frames of some pairs: pair k of it is frames 2k and 2k+1.

    Attributes:
        pairs: their numbers.
        original, decoded: float32 (2·len(pairs), 3, H, W), channels_last, in [0, 255]. They are written over once the
            next group is asked for: a copy to another device must be finished by then.
    """

    pairs: tuple[int, ...]
    original: torch.Tensor
    decoded: torch.Tensor

    def pair(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(original, decoded) of one pair, (2, 3, H, W) each; views."""
        return self.original[2 * k : 2 * k + 2], self.decoded[2 * k : 2 * k + 2]


class Reader:
    """Groups of pairs in the order that is asked for, read by a thread before they are needed.

    Args:
        groups: numbers of pairs, one group after the other; may be endless; it is read in the thread.
        largest: pairs in the largest group.
        ahead: groups that are kept ready; buffers for `ahead` + 1 groups are held as long as the reader lives.
        pinned: buffers that a GPU can fetch by itself.

    Use it as a context manager: the thread ends with it, wherever the training leaves.
    """

    def __init__(
        self, pairs: Pairs, groups: Iterable[Sequence[int]], *, largest: int = 4, ahead: int = 1, pinned: bool = False
    ) -> None:
        import torch

        if largest < 1 or ahead < 1:
            raise ValueError(f"groups of {largest} pairs, {ahead} ahead, cannot be read: both are at least 1")
        shape = (2 * largest, 3, *pairs.original.shape[2:4])

        def buffer() -> torch.Tensor:
            # As rows of pixels, which is how the files lie; touched now, not in the middle of the first steps.
            rows = torch.empty((shape[0], *shape[2:], shape[1]), dtype=torch.float32, pin_memory=pinned)
            return rows.zero_().permute(0, 3, 1, 2)

        self._free: queue.SimpleQueue[_Buffers] = queue.SimpleQueue()
        for _ in range(ahead + 1):
            self._free.put((buffer(), buffer()))
        self._ready: queue.SimpleQueue[tuple[Group, _Buffers] | BaseException | None] = queue.SimpleQueue()
        self._lent: _Buffers | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(pairs, iter(groups), largest), name="reader of pairs", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Group]:
        return self

    def __next__(self) -> Group:
        """The next group.

        Raises:
            StopIteration: there is none, or the reader is closed. Whatever went wrong in the thread.
        """
        if self._stop.is_set():
            raise StopIteration
        if self._lent is not None:
            self._free.put(self._lent)
            self._lent = None
        got = self._ready.get()
        if isinstance(got, tuple):
            group, self._lent = got
            return group
        self.close()
        if got is None:
            raise StopIteration
        raise got

    def close(self) -> None:
        """End the thread; again is nothing."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, pairs: Pairs, groups: Iterator[Sequence[int]], largest: int) -> None:
        try:
            for group in groups:
                numbers = tuple(int(i) for i in group)
                wrong = next((i for i in numbers if not 0 <= i < len(pairs)), None)
                if wrong is not None or not 1 <= len(numbers) <= largest:
                    raise ValueError(f"a group {numbers} of {len(pairs)} pairs, {largest} at most, cannot be read")
                buffers = self._buffers()
                if buffers is None:
                    return
                self._ready.put((_fill(buffers, pairs, numbers), buffers))
            self._ready.put(None)
        except BaseException as error:  # all of it belongs to the one who waits for the next group
            self._ready.put(error)

    def _buffers(self) -> _Buffers | None:
        """Buffers that nobody reads any more; None when the reader is closed."""
        while not self._stop.is_set():
            try:
                return self._free.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None


def _fill(buffers: _Buffers, pairs: Pairs, numbers: tuple[int, ...]) -> Group:
    tensors = []
    for buffer, frames in zip(buffers, (pairs.original, pairs.decoded), strict=True):
        tensor = buffer[: 2 * len(numbers)]
        # NumPy converts without holding the interpreter, and without taking threads from the training.
        rows = tensor.permute(0, 2, 3, 1).numpy()
        for k, i in enumerate(numbers):
            np.copyto(rows[2 * k : 2 * k + 2], frames[i])
        tensors.append(tensor)
    return Group(numbers, tensors[0], tensors[1])


def _write(folder: Path, clips: Sequence[Clip], settings: av1.Settings, say: cache.Say) -> dict[str, Any]:
    """The files of an entry: original.npy, decoded.npy, and one IVF file a clip."""
    about = []
    with _Npy(folder / "original.npy") as original, _Npy(folder / "decoded.npy") as decoded:
        for i, clip in enumerate(clips):
            say(f"encoding {clip.name}, {i + 1} of {len(clips)}")
            before = original.frames
            data, frames = av1.through(original.passing(clip.frames()), settings)
            file = f"{i:03d}.ivf"
            (folder / file).write_bytes(data)
            for frame in frames:
                decoded.add(frame)
            pairs, odd = divmod(original.frames - before, 2)
            if odd:
                raise BadInput(f"{clip.name} has an odd number of frames", hint="pairs need an even one")
            about.append({"name": clip.name, "file": file, "pairs": pairs, "bytes": len(data)})
    return {"clips": about}


def _mapped(entry: cache.Entry) -> Pairs:
    arrays = [np.load(entry.folder / f"{name}.npy", mmap_mode="r") for name in ("original", "decoded")]
    clips = entry.about["clips"]
    return Pairs(
        arrays[0],
        arrays[1],
        entry.digest,
        tuple(clip["name"] for clip in clips for _ in range(clip["pairs"])),
        sum(clip["bytes"] for clip in clips),
        tuple(entry.folder / clip["file"] for clip in clips),
        entry,
    )


class _Npy:
    """An .npy file (n, 2, H, W, 3) written frame by frame: not through a map, where a full disk would be a signal."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._shape: tuple[int, ...] | None = None
        self.frames = 0

    def passing(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.add(frame)
            yield frame

    def add(self, frame: Frame) -> None:
        if self._shape is None:
            self._shape = frame.shape
            self._file.write(self._header(0))
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise BadInput(f"frame {self.frames} is {frame.shape} {frame.dtype}, those before it {self._shape} uint8")
        self._file.write(np.ascontiguousarray(frame).data)
        self.frames += 1

    def _header(self, pairs: int) -> bytes:
        assert self._shape is not None
        out = io.BytesIO()
        shape = (pairs, 2, *self._shape)
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return out.getvalue()

    def __enter__(self) -> _Npy:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                blank, header = self._header(0), self._header(self.frames // 2)
                assert len(blank) == len(header), "NumPy leaves space for the count to grow"
                self._file.seek(0)
                self._file.write(header)
