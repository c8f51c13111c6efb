"""Pairs of frames: what is in them, and the reader that has them ready."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import BadInput
from jobs.train.data import av1
from jobs.train.data.av1 import Settings
from jobs.train.data.clip import Frame
from jobs.train.data.pairs import Pairs, Reader, prepare
from jobs.train.data.photos import pannings, split
from tests.jobs.train.data_context import Noise, encoder

CLIPS = [Noise("one", 1, count=4), Noise("two", 2, count=6)]


@pytest.fixture
def inverted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that takes no time: what is decoded is the negative."""

    def through(frames: Iterable[Frame], settings: Settings) -> tuple[bytes, Iterator[Frame]]:
        seen = [255 - f for f in frames]
        return b"x" * len(seen), iter(seen)

    monkeypatch.setattr(av1, "through", through)
    monkeypatch.setattr(av1, "versions", lambda: {"av": "none"})


@pytest.fixture
def pairs(inverted: None, tmp_path: Path) -> Iterator[Pairs]:
    with prepare(CLIPS, root=tmp_path) as pairs:
        yield pairs


def test_the_frames_lie_in_pairs_as_the_clips_gave_them(pairs: Pairs) -> None:
    assert len(pairs) == 5
    assert pairs.original.shape == pairs.decoded.shape == (5, 2, 24, 32, 3)
    assert pairs.original.dtype == pairs.decoded.dtype == np.uint8
    assert pairs.original.flags.c_contiguous
    assert isinstance(pairs.original, np.memmap)
    assert not pairs.original.flags.writeable
    frames = [f for clip in CLIPS for f in clip.frames()]
    assert np.array_equal(pairs.original.reshape(-1, 24, 32, 3), np.stack(frames))
    assert np.array_equal(pairs.decoded, 255 - pairs.original)
    assert pairs.sources == ("one",) * 2 + ("two",) * 3
    assert pairs.encoded_bytes == 10
    assert [p.read_bytes() for p in pairs.encoded] == [b"xxxx", b"xxxxxx"]


