"""Tiles of the postfilter: the same bits as the untiled frame, whatever the tile, the edge and the threads."""

from __future__ import annotations

import threading
import tracemalloc
from functools import cache
from typing import Any

import numpy as np
import pytest

from kernels.postfilter import WHOLE, Weights, apply, build
from kernels.postfilter.numba_ import _share
from kernels.postfilter.oracle import error_bound
from kernels.postfilter.shapes import cut, own_tile
from tests.kernels.test_postfilter import picture, trained

TILES: list[Any] = [64, (96, 160), 200, 33, (7, 7), (874, 1164), (9, 1164), (874, 31), 2000]


@cache
def frame_of_a_dashcam() -> Any:
    """(1, 3, 874, 1164): photographs side by side, so that no two tiles are alike."""
    rows = [mosaic(0), mosaic(1)]
    return np.ascontiguousarray(np.concatenate(rows, axis=2)[:, :, :874, :1164])


def mosaic(turn: int) -> Any:
    base = picture()
    parts = [base, base[:, ::-1, ::-1], base[:, :, :, ::-1]]
    return np.concatenate(parts[turn:] + parts[:turn], axis=3)


@cache
def untiled(h: int) -> Any:
    return apply(frame_of_a_dashcam(), trained(h), backend="numba", tile=WHOLE)


