"""The preview: it decodes again, shows what it says, keeps its limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import BadInput, JobFailed
from jobs.train.data import av1
from jobs.train.data.photos import Panning
from jobs.train.preview import CODECS, LINE, PAIRS, STRIP, ZOOM, preview_of, to_and_fro, write_preview
from kernels.postfilter.quantised import quantise
from kernels.postfilter.weights import Weights

av = pytest.importorskip("av")
Frame = Any


def frames(count: int, height: int = 60, width: int = 81) -> Iterator[tuple[Frame, Frame, Frame]]:
    """The left one is grey; the right one is red and gets brighter."""
    for i in range(count):
        original = np.full((height, width, 3), 120, np.uint8)
        red = np.zeros_like(original)
        red[..., 0] = min(100 + 2 * i, 255)
        yield original, original - 4, red


def read(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("codec", [name for name, _ in CODECS])
def test_it_decodes_again_with_its_size_its_frames_and_its_sides(tmp_path: Path, codec: str) -> None:
    made = write_preview(tmp_path / "v.mp4", tmp_path / "p.png", frames(42), codec=codec)
    seen = read(tmp_path / "v.mp4")
    assert (made.codec, made.frames, made.different) == (codec, 42, 42) == (codec, len(seen), 42)
    assert (made.width, made.height) == (2 * ZOOM * 81 + LINE, ZOOM * 60 + STRIP)
    assert {x.shape for x in seen} == {(made.height, made.width, 3)}
    assert made.bytes == (tmp_path / "v.mp4").stat().st_size
    middle = STRIP + ZOOM * 30
    for i in (0, 20, 41):
        left, right = seen[i][middle, ZOOM * 40].astype(int), seen[i][middle, ZOOM * 81 + LINE + ZOOM * 40].astype(int)
        assert np.abs(left - 116).max() <= 6
        assert np.abs(right - (100 + 2 * i, 0, 0)).max() <= 8
        assert seen[i][middle, ZOOM * 81 + LINE // 2].min() > 200
    poster = np.asarray(Image.open(tmp_path / "p.png"))
    assert tuple(poster[middle, -20]) == (100 + 2 * 21, 0, 0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].codec_context.name in {"h264", "libdav1d", "av1"}
        assert float(container.duration / av.time_base) == pytest.approx(2.1, abs=0.06)


def test_its_decibels_are_of_the_whole_frames(tmp_path: Path) -> None:
    made = write_preview(tmp_path / "v.mp4", tmp_path / "p.png", frames(2, 500, 600))
    assert made.decoded == pytest.approx(20 * math.log10(255 / 4), abs=1e-12)
    error = np.mean([[(120 - 100 - 2 * i) ** 2, 120**2, 120**2] for i in range(2)])
    assert made.filtered == pytest.approx(10 * math.log10(255**2 / error), abs=1e-12)
    assert (made.width, made.height) == (964, 516)
    equal = ((o, o, r) for o, _, r in frames(2))
    assert write_preview(tmp_path / "w.mp4", tmp_path / "p.png", equal).decoded == math.inf


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_preview(tmp_path / f"{name}.mp4", tmp_path / f"{name}.png", frames(6))
    write_preview(tmp_path / "c.mp4", tmp_path / "c.png", ((o, d - 1, f) for o, d, f in frames(6)))
    for end in ("mp4", "png"):
        a, b, c = ((tmp_path / f"{name}.{end}").read_bytes() for name in "abc")
        assert a == b != c


def test_short_ones_go_to_and_fro_and_long_ones_are_cut(tmp_path: Path) -> None:
    assert to_and_fro(4, 9) == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert to_and_fro(1, 3) == [0, 0, 0]
    assert to_and_fro(2, 3) == [0, 1, 0]
    assert to_and_fro(5, 5) == [0, 1, 2, 3, 4]
    made = write_preview(tmp_path / "v.mp4", tmp_path / "p.png", frames(3), rate=4)
    assert (made.frames, made.different) == (8, 3)
    asked = iter(frames(100))
    made = write_preview(tmp_path / "v.mp4", tmp_path / "p.png", asked, rate=4)
    assert (made.frames, made.different) == (16, 16)
    assert len(list(asked)) == 84  # no more were made than are shown


def noisy(count: int) -> Iterator[tuple[Frame, Frame, Frame]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield tuple(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(3))  # type: ignore[misc]


def test_its_quality_gives_way_to_the_limit_and_no_more_than_it_must(tmp_path: Path) -> None:
    best = write_preview(tmp_path / "v.mp4", tmp_path / "p.png", noisy(8), rate=4)
    smaller = write_preview(tmp_path / "w.mp4", tmp_path / "p.png", noisy(8), rate=4, limit=best.bytes // 2)
    assert smaller.crf > best.crf
    assert (tmp_path / "w.mp4").stat().st_size == smaller.bytes <= best.bytes // 2
    assert write_preview(tmp_path / "x.mp4", tmp_path / "p.png", noisy(8), rate=4, limit=best.bytes).crf == best.crf
    with pytest.raises(JobFailed, match="may have 100"):
        write_preview(tmp_path / "y.mp4", tmp_path / "q.png", noisy(8), rate=4, limit=100)
    assert not (tmp_path / "y.mp4").exists()
    assert not (tmp_path / "q.png").exists()


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no held-out frames"):
        write_preview(tmp_path / "v.mp4", tmp_path / "p.png", [])
    odd = [*frames(1), *frames(1, 62)]
    with pytest.raises(BadInput, match="those before it"):
        write_preview(tmp_path / "v.mp4", tmp_path / "p.png", odd)
    with pytest.raises(JobFailed, match="no encoder h265-of-nobody"):
        write_preview(tmp_path / "v.mp4", tmp_path / "p.png", frames(1), codec="h265-of-nobody")
    assert not list(tmp_path.iterdir())


def test_a_photographs_pan_is_encoded_filtered_and_shown(tmp_path: Path) -> None:
    shipped = quantise(Weights.initial(4, 0))  # its last layer is zero: nothing changes
    clip = Panning("coffee", 1, 0, 96, 64)
    made = preview_of(
        tmp_path / "v.mp4",
        tmp_path / "p.png",
        clip,
        av1.Settings(*av1.reduced(96, 64), preset=12),
        shipped,
        root=tmp_path / "cache",
    )
    assert made.frames == made.different == 2 * PAIRS
    assert made.decoded == made.filtered < 40
    assert len(read(tmp_path / "v.mp4")) == 2 * PAIRS
