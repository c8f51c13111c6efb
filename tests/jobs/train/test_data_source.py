"""The user's own frames: taken as they are, or refused in one sentence that names the file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import BadInput
from jobs.train.data import av1
from jobs.train.data.clip import Frame
from jobs.train.data.source import open_source
from tests.jobs.train.data_context import Noise, encoder

FRAMES = list(Noise("noise", 1, count=7).frames())


def stills(folder: Path, frames: list[Frame], name: str = "f{}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(i))
    return folder


def video(path: Path, planes: list[np.ndarray], space: int = 2, span: int = 1) -> Path:
    """FFV1: what is read is what was written."""
    av = av1.library()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = planes[0].shape[1], planes[0].shape[0] * 2 // 3, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, span
        for i, plane in enumerate(planes):
            picture = av.VideoFrame.from_ndarray(plane, format="yuv420p")
            picture.pts, picture.time_base = i, Fraction(1, 20)
            picture.colorspace, picture.color_range = space, span
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def same(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_stills_are_read_as_they_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = list(Noise("noise", 1, count=12).frames())
    clip = open_source(stills(tmp_path / "s", frames))
    assert (clip.name, clip.width, clip.height) == ("s", 32, 24)
    assert same(list(clip.frames()), frames), "f10 and f11 come after f9"
    assert same(list(open_source(tmp_path / "s", first=3, pairs=2).frames()), frames[3:7])


def test_an_odd_frame_at_the_end_is_left_out(tmp_path: Path) -> None:
    assert same(list(open_source(stills(tmp_path / "s", FRAMES)).frames()), FRAMES[:6])


def test_the_identity_follows_content_order_and_part(tmp_path: Path) -> None:
    folder = stills(tmp_path / "s", FRAMES)
    one = open_source(folder).identity()
    assert open_source(folder).identity() == one
    assert open_source(folder, first=1).identity() != one
    assert open_source(folder, pairs=2).identity() != one
    (folder / "f0.png").rename(folder / "f9.png")
    moved = open_source(folder).identity()
    Image.fromarray(FRAMES[0] ^ 1).save(folder / "f9.png")
    assert len({i["sha256"] for i in (one, moved, open_source(folder).identity())}) == 3


def test_stills_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"s has 1 PNG file\(s\), 2 are needed"):
        open_source(stills(tmp_path / "s", FRAMES[:1]))
    with pytest.raises(BadInput, match=r"has 7 PNG file\(s\), 9 are needed"):
        open_source(stills(tmp_path / "s", FRAMES), first=1, pairs=4)
    with pytest.raises(BadInput, match="odd is 31×24; odd sides"):
        open_source(stills(tmp_path / "odd", [f[:, :31] for f in FRAMES]))
    Image.fromarray(FRAMES[0][:22]).save(tmp_path / "s" / "f4.png")
    with pytest.raises(BadInput, match=r"f0.png is 32×24, f4.png is 32×22"):
        open_source(tmp_path / "s")
    (tmp_path / "s" / "f4.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"f4.png is no picture"):
        open_source(tmp_path / "s")


def test_a_still_cut_short_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = stills(tmp_path / "s", FRAMES)
    whole = (folder / "f3.png").read_bytes()
    (folder / "f3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"f3.png cannot be read"):
        list(open_source(folder).frames())


@encoder
def test_a_video_is_converted_as_the_evaluator_does_it(tmp_path: Path) -> None:
    planes = [av1.to_planes(f) for f in FRAMES]
    clip = open_source(video(tmp_path / "v.mkv", planes))
    assert (clip.name, clip.width, clip.height) == ("v.mkv", 32, 24)
    assert same(list(clip.frames()), [av1.to_rgb(p) for p in planes[:6]])
    part = open_source(tmp_path / "v.mkv", first=2, pairs=1)
    assert same(list(part.frames()), [av1.to_rgb(p) for p in planes[2:4]])
    assert part.identity() != clip.identity()


@encoder
def test_a_video_that_is_marked_otherwise_is_converted_as_it_is_marked(tmp_path: Path) -> None:
    flat = np.full((36, 32), 120, np.uint8)
    flat[24:30], flat[30:] = 100, 170
    red = {}
    for name, space, span in (("none", 2, 1), ("601", 5, 1), ("709", 1, 1), ("full", 5, 2)):
        path = video(tmp_path / f"{name}.mkv", [flat] * 2, space, span)
        red[name] = int(next(open_source(path).frames())[12, 16, 0])
    # (120 - 16)·255/219 + 42·255/224·1.402, the same with 1.5748, and 120 + 42·1.402.
    assert red["none"] == red["601"] == 188
    assert abs(red["709"] - 196.4) < 2
    assert abs(red["full"] - 178.9) < 2


@encoder
def test_videos_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    planes: list[Any] = [av1.to_planes(f) for f in FRAMES]
    with pytest.raises(BadInput, match=r"one.mkv has 1 frame\(s\), a pair needs two"):
        open_source(video(tmp_path / "one.mkv", planes[:1]))
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    with pytest.raises(BadInput, match=r"text.mp4 cannot be read as a video"):
        open_source(tmp_path / "text.mp4")
    with pytest.raises(BadInput, match=r"no video and no folder .*gone"):
        open_source(tmp_path / "gone")
    clip = open_source(video(tmp_path / "v.mkv", planes), pairs=4)
    with pytest.raises(BadInput, match=r"v.mkv has 3 pair\(s\) from frame 0 on, 4 are needed"):
        list(clip.frames())


@encoder
@pytest.mark.parametrize("values", [{"first": -1}, {"pairs": 0}])
def test_parts_that_are_none_are_refused(tmp_path: Path, values: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="are none"):
        open_source(stills(tmp_path / "s", FRAMES), **values)


@encoder
def test_a_video_with_odd_sides_is_refused(tmp_path: Path) -> None:
    av = av1.library()
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 31, 24, "yuv444p"
        for i in range(2):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(FRAMES[i][:, :31]), format="rgb24")
            picture = picture.reformat(format="yuv444p")
            picture.pts, picture.time_base = i, Fraction(1, 20)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(BadInput, match=r"odd.mkv is 31×24; odd sides"):
        open_source(tmp_path / "odd.mkv")