@pytest.mark.parametrize("h", [16, 24, 32, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_frame_of_the_challenge_at_three_tile_sizes(h: int, threads: int) -> None:
    for tile in (200, (96, 160), None):
        got = apply(frame_of_a_dashcam(), trained(h), backend="numba", tile=tile, threads=threads)
        assert got.tobytes() == untiled(h).tobytes(), tile


@pytest.mark.parametrize("tile", TILES)
def test_every_tile_is_the_untiled_frame(tile: Any) -> None:
    for threads in (1, 2):
        got = apply(frame_of_a_dashcam(), trained(16), backend="numba", tile=tile, threads=threads)
        assert got.tobytes() == untiled(16).tobytes()


def test_the_untiled_frame_does_not_depend_on_its_threads() -> None:
    frames, weights = picture()[:, :, :101, :67], trained(9)
    one = apply(frames, weights, backend="numba", tile=WHOLE, threads=1)
    assert one.tobytes() == apply(frames, weights, backend="numba", tile=WHOLE, threads=3).tobytes()


@pytest.mark.parametrize("height", [1, 2, 3, 6, 7, 8, 50])
@pytest.mark.parametrize("width", [1, 2, 5, 15, 16, 17, 46, 49, 97])
def test_small_frames_and_odd_edges(height: int, width: int) -> None:
    frames, weights = np.ascontiguousarray(picture()[:, :, 100 : 100 + height, 180 : 180 + width]), trained(5)
    whole = apply(frames, weights, backend="numba", tile=WHOLE)
    assert (np.abs(whole - apply(frames, weights)) <= error_bound(frames, weights)).all()
    for tile in (None, 7, (8, 20), (11, 7)):
        assert apply(frames, weights, backend="numba", tile=tile).tobytes() == whole.tobytes(), tile


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_a_tile_without_its_neighbours_is_caught(mode: Any) -> None:
    """The mutant: each tile cut out and filled up with zeros, or with its own edge, where a halo belongs."""
    frames, weights = picture()[:, :, :150, :170], trained(16)
    whole = apply(frames, weights, backend="numba", tile=WHOLE)
    mutant = np.empty_like(frames)
    for y0, y1, x0, x1 in cut(150, 170, (64, 96)):
        alone = np.pad(frames[:, :, y0:y1, x0:x1], ((0, 0), (0, 0), (3, 3), (3, 3)), mode=mode)
        mutant[:, :, y0:y1, x0:x1] = apply(alone, weights, backend="numba", tile=WHOLE)[:, :, 3:-3, 3:-3]
    seams = mutant != whole
    assert seams[:, :, 61:67].any()
    assert seams[..., 93:99].any()
    # Where the tile is on the frame's border only a padding of every layer is right, not one of the frame.
    assert seams[:, :, :3].any()
    assert not seams[:, :, 10:50, 10:80].any()


def test_a_halo_of_two_pixels_is_caught() -> None:
    frames, weights = picture()[:, :, :150, :170], trained(16)
    whole = apply(frames, weights, backend="numba", tile=WHOLE)
    for halo, same in ((2, False), (3, True)):
        part = apply(np.ascontiguousarray(frames[:, :, 64 - halo :]), weights, backend="numba", tile=WHOLE)
        assert np.array_equal(part[:, :, halo:], whole[:, :, 64:]) == same


def test_memory_is_bounded_by_the_tile() -> None:
    """Beside the result: three rows of each layer for every thread, whatever the size of the frame."""
    frames, h = frame_of_a_dashcam(), 32
    apply(frames[:, :, :20, :20], trained(h), backend="numba", tile=7)  # compile first

    def peak(tile: Any, threads: int) -> int:
        run = build("numba", trained(h), tile=tile, threads=threads)
        tracemalloc.start()
        try:
            run(frames)
            return tracemalloc.get_traced_memory()[1] - frames.nbytes
        finally:
            tracemalloc.stop()

    for tile in (64, 200):
        rings = 4 * (tile + 6 + 48) * (3 * (3 + 2 * h) + 3)
        for threads in (1, 2):
            assert peak(tile, threads) < threads * rings + 200_000  # the list of tiles, threads
    assert peak(None, 1) < 4 * 660 * (3 * (3 + 2 * h) + 3) + 200_000
    assert peak(WHOLE, 1) > 4 * 2 * h * 874 * 1164  # both hidden layers: it is untiled indeed


def test_frames_of_a_batch_do_not_meet() -> None:
    frames = np.concatenate([picture()[:, :, :80, :90], picture()[:, :, 300:380, 200:290]])
    both = apply(frames, trained(8), backend="numba", tile=40, threads=2)
    for frame, filtered in zip(frames, both, strict=True):
        assert apply(frame[None], trained(8), backend="numba").tobytes() == filtered[None].tobytes()


def test_views_and_read_only_frames_are_taken() -> None:
    wide = picture()
    want = apply(np.ascontiguousarray(wide[:, :, ::2, 1::3]), trained(4), backend="numba")
    frozen = np.ascontiguousarray(wide[:, :, ::2, 1::3])
    frozen.flags.writeable = False
    before = frozen.copy()
    for frames in (wide[:, :, ::2, 1::3], frozen):
        assert apply(frames, trained(4), backend="numba").tobytes() == want.tobytes()
        assert apply(frames, trained(4), backend="numba", tile=WHOLE).tobytes() == want.tobytes()
    np.testing.assert_array_equal(frozen, before)


def test_one_filter_serves_many_callers_at_once() -> None:
    run, frames = build("numba", trained(16), tile=64, threads=2), picture()
    want, got = run(frames).tobytes(), []
    callers = [threading.Thread(target=lambda: got.append(run(frames).tobytes())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert got == [want] * 4


def test_every_job_is_done_once_and_a_failure_is_told() -> None:
    done: list[int] = []
    _share(50, 3, lambda: done.append)
    assert sorted(done) == list(range(50))

    def fail(k: int) -> None:
        if k == 7:
            raise MemoryError("job 7")

    with pytest.raises(MemoryError, match="job 7"):
        _share(20, 2, lambda: fail)


def test_own_tiles_cover_the_frame() -> None:
    for height, width, threads in ((874, 1164, 1), (874, 1164, 2), (1, 1, 4), (2160, 3840, 16), (5, 4000, 3)):
        seen = np.zeros((height, width), dtype=int)
        tiles = cut(height, width, own_tile(height, width, threads))
        for y0, y1, x0, x1 in tiles:
            seen[y0:y1, x0:x1] += 1
        assert (seen == 1).all()
        assert max(x1 - x0 for _, _, x0, x1 in tiles) <= 600


def test_the_identity_is_bit_exact_by_tiles() -> None:
    assert apply(picture(), Weights.initial(16, 3), backend="numba", tile=50).tobytes() == picture().tobytes()
