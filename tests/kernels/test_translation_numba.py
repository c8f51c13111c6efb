"""The fast CPU backend: every frame and offset against the oracle, and what only it promises."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.translation import ShapeMismatch, TranslationRefused, build, numba_, oracle

ROOT = Path(__file__).resolve().parents[2]
DTYPES = ["float32", "float64", "complex64", "complex128"]
# Narrower than a vector, as wide as one, a little wider, several strips and a rest, many strips.
FRAMES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (16, 11), (12, 16), (20, 31), (64, 64), (10, 130), (4, 513)]
# Another processor's vectors, or none of them: for the compiler, whatever this machine has.
PROCESSORS = {"generic": "+sse2", "haswell": "+avx,+avx2,+fma"}
PRINTS = "from tests.kernels.test_translation_numba import fingerprint; print(fingerprint())"


def images(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else values).astype(dtype)


def offsets(rng: np.random.Generator, height: int, width: int) -> Any:
    """Small, anywhere, beyond the edge, whole along one axis or both, and right at the edges."""
    anywhere = rng.uniform(-1.2, 1.2, (12, 2)) * [width, height]
    half_whole = np.concatenate([anywhere[:6] * [1, 0] + [0, 2], anywhere[6:] * [0, 1] - [1, 0]])
    edge = [[width - 0.5, 0.25], [0.5 - width, -0.25], [0.3, height - 0.5], [0.5, 0.5 - height]]
    far = [[width, 0], [-width, 0.5], [0.5, height], [0, -height], [1e30, 1e-30], [1e-9, -1e-9], [0, 0]]
    return np.concatenate([rng.uniform(-2, 2, (12, 2)), anywhere, half_whole, edge, far])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_every_frame_and_offset_is_the_oracle(frame: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(7)
    shifts = offsets(rng, *frame)
    given = images(rng, (len(shifts), *frame), dtype)
    got, want = numba_.translate(given, shifts), oracle.translate(given, shifts)
    scale = np.abs(oracle.translate(np.abs(given.real) + 1j * np.abs(given.imag), shifts))
    assert got.dtype == given.dtype
    assert not got[scale == 0].any()
    unit = np.finfo(given.dtype).eps / 2
    limit = (8 if unit > 1e-12 else 16) * unit
    assert np.all(np.abs(got - want) <= limit * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_whole_shifts_are_copies_bit_for_bit(frame: tuple[int, int], dtype: str) -> None:
    rng = np.random.default_rng(8)
    shifts = np.round(offsets(rng, *frame).clip(-1e6, 1e6))
    given = images(rng, (len(shifts), *frame), dtype)
    given.reshape(-1)[::5], given.reshape(-1)[::7] = -0.0, np.nan
    assert numba_.translate(given, shifts).tobytes() == oracle.translate(given, shifts).astype(dtype).tobytes()


def test_an_image_is_made_of_its_own_pixels_only() -> None:
    """Its neighbours in memory, NaN here, are never read: not before it, not after it, not for any border."""
    rng = np.random.default_rng(9)
    between = np.full((3, 16, 11), np.nan + 0j, "complex64")
    between[1] = images(rng, (16, 11), "complex64")
    for shift in offsets(rng, 16, 11):
        alone = numba_.translate(between[1:2].copy(), shift[None])
        assert numba_.translate(between, np.array([[0, 0], shift, [0, 0]]))[1].tobytes() == alone[0].tobytes()
        assert np.isfinite(alone).all()


def test_threads_and_large_batches_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    given, shifts = images(rng, (300, 64, 64), "complex64"), rng.uniform(-9, 9, (300, 2))
    want = numba_.translate(given, shifts).tobytes()
    assert build("numba", threads=3)(given, shifts).tobytes() == want
    # Written past the caches, as a batch that fits none of them is; also where that cannot be.
    monkeypatch.setattr(numba_, "STREAM_BYTES", 0)
    assert numba_.translate(given, shifts).tobytes() == want
    room = np.empty(given.size * 8 + 64, np.uint8)
    unaligned = room[(-room.ctypes.data % 64) + 4 :][: given.size * 8].view("complex64").reshape(given.shape)
    assert numba_.translate_into(given, shifts, unaligned, threads=2).tobytes() == want


def test_into_writes_where_it_is_told_and_nothing_else() -> None:
    rng = np.random.default_rng(11)
    given, shifts = images(rng, (2, 3, 9, 10), "float32"), rng.uniform(-9, 9, (2, 3, 2))
    room = np.full((4, 3, 9, 10), 5, "float32")
    out = numba_.translate_into(given, shifts, room[1:3])
    assert out.base is room
    assert (room[[0, 3]] == 5).all()
    assert room[1:3].tobytes() == numba_.translate(given, shifts).tobytes()


def test_images_that_are_not_laid_out_in_order_are_taken_too() -> None:
    rng = np.random.default_rng(12)
    given, shifts = images(rng, (11, 16, 6), "complex64").transpose(2, 1, 0), rng.uniform(-3, 3, (6, 2))
    assert numba_.translate(given, shifts).tobytes() == numba_.translate(given.copy("C"), shifts).tobytes()
    given.flags.writeable = False
    numba_.translate(given, shifts.astype("float32")[::-1])


def test_what_does_not_fit_is_refused() -> None:
    given, shifts = np.zeros((2, 8, 8), "complex64"), np.zeros((2, 2))
    with pytest.raises(ShapeMismatch, match="never tiled or repeated"):
        numba_.translate_into(given, shifts[:1], np.empty_like(given))
    with pytest.raises(TranslationRefused, match="out must be like the images"):
        numba_.translate_into(given, shifts, np.empty((2, 8, 8), "complex128"))
    with pytest.raises(TranslationRefused, match="made in place"):
        numba_.translate_into(given, shifts, given)
    with pytest.raises(TranslationRefused, match="C-contiguous"):
        numba_.translate_into(given, shifts, np.empty_like(given).transpose(0, 2, 1))
    for bad in (np.nan, np.inf):  # an address computed from it would be anywhere
        with pytest.raises(TranslationRefused, match="the offset of image 1 is not finite"):
            numba_.translate(given, np.array([[0, 0], [0, bad]]))
    with pytest.raises(TranslationRefused, match="not float16"):
        numba_.translate(given.real.astype("float16"), shifts)
    with pytest.raises(ValueError, match="at least 1 thread"):
        build("numba", threads=0)


def test_compiling_is_measured_apart() -> None:
    assert numba_.warm("float32") > 0
    compiled = len(numba_._batch.signatures)  # type: ignore[attr-defined]
    numba_.warm("complex64")  # the same code: real and imaginary parts are numbers in a row
    numba_.translate(np.ones((3, 70, 50), "float32"), np.ones((3, 2), "float32") / 3)
    assert len(numba_._batch.signatures) == compiled  # type: ignore[attr-defined]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the processors named are x86-64")
@pytest.mark.parametrize("processor", list(PROCESSORS))
def test_every_processor_gives_the_same_bits(processor: str) -> None:
    env = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": PROCESSORS[processor]}
    env |= {"PYTHONPATH": str(ROOT), "LAB_NO_COMPILE_CACHE": "1"}
    told = subprocess.run([sys.executable, "-c", PRINTS], env=env, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == fingerprint()


def fingerprint() -> str:
    rng, digest = np.random.default_rng(5), hashlib.sha256()
    for frame in ((16, 11), (32, 40), (5, 3)):
        for dtype in ("complex64", "complex128"):
            given, shifts = images(rng, (12, *frame), dtype), rng.uniform(-9, 9, (12, 2))
            digest.update(numba_.translate(given, shifts).tobytes())
    return digest.hexdigest()
