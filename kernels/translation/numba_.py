"""The fast CPU backend: one pass over the image, in vectors written out in LLVM's own terms.

A vectoriser that is given the four-term formula reads every pixel four times. Here a strip of columns, as wide
as the vector registers hold, walks down the image: each row is read and mixed along x once, kept in registers,
and mixed with the next row along y:

    row(y)  = left·in[y, x+x0] + right·in[y, x+x0+1]
    out[y]  = above·row(y+y0) + below·row(y+y0+1)

The border needs no second pass. `left` and `right` are vectors that hold 0 where the neighbour lies outside, a
row outside is a row of zeros, and the one row of an image whose neighbours would lie before or after the image
in memory is read from a copy with zeros on both sides. So nothing outside an image is ever read.

Sums and products are rounded one by one (no contraction, no reordering): every machine, vector width and
number of threads gives the same bits. Shifts by whole pixels are copies. For other shifts images have to be
finite, as the checked entry makes sure: 0 times NaN would carry a NaN along its row and into the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels import jit
from kernels.devices import thread_count
from kernels.jit import exact
from kernels.translation.shapes import DTYPES, TranslationRefused, check_shapes

Array = npt.NDArray[Any]

# Below this much work a second thread costs more than it brings.
THREAD_BYTES = 2 << 20
# An output from here on fits no cache, so it is written past the caches: the memory is not read first.
STREAM_BYTES = 24 << 20


def translate(images: Array, offsets: Array, *, threads: int = 1) -> Array:
    """Translate (..., H, W) by (..., 2) [x, y] into a new array; float32, float64, complex64 or complex128.

    Raises:
        TranslationRefused: shapes or a dtype that do not fit.
    """
    check_shapes(images.shape, offsets.shape)
    images = np.ascontiguousarray(images)
    return translate_into(images, offsets, _empty(images.shape, images.dtype), threads=threads)


def translate_into(images: Array, offsets: Array, out: Array, *, threads: int = 1) -> Array:
    """Translate into `out`, and return it: nothing of the size of a batch is allocated.

    Args:
        images: (..., H, W), C-contiguous; finite, unless every shift is by whole pixels. Not checked here.
        offsets: (..., 2), finite. Checked, as any other would be an address outside the images.
        out: like `images`, elsewhere in memory. Fastest if it begins at a multiple of 64 bytes.
        threads: each takes its share of the images; the bits do not depend on it.

    Raises:
        TranslationRefused: shapes or dtypes that do not fit, an offset that is not finite, or an `out` that lies
            over `images`.
    """
    check_shapes(images.shape, offsets.shape)
    if images.dtype not in DTYPES:
        raise TranslationRefused(f"numba translates {', '.join(map(str, DTYPES))}, not {images.dtype}")
    if out.shape != images.shape or out.dtype != images.dtype:
        raise TranslationRefused(
            f"out must be like the images, {images.shape} {images.dtype}, not {out.shape} {out.dtype}"
        )
    if not (images.flags.c_contiguous and out.flags.c_contiguous and out.flags.writeable):
        raise TranslationRefused("images and out must be C-contiguous, and out writable")
    if np.may_share_memory(images, out):
        raise TranslationRefused("out lies over the images: a translation cannot be made in place")

    height, width = images.shape[-2:]
    parts = 2 if np.iscomplexobj(images) else 1
    real = images.real.dtype
    given, made = (a.view(real).reshape(-1, height, width * parts) for a in (images, out))
    shifts = np.ascontiguousarray(offsets, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(shifts).all():
        raise TranslationRefused(f"the offset of image {int(np.argwhere(~np.isfinite(shifts))[0, 0])} is not finite")
    stream = bool(out.nbytes >= STREAM_BYTES)

    def share(first: int, last: int) -> None:
        scratch = np.zeros(5 * width * parts + 2 * parts, real)
        _batch(given[first:last], made[first:last], shifts[first:last], parts, scratch, stream)

    count = len(shifts)
    workers = max(1, min(thread_count(threads), count, out.nbytes // THREAD_BYTES))
    if workers == 1:
        share(0, count)
        return out
    cuts = [count * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(share, cuts[:-1], cuts[1:]))
    return out


def make(*, threads: int = 1) -> Any:
    """NumPy in, NumPy out."""
    threads = thread_count(threads)

    def run(images: Array, offsets: Array) -> Array:
        return translate(images, offsets, threads=threads)

    return run


def warm(dtype: str = "complex64") -> float:
    """Seconds it takes to have the code for images of that dtype: compiled, or read from where it was kept."""
    images, offsets = np.zeros((1, 2, 2), dtype), np.full((1, 2), 0.5)
    return jit.warm(lambda: translate(images, offsets))


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`np.empty` on a multiple of 64 bytes: a vector that straddles two cache lines is stored twice."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


# The machine's vectors. LLVM splits a vector that is too wide for the machine, so this is about speed only.


def _vector_bytes() -> int:
    told = numba.config.CPU_FEATURES  # of the user, who may compile for less than this machine can do
    found = set(told.replace("+", "").split(",")) if told else set()
    if not told:
        found = {name for name, there in llvmlite.binding.get_host_cpu_features().items() if there}
    return 64 if "avx512f" in found else 32 if "avx" in found else 16


VECTOR = _vector_bytes()
# Strips of this many vectors: two weights and one row for each have to fit into 32 or 16 registers.
WIDE, MIDDLE = (8, 4) if VECTOR == 64 else (4, 2)

POINTER, I32, I64 = ir.PointerType(), ir.IntType(32), ir.IntType(64)


def _strip(width: int, *, single: bool = False, stream: bool = False) -> Any:
    """The compiler of one strip: `width` vectors wide, from column `at` on, down the image.

    Its arguments are `at` (in numbers), 14 whole numbers and 4 weights (left, right, above, below); the first
    give, addresses in bytes and all else in numbers:
        out, step, count: the first row to write, the bytes from row to row, and how many rows.
        image, rows, first: where row 0 of the image is read for column 0 (this may lie before the image: see
            `guard`), the rows there are, and the one that the first row of `out` has above it.
        guarded, guard, dark: the row that is read at `guard` instead, and where zeros are for rows outside.
        start, many (twice): the columns with a left and with a right neighbour inside.
        following: the bytes from a pixel to its right neighbour.

    Args:
        single: vectors of one number, for images narrower than a vector.
        stream: write past the caches; `out` and `step` have to be multiples of a vector.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def strip(context: Any, at: Any, place: Any, weights: Any) -> Any:
        size = weights.dtype.bitwidth // 8
        lanes = 1 if single else VECTOR // size

        def generate(b: Any, args: Any) -> None:
            numbers, four = (cgutils.unpack_tuple(b, packed) for packed in args[1:])
            _write_strip(b, args[0], numbers, four, size=size, lanes=lanes, width=width, stream=stream)

        return types.void(at, place, weights), _on_memory(generate)

    return strip