def test_the_digest_follows_sources_settings_and_versions(
    inverted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(*av1.reduced(32, 24))

    def of(clips: list[Any], settings: Settings = settings, at: str = "a") -> str:
        with prepare(clips, settings, root=tmp_path / at) as pairs:
            return pairs.digest

    one = of(CLIPS)
    assert of(CLIPS) == of(CLIPS, at="b") == one
    others = {of(CLIPS[:1]), of(CLIPS[::-1]), of([replace(CLIPS[0], seed=5), CLIPS[1]])}
    others |= {of(CLIPS, replace(settings, crf=35)), of(CLIPS, replace(settings, preset=3))}
    monkeypatch.setattr(av1, "versions", lambda: {"av": "another"})
    others.add(of(CLIPS))
    assert len(others) == 6
    assert one not in others


def test_what_cannot_be_encoded_together_is_refused(inverted: None, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to encode"):
        prepare([], root=tmp_path)
    with pytest.raises(BadInput, match="two is 30×24, one is 32×24"):
        prepare([CLIPS[0], replace(CLIPS[1], width=30)], root=tmp_path)
    with pytest.raises(BadInput, match="one has an odd number of frames"):
        prepare([replace(CLIPS[0], count=5)], root=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {".locks"}


def test_a_flipped_byte_of_a_frame_is_made_anew(inverted: None, tmp_path: Path) -> None:
    said = list[str]()
    with prepare(CLIPS, root=tmp_path) as pairs:
        digest, file = pairs.digest, pairs.encoded[0].with_name("decoded.npy")
    blob = bytearray(file.read_bytes())
    blob[5000] ^= 1
    file.write_bytes(blob)
    with prepare(CLIPS, root=tmp_path, say=said.append) as pairs:
        assert pairs.digest == digest
        assert np.array_equal(pairs.decoded, 255 - pairs.original)
    assert "decoded.npy has other bytes" in said[0]


@encoder
def test_photographs_through_the_real_encoder(tmp_path: Path) -> None:
    training, held = split(["coffee"], of=["moon", "coffee", "rocket"])
    settings = Settings(44, 32, preset=12)
    with (
        prepare(pannings(training, 4, width=96, height=72), settings, root=tmp_path) as train,
        prepare(pannings(held, 2, width=96, height=72), settings, root=tmp_path) as test,
    ):
        assert train.sources == ("moon", "moon", "rocket", "rocket")
        assert test.sources == ("coffee", "coffee")
        assert not set(train.sources) & set(test.sources)
        assert train.encoded_bytes == sum(p.stat().st_size for p in train.encoded)
        error = np.abs(train.decoded.astype(int) - train.original)
        assert 0.5 < error.mean() < 20, "it is another picture, and of the same"
        for i, path in enumerate(train.encoded):
            frames = [av1.resize(f, 96, 72, "bicubic") for f in av1.decode(path.read_bytes())]
            assert np.array_equal(np.stack(frames), train.decoded[2 * i : 2 * i + 2].reshape(-1, 72, 96, 3))
        with prepare(pannings(training, 4, width=96, height=72), settings, root=tmp_path / "b") as again:
            assert again.digest == train.digest != test.digest


def test_the_reader_gives_the_groups_in_order_as_float32_channels_last(pairs: Pairs) -> None:
    asked = [(3, 0), (1,), (4, 2), (0, 0)]
    with Reader(pairs, asked, largest=2) as reader:
        for group, numbers in itertools.zip_longest(reader, asked):
            assert group.pairs == numbers
            for tensor, frames in ((group.original, pairs.original), (group.decoded, pairs.decoded)):
                assert tensor.shape == (2 * len(numbers), 3, 24, 32)
                assert tensor.dtype == torch.float32
                assert tensor.is_contiguous(memory_format=torch.channels_last)
                expected = frames[list(numbers)].reshape(-1, 24, 32, 3).transpose(0, 3, 1, 2)
                assert np.array_equal(tensor.numpy(), expected)
            original, decoded = group.pair(len(numbers) - 1)
            assert torch.equal(original + decoded, torch.full((2, 3, 24, 32), 255.0))
            assert np.array_equal(original.numpy()[1].transpose(1, 2, 0), pairs.original[numbers[-1], 1])


def test_the_next_group_is_read_before_it_is_asked_for_and_no_more_than_that(pairs: Pairs) -> None:
    asked, third = list[int](), threading.Event()

    def groups() -> Iterator[tuple[int]]:
        for i in itertools.cycle(range(5)):
            asked.append(i)
            if len(asked) == 3:
                third.set()
            yield (i,)

    with Reader(pairs, groups(), largest=1, ahead=1) as reader:
        first = next(reader)
        # While the first is in use the second is read and the third waits for buffers.
        assert third.wait(20)
        assert len(asked) == 3
        assert np.array_equal(first.original.numpy()[0].transpose(1, 2, 0), pairs.original[0, 0])
        addresses = {g.original.data_ptr() for g in itertools.islice(reader, 8)} | {first.original.data_ptr()}
        assert len(addresses) == 2, "the buffers are used again"


def test_the_thread_ends_with_the_reader_wherever_it_is_left(pairs: Pairs) -> None:
    def running() -> int:
        return sum(t.name == "reader of pairs" for t in threading.enumerate())

    with Reader(pairs, itertools.cycle([(0,)]), largest=1) as reader:
        assert running() == 1
        next(reader)
    assert running() == 0
    with pytest.raises(StopIteration):
        next(reader)
    with pytest.raises(KeyError), Reader(pairs, itertools.cycle([(0,)]), largest=1) as reader:
        raise KeyError("the training stopped")
    assert running() == 0
    done = Reader(pairs, [(0,)], largest=1)
    assert len(list(done)) == 1
    assert running() == 0, "at the end of the groups nothing has to be closed"


@pytest.mark.parametrize("group", [(5,), (-1,), (), (0, 1, 2)])
def test_a_group_that_cannot_be_read_is_said_where_it_is_asked_for(pairs: Pairs, group: tuple[int, ...]) -> None:
    with Reader(pairs, [(0,), group], largest=2) as reader:
        assert next(reader).pairs == (0,)
        with pytest.raises(ValueError, match="cannot be read"):
            next(reader)
        with pytest.raises(StopIteration):
            next(reader)


def test_what_goes_wrong_in_the_thread_is_raised_in_the_training(pairs: Pairs) -> None:
    def groups() -> Iterator[tuple[int]]:
        yield (0,)
        raise OSError("the disk is gone")

    with Reader(pairs, groups(), largest=1) as reader:
        next(reader)
        with pytest.raises(OSError, match="the disk is gone"):
            next(reader)


def test_a_reader_without_space_is_refused(pairs: Pairs) -> None:
    for largest, ahead in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Reader(pairs, [(0,)], largest=largest, ahead=ahead)
