"""The way through the encoder: conversions against their definition, the stream as it is asked for, the same bytes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from core.errors import BadInput, JobFailed
from jobs.train.data import av1
from jobs.train.data.av1 import Settings, decode, encode, through, to_planes, to_rgb
from jobs.train.data.clip import Frame
from jobs.train.data.photos import Panning
from tests.jobs.train.data_context import encoder

SMALL = Settings(96, 72, preset=12)
WALK = list(Panning("coffee", 6, width=192, height=144).frames())


def psnr(a: Frame, b: Frame) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def test_the_settings_are_the_recipes() -> None:
    settings = Settings()
    assert (settings.width, settings.height, settings.crf) == (522, 392, 34)
    assert settings.params == "film-grain=22:keyint=-1:sharpness=1:lp=1"
    assert av1.reduced(1164, 874) == (522, 392)
    assert av1.reduced(96, 72) == (44, 32)
    assert av1.reduced(8, 8) == (16, 16)


def test_every_setting_is_in_the_document() -> None:
    changed = [
        SMALL,
        *(replace(SMALL, **{name: value + 2}) for name, value in vars(SMALL).items() if name != "preset"),
        replace(SMALL, preset=11),
    ]
    assert len({repr(s.document()) for s in changed}) == len(changed) == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [("crf", 0), ("crf", 64), ("preset", 14), ("film_grain", 51), ("width", 95), ("height", 8), ("keyint", -2)],
)
def test_settings_that_cannot_be_are_refused(name: str, value: int) -> None:
    with pytest.raises(BadInput, match=str(value)):
        replace(SMALL, **{name: value})


@pytest.mark.parametrize(
    ("rgb", "ycc"),
    [
        ((0, 0, 0), (16, 128, 128)),
        ((255, 255, 255), (235, 128, 128)),
        ((255, 0, 0), (81, 90, 240)),
        ((0, 255, 0), (145, 54, 34)),
        ((0, 0, 255), (41, 240, 110)),
    ],
)
def test_the_primaries_have_the_values_of_bt601(rgb: tuple[int, ...], ycc: tuple[int, ...]) -> None:
    planes = to_planes(np.full((4, 6, 3), rgb, np.uint8)).reshape(-1)
    assert (tuple(planes[:24]), set(planes[24:30]), set(planes[30:])) == ((ycc[0],) * 24, {ycc[1]}, {ycc[2]})
    assert np.abs(to_rgb(planes.reshape(6, 6)).astype(int) - rgb).max() <= 2, "only rounding is lost"


def test_both_conversions_are_their_definition_in_float64() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    planes = to_planes(rgb)
    assert np.abs(planes.reshape(-1) - planes_by_hand(rgb, 0.299, 0.114)).max() <= 0.5 + 1e-4
    assert np.abs(planes.reshape(-1) - planes_by_hand(rgb, 0.2126, 0.0722)).max() > 2, "BT.709 is another matrix"
    assert np.abs(to_rgb(planes) - rgb_by_hand(planes, 0.299, 0.114)).max() <= 0.5 + 1e-4
    assert np.abs(to_rgb(planes) - rgb_by_hand(planes, 0.2126, 0.0722)).max() > 2


def test_greys_come_back_to_the_next_level() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), 2, axis=0).repeat(3, axis=2)
    assert np.abs(to_rgb(to_planes(ramp)).astype(int) - ramp).max() <= 1


@encoder
def test_the_same_frames_and_settings_give_the_same_bytes_and_other_ones_do_not() -> None:
    data = encode(WALK, SMALL)
    assert encode(iter(WALK), SMALL) == data
    others = [
        encode(WALK, replace(SMALL, crf=50)),
        encode(WALK, replace(SMALL, preset=10)),
        encode(WALK, replace(SMALL, film_grain=0)),
        encode(WALK[:-1], SMALL),
        encode([*WALK[:-1], 255 - WALK[-1]], SMALL),
    ]
    assert len({data, *others}) == 6
    assert len(others[0]) < len(data), "a higher crf is smaller"


@encoder
def test_the_bytes_do_not_depend_on_the_encoders_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(WALK, SMALL)
    assert ":lp=1" in SMALL.params
    threaded = SMALL.params.replace(":lp=1", ":lp=4")
    monkeypatch.setattr(Settings, "params", property(lambda self: threaded))
    assert encode(WALK, SMALL) == data


@encoder
def test_frames_are_predicted_from_one_another_and_only_the_first_is_a_key_frame() -> None:
    av = av1.library()
    with av.open(io.BytesIO(encode(WALK, SMALL)), "r", format="ivf") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "libdav1d" or "av1" in stream.codec_context.name
        keys = [p.is_keyframe for p in container.demux(stream) if p.size]
    assert keys == [True] + [False] * 11
    with av.open(io.BytesIO(encode(WALK, replace(SMALL, keyint=4))), "r", format="ivf") as container:
        assert sum(p.is_keyframe for p in container.demux(video=0) if p.size) > 1
    alone = sum(len(encode([frame], SMALL)) for frame in WALK)
    assert len(encode(WALK, SMALL)) < 0.7 * alone


@encoder
def test_the_stream_is_marked_as_it_is_converted() -> None:
    av = av1.library()
    with av.open(io.BytesIO(encode(WALK[:2], SMALL)), "r", format="ivf") as container:
        picture = next(container.decode(video=0))
    assert (int(picture.color_range), int(picture.colorspace)) in {(1, 5), (1, 6)}
    assert (picture.format.name, picture.width, picture.height) == ("yuv420p", 96, 72)


@encoder
def test_the_decoder_puts_the_film_grain_on() -> None:
    av = av1.library()
    data = encode(WALK, SMALL)
    grainy = list(decode(data))
    bare = []
    context = av.CodecContext.create(av1.DECODER, "r")
    context.options = {"filmgrain": "0"}
    with av.open(io.BytesIO(data), "r", format="ivf") as container:
        for packet in container.demux(video=0):
            bare += [to_rgb(f.to_ndarray()) for f in context.decode(packet if packet.size else None)]
    assert len(grainy) == len(bare) == len(WALK)
    assert psnr(grainy[3], bare[3]) < 45
    assert all(np.array_equal(a, b) for a, b in zip(grainy, decode(data), strict=True)), "the grain is the same again"


@encoder
def test_frames_come_back_in_order_at_their_size_and_like_themselves() -> None:
    data, frames = through(iter(WALK), SMALL)
    decoded = list(frames)
    assert data == encode(WALK, SMALL)
    assert len(decoded) == 12
    assert {(f.shape, f.dtype.name) for f in decoded} == {((144, 192, 3), "uint8")}
    likeness = np.array([[psnr(a, b) for b in WALK] for a in decoded])
    assert likeness.diagonal().min() > 22
    # Each is likest to its own original, where the walk has left the place by some frames.
    assert all(likeness[i, i] > likeness[i, (i + 4) % 12] for i in range(12))


@encoder
def test_damaged_bytes_are_refused() -> None:
    data = encode(WALK, SMALL)
    assert len(list(av1._enlarged(data, 12, (144, 192, 3)))) == 12
    for damaged in (data[: len(data) // 2], data[:32] + bytes(len(data) - 32), b""):
        with pytest.raises(JobFailed, match=r"gave .* frames for 12|cannot read"):
            list(av1._enlarged(damaged, 12, (144, 192, 3)))


@encoder
def test_frames_of_two_sizes_and_no_frames_are_refused() -> None:
    with pytest.raises(BadInput, match="frame 1 is 96×72, those before it 192×144"):
        encode([WALK[0], np.ascontiguousarray(WALK[1][::2, ::2])], SMALL)
    with pytest.raises(BadInput, match="no frames"):
        encode([], SMALL)


@encoder
def test_a_missing_library_encoder_or_decoder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, what in (("ENCODER", "encoder"), ("DECODER", "decoder")):
        with monkeypatch.context() as patch:
            patch.setattr(av1, name, "libnothing")
            with pytest.raises(JobFailed, match=f"no AV1 {what} libnothing"):
                encode(WALK, SMALL)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(JobFailed, match=r"PyAV cannot be imported.*pip install av"):
        encode(WALK, SMALL)


@encoder
def test_the_versions_name_everything_that_has_a_hand_in_the_bytes() -> None:
    versions = av1.versions()
    assert set(versions) == {"av", "ffmpeg", "libavcodec", "codecs", "pillow"}
    assert all(versions.values())


def planes_by_hand(rgb: Frame, kr: float, kb: float) -> np.ndarray:
    r, g, b = (rgb[..., i] / 255.0 for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    planes = [16 + 219 * y]
    for part in ((b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))):
        h, w = part.shape
        planes.append(128 + 224 * part.reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3)))
    return np.concatenate([p.reshape(-1) for p in planes])


def rgb_by_hand(planes: np.ndarray, kr: float, kb: float) -> np.ndarray:
    h, w = planes.shape[0] * 2 // 3, planes.shape[1]
    flat = planes.reshape(-1).astype(np.float64)
    y = (flat[: h * w].reshape(h, w) - 16) / 219
    cb, cr = ((c - 128) / 224 for c in flat[h * w :].reshape(2, h // 2, w // 2))

    def up(c: np.ndarray) -> np.ndarray:
        out = np.empty((h, w))
        for i in range(h):
            for j in range(w):
                v, u = min(max((i - 0.5) / 2, 0), h / 2 - 1), min(max((j - 0.5) / 2, 0), w / 2 - 1)
                a, b = int(v), int(u)
                a2, b2 = min(a + 1, h // 2 - 1), min(b + 1, w // 2 - 1)
                top = c[a, b] * (1 - u + b) + c[a, b2] * (u - b)
                low = c[a2, b] * (1 - u + b) + c[a2, b2] * (u - b)
                out[i, j] = top * (1 - v + a) + low * (v - a)
        return out

    cb, cr = up(cb), up(cr)
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return (np.stack([r, g, b], axis=-1) * 255).clip(0, 255)


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="needs Linux's scheduler")
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="needs root: only then is the encoder let")
@encoder
def test_encoding_leaves_no_real_time_priority_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """At priority 99 of SCHED_FIFO a training would keep everything else off its core, its own supervisor too."""

    def policies() -> set[int]:
        return {os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")}

    seen: list[set[int]] = []

    def watched() -> Iterator[Frame]:
        for frame in WALK:
            seen.append(policies())
            yield frame

    encode(watched(), SMALL)
    assert [*seen, policies()] == [{os.SCHED_OTHER}] * (len(WALK) + 1)
    # What it does if it is let.
    seen.clear()
    undo = av1.undo_real_time
    monkeypatch.setattr(av1, "undo_real_time", lambda: None)
    try:
        encode(watched(), SMALL)
        assert os.SCHED_FIFO in seen[-1]
    finally:
        undo()
    assert policies() == {os.SCHED_OTHER}