def _write_strip(
    b: Any, column: Any, place: Any, four: Any, *, size: int, lanes: int, width: int, stream: bool
) -> None:
    """LLVM code of one strip; the arguments are those of `_strip`."""
    out, step, count, image, rows, first, guarded, guard, dark, *ranges, following = place
    left, right, above, below = four
    offset = b.mul(column, ir.Constant(I64, size))
    out, image, guard = b.add(out, offset), b.add(image, offset), b.add(guard, offset)
    ranges[0], ranges[2] = b.sub(ranges[0], column), b.sub(ranges[2], column)
    real = ir.FloatType() if size == 4 else ir.DoubleType()
    vector, numbers = ir.VectorType(real, lanes), ir.VectorType(I32, lanes)
    steps = [k * lanes for k in range(width)]

    def pointer(address: Any, number: int) -> Any:
        return b.inttoptr(b.add(address, ir.Constant(I64, number * size)), POINTER)

    def spread(value: Any, kind: Any) -> Any:
        none, zeros = ir.Constant(kind, ir.Undefined), ir.Constant(numbers, None)
        return b.shuffle_vector(b.insert_element(none, value, ir.Constant(I32, 0)), none, zeros)

    def weights(value: Any, start: Any, many: Any) -> list[Any]:
        """The weight in `many` columns from `start` on (one unsigned comparison), 0 in the others."""
        value = spread(value, vector)
        start, many = (spread(b.trunc(n, I32), numbers) for n in (start, many))
        columns = (ir.Constant(numbers, [at + lane for lane in range(lanes)]) for at in steps)
        inside = [b.icmp_unsigned("<", b.sub(column, start), many) for column in columns]
        return [b.select(where, value, ir.Constant(vector, None)) for where in inside]

    lefts, rights = weights(left, ranges[0], ranges[1]), weights(right, ranges[2], ranges[3])
    top, bottom = spread(above, vector), spread(below, vector)

    def mixed(row: Any) -> list[Any]:
        """One row of the image, mixed along x."""
        here = b.add(image, b.mul(row, step))
        here = b.select(b.icmp_signed("==", row, guarded), guard, here)
        here = b.select(b.icmp_unsigned("<", row, rows), here, dark)  # a row of -1 is a very large unsigned one
        there = b.add(here, following)
        made = []
        for at, first_weight, second_weight in zip(steps, lefts, rights, strict=True):
            one, other = (b.load(pointer(row_at, at), align=size, typ=vector) for row_at in (here, there))
            made.append(b.fadd(b.fmul(first_weight, one), b.fmul(second_weight, other)))
        return made

    initial = mixed(first)
    before, loop, after = b.block, b.append_basic_block("row"), b.append_basic_block("done")
    b.branch(loop)
    b.position_at_end(loop)
    y, kept = b.phi(I64), [b.phi(vector) for _ in steps]
    onward = b.add(y, ir.Constant(I64, 1))
    new = mixed(b.add(first, onward))
    to = b.add(out, b.mul(y, step))
    for at, upper, lower in zip(steps, kept, new, strict=True):
        value = b.fadd(b.fmul(top, upper), b.fmul(bottom, lower))
        stored = b.store(value, pointer(to, at), align=VECTOR if stream else size)
        if stream:
            stored.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))
    b.cbranch(b.icmp_signed("<", onward, count), loop, after)
    for value, start, again in zip([y, *kept], [ir.Constant(I64, 0), *initial], [onward, *new], strict=True):
        value.add_incoming(start, before)
        value.add_incoming(again, loop)
    b.position_at_end(after)


