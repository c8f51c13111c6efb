"""The inner loop of a 3×3 convolution, written as LLVM vectors for numba: one block of pixels, all taps.

A block is `channels` output channels × `vectors`·`lanes` neighbouring pixels of one row, held in registers
while the sum runs over the input channels and the nine taps. A vector lies along x, so a lane is a pixel:

    acc = bias;  for ci: for ky: for kx: acc = fma(w[ci, ky, kx], in[ci, y + ky, x + kx], acc)

Every pixel gets this chain in this order, whatever block, lane, row, tile or thread it falls into. That is
why tiles equal the whole frame bit for bit: nothing about a pixel's place can change a rounding. LLVM may not
reorder it, because no fast-math flag is set. numba's own vectoriser is not asked: it would have to find the
register tile by luck.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

FLOAT = ir.FloatType()
INDEX = ir.IntType(64)
TAPS = 9


@dataclass(frozen=True)
class Machine:
    """What the vectors are made of here.

    Attributes:
        lanes: float32 numbers in one vector.
        channels: output channels of a hidden layer's register tile; it has up to 3 vectors of each.
        last_vectors: vectors of the last layer's tile; its channels are red, green and blue.
        fused: multiply and add in one rounding. Where the processor has no such instruction it would be a
            call of a library for every product, so there the two are apart, for every pixel alike.
    """

    lanes: int
    channels: int
    last_vectors: int
    fused: bool


def machine(features: Mapping[str, bool] | None = None, architecture: str | None = None) -> Machine:
    """The register tile for a processor; by default the one that numba compiles for.

    Sums, pixels and a weight together just fit the vector registers: 32 of them with AVX-512 and on ARM, else 16.
    """
    has = _features() if features is None else dict(features)
    if (architecture or platform.machine()).lower() in ("aarch64", "arm64"):
        return Machine(lanes=4, channels=8, last_vectors=6, fused=True)
    fused = has.get("fma", False)
    if has.get("avx512f", False):
        return Machine(lanes=16, channels=8, last_vectors=6, fused=fused)
    return Machine(lanes=8 if has.get("avx", False) else 4, channels=4, last_vectors=3, fused=fused)


def block(channels: int, vectors: int, lanes: int, *, fused: bool) -> Any:
    """The intrinsic for one register tile.

    It is called in numba code as `block(dst, dst_plane, row0, row1, row2, src_plane, inputs, w, b, relu)`:
    addresses in bytes of the first output number, of the three input rows at the first tap, of the weights
    (inputs, 9, channels) and of the biases (channels,); `*_plane` is the step between channels in numbers.
    It writes `vectors`·`lanes` numbers per channel and reads two more than that per input row.
    """

    def convolve(
        context: Any,
        dst: Any,
        dst_plane: Any,
        row0: Any,
        row1: Any,
        row2: Any,
        plane: Any,
        n: Any,
        w: Any,
        b: Any,
        r: Any,
    ) -> Any:
        def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            emit = _Emitter(builder, lanes, fused=fused)
            emit.block(channels, vectors, *arguments)
            return ir.Constant(ir.IntType(8).as_pointer(), None)

        return types.void(*(types.int64,) * 9, types.boolean), generate

    return intrinsic(convolve)


class _Emitter:
    """Writes the instructions of a block where the builder stands."""

    def __init__(self, builder: Any, lanes: int, *, fused: bool) -> None:
        self.builder, self.lanes = builder, lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self.fma = (
            cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(self.vector, [self.vector] * 3), f"llvm.fma.v{lanes}f32"
            )
            if fused
            else None
        )

    def block(self, channels: int, vectors: int, dst: Any, dst_plane: Any, *rest: Any) -> None:
        """Biases into the accumulators, the loop over the input channels, then the stores."""
        *rows, plane, inputs, weights, biases, relu = rest
        build = self.builder
        rows = [self.pointer(row) for row in rows]
        weights, biases, dst = self.pointer(weights), self.pointer(biases), self.pointer(dst)
        start = [self.broadcast(self.at(biases, c)) for c in range(channels) for _ in range(vectors)]

        before, loop, after = build.block, build.append_basic_block("inputs"), build.append_basic_block("stores")
        build.branch(loop)
        build.position_at_end(loop)
        step = build.phi(INDEX)
        sums = [build.phi(self.vector) for _ in start]
        ended = self.taps(channels, vectors, rows, build.mul(step, plane), self.step(weights, step, channels), sums)
        following = build.add(step, ir.Constant(INDEX, 1))
        for phi, first, then in [
            (step, ir.Constant(INDEX, 0), following),
            *zip(sums, start, ended, strict=True),
        ]:
            phi.add_incoming(first, before)
            phi.add_incoming(then, loop)
        build.cbranch(build.icmp_signed("<", following, inputs), loop, after)

        build.position_at_end(after)
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        for c in range(channels):
            line = build.gep(dst, [build.mul(dst_plane, ir.Constant(INDEX, c))])
            for v in range(vectors):
                total = ended[c * vectors + v]
                positive = build.select(build.fcmp_ordered(">", total, zero), total, zero)
                place = build.bitcast(self.at(line, v * self.lanes), self.vector.as_pointer())
                build.store(build.select(relu, positive, total), place, align=4)

    def taps(self, channels: int, vectors: int, rows: Any, offset: Any, weights: Any, sums: Any) -> Any:
        """The nine taps of one input channel, in reading order."""
        sums = list(sums)
        for ky, row in enumerate(rows):
            line = self.builder.gep(row, [offset])
            for kx in range(3):
                pixels = [self.load(self.at(line, kx + v * self.lanes)) for v in range(vectors)]
                for c in range(channels):
                    weight = self.broadcast(self.at(weights, (3 * ky + kx) * channels + c))
                    for v, pixel in enumerate(pixels):
                        k = c * vectors + v
                        sums[k] = self.multiply_add(weight, pixel, sums[k])
        return sums

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        if self.fma is not None:
            return self.builder.call(self.fma, [a, b, c])
        return self.builder.fadd(self.builder.fmul(a, b), c)

    def pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, FLOAT.as_pointer())

    def at(self, pointer: Any, index: int) -> Any:
        return self.builder.gep(pointer, [ir.Constant(INDEX, index)])

    def step(self, weights: Any, step: Any, channels: int) -> Any:
        return self.builder.gep(weights, [self.builder.mul(step, ir.Constant(INDEX, TAPS * channels))])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=4)

    def broadcast(self, pointer: Any) -> Any:
        empty = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, self.builder.load(pointer), ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, zeros)


def _features() -> dict[str, bool]:
    """The processor features that numba compiles for: its own setting, or what this machine has."""
    if config.CPU_FEATURES:
        return {name[1:]: name.startswith("+") for name in str(config.CPU_FEATURES).split(",") if name}
    if config.CPU_NAME == "generic":
        return {}
    return dict(llvmlite.binding.get_host_cpu_features())