def _on_memory(generate: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any, Any], Any]:
    """Code for an intrinsic that acts on memory and returns nothing."""

    def wrapped(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        generate(builder, args)
        return context.get_dummy_value()

    return wrapped


@intrinsic  # type: ignore[untyped-decorator]
def _copy(context: Any, to: Any, of: Any, count: Any) -> Any:
    """`count` bytes."""

    def generate(b: Any, args: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, ir.IntType(1)])
        call = b.module.declare_intrinsic("llvm.memcpy", [POINTER, POINTER, I64], kind)
        b.call(call, [b.inttoptr(args[0], POINTER), b.inttoptr(args[1], POINTER), args[2], ir.IntType(1)(0)])

    return types.void(types.intp, types.intp, types.intp), _on_memory(generate)


@intrinsic  # type: ignore[untyped-decorator]
def _zero(context: Any, to: Any, count: Any) -> Any:
    """`count` bytes; all bits 0 is the number 0."""

    def generate(b: Any, args: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [POINTER, ir.IntType(8), I64, ir.IntType(1)])
        call = b.module.declare_intrinsic("llvm.memset", [POINTER, I64], kind)
        b.call(call, [b.inttoptr(args[0], POINTER), ir.IntType(8)(0), args[1], ir.IntType(1)(0)])

    return types.void(types.intp, types.intp), _on_memory(generate)


@intrinsic  # type: ignore[untyped-decorator]
def _fence(context: Any) -> Any:
    """Stores past the caches are not ordered with those of other threads until a fence."""
    return types.void(), _on_memory(lambda b, args: b.fence("seq_cst"))


_wide, _wide_stream, _middle = _strip(WIDE), _strip(WIDE, stream=True), _strip(MIDDLE)
_vector, _number = _strip(1), _strip(1, single=True)


@exact
def _whole(made: int, image: int, height: int, step: int, x: int, y0: int) -> None:
    """A shift by whole pixels is a copy, bit for bit: row y from row y + y0, byte i from byte i + x."""
    top, bottom = max(0, -y0), min(height, height - y0)
    _zero(made, top * step)
    _zero(made + bottom * step, (height - bottom) * step)
    if x == 0:
        _copy(made + top * step, image + (top + y0) * step, (bottom - top) * step)
        return
    start, end = max(0, -x), min(step, step - x)
    for y in range(top, bottom):
        row = made + y * step
        _zero(row, start)
        _copy(row + start, image + (y + y0) * step + start + x, end - start)
        _zero(row + end, step - end)


@exact
def _batch(images: Any, out: Any, shifts: Any, parts: int, scratch: Any, stream: bool) -> None:
    """Every image of a batch: images and out (n, H, W·parts) real, shifts (n, 2) double, scratch 0.

    `scratch` holds, one after the other, a row of zeros (with a pixel to spare), and a row with as many zeros
    before it, and as many and a pixel after it.
    """
    count, height, length = images.shape
    width = length // parts
    size = images.itemsize
    step, pixel = length * size, parts * size
    given, taken, dark = np.intp(images.ctypes.data), np.intp(out.ctypes.data), np.intp(scratch.ctypes.data)
    spare = dark + 2 * step + pixel  # where the guarded row is copied to
    lanes = VECTOR // size
    past = stream and step % VECTOR == 0 and taken % VECTOR == 0
    weights = np.empty(4, images.dtype)

    for k in range(count):
        image, made = given + k * height * step, taken + k * height * step
        tx, ty = shifts[k, 0], shifts[k, 1]
        if abs(tx) >= width or abs(ty) >= height:
            _zero(made, height * step)
            continue
        # Each weight by a subtraction of its own: the small one of 1 - w would keep few digits.
        x0, y0 = math.floor(-tx), math.floor(-ty)
        right, below = -tx - x0, -ty - y0
        left, above = tx - math.floor(tx), ty - math.floor(ty)
        if right == 0 and below == 0:
            _whole(made, image, height, step, x0 * pixel, y0)
            continue

        # Rows with no neighbour inside; the others are made from `top` on.
        top, bottom = max(0, -y0 - 1), min(height, height - y0)
        _zero(made, top * step)
        _zero(made + bottom * step, (height - bottom) * step)
        # Columns with a left neighbour inside, and with a right one.
        l0, l1 = parts * max(0, -x0), parts * min(width, width - x0)
        r0, r1 = parts * max(0, -x0 - 1), parts * min(width, width - x0 - 1)
        guarded = 0 if x0 < 0 else height - 1
        _copy(spare, image + guarded * step, step)
        weights[0], weights[1] = left or 1.0, right
        weights[2], weights[3] = above or 1.0, below
        four = (weights[0], weights[1], weights[2], weights[3])
        to, of, guard = made + top * step, image + x0 * pixel, spare + x0 * pixel
        rows, first = bottom - top, top + y0
        place = (to, step, rows, of, height, first, guarded, guard, dark, l0, l1 - l0, r0, r1 - r0, pixel)

        at = 0
        while length - at >= WIDE * lanes:
            if past:
                _wide_stream(at, place, four)
            else:
                _wide(at, place, four)
            at += WIDE * lanes
        while length - at >= MIDDLE * lanes:
            _middle(at, place, four)
            at += MIDDLE * lanes
        while length - at >= lanes:
            _vector(at, place, four)
            at += lanes
        if at < length and length >= lanes:  # the rest, and again what was made just before it
            _vector(length - lanes, place, four)
            at = length
        while at < length:
            _number(at, place, four)
            at += 1
    if past:
        _fence()
