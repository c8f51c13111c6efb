"""Known-bad translations, each a bug that somebody's tests let through. They run in every parity matrix.

NumPy only; each is a candidate like any other, with the same signature, in a process of its own. Which cells must
catch it stands beside it: a mutant that is right there would be no mutant. And beside that what it does to a result:
one that fails in another way was not caught but broken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jobs.parity import verdict
from jobs.parity.adapter import Array, Given, Mutant
from jobs.parity.kernels.translation import TOLERANCE, Case, patches, reference
from jobs.parity.words import Verdict
from kernels.translation import oracle

GROUP = 4  # images that are left once the batch dimension is lost
LARGE = 64  # B·C from which it is lost


def loses_the_batch(images: Array, offsets: Array) -> Array:
    """Reassembly gives (1, C, …) instead of (B, C, …) from B·C = 64 on."""
    moved = _right(images, offsets)
    return moved[:1] if moved.shape[0] * moved.shape[1] >= LARGE else moved


def tiles_the_batch(images: Array, offsets: Array) -> Array:
    """4 images meet 128 offsets, and the images are tiled until the lengths agree."""
    flat, shifts = images.reshape(-1, *images.shape[2:]), offsets.reshape(-1, 2)
    if len(flat) >= LARGE:
        flat = np.tile(flat[:GROUP], (len(shifts) // GROUP, 1, 1))
    return _right(flat, shifts).reshape(images.shape)


def repeats_the_offsets(images: Array, offsets: Array) -> Array:
    """The same from the other side: the offsets of the first group go round and round."""
    shifts = offsets.reshape(-1, 2)
    if len(shifts) >= LARGE:
        shifts = np.tile(shifts[:GROUP], (len(shifts) // GROUP, 1))
    return _right(images, shifts.reshape(offsets.shape))


def repeats_by_zero(images: Array, offsets: Array) -> Array:
    """The repeat factor is 4 // 128 = 0: nothing is left, and nothing complains."""
    factor = max(GROUP, 1) // offsets.reshape(-1, 2).shape[0]
    return np.repeat(_right(images, offsets), factor, axis=0)


def shares_one_image(images: Array, offsets: Array) -> Array:
    """The batch has collapsed: every image is the first one, in the right shape."""
    moved = _right(images, offsets)
    return np.broadcast_to(moved[:1, :1], moved.shape).copy()


def moves_backwards(images: Array, offsets: Array) -> Array:
    """Content moves by -t."""
    return _right(images, -offsets)


def wraps_around(images: Array, offsets: Array) -> Array:
    """What leaves on one side comes back on the other."""
    out = np.empty_like(images)
    for image, moved, (tx, ty) in zip(_flat(images), _flat(out), offsets.reshape(-1, 2).tolist(), strict=True):
        x0, y0 = math.floor(-tx), math.floor(-ty)
        wx, wy = -tx - x0, -ty - y0
        corners = [np.roll(image, (-(y0 + dy), -(x0 + dx)), axis=(0, 1)) for dy in (0, 1) for dx in (0, 1)]
        weights = ((1 - wx) * (1 - wy), wx * (1 - wy), (1 - wx) * wy, wx * wy)
        moved[...] = sum(w * c.astype(np.complex128) for w, c in zip(weights, corners, strict=True))
    return out


def drops_the_last_line(images: Array, offsets: Array) -> Array:
    """The right shift, but the last row and column are 0, even at t = 0."""
    moved = _right(images, offsets).copy()
    moved[..., -1, :] = 0
    moved[..., :, -1] = 0
    return moved


def zeroes_the_border(images: Array, offsets: Array) -> Array:
    """A hard mask: all four borders are 0."""
    moved = drops_the_last_line(images, offsets)
    moved[..., 0, :] = 0
    moved[..., :, 0] = 0
    return moved


def falls_back(images: Array, offsets: Array) -> Array:
    """The whole non-XLA fallback: backwards, and the last row and column gone."""
    return drops_the_last_line(images, -offsets)


def collapses(images: Array, offsets: Array) -> Array:
    """All zeros, of the right shape and dtype. Once filed as "expected at gridsize 1"."""
    return np.zeros_like(images)


SPOILED: dict[str, Callable[[Array, Array], Array]] = {
    "loses-the-batch": loses_the_batch,
    "tiles-the-batch": tiles_the_batch,
    "repeats-the-offsets": repeats_the_offsets,
    "repeats-by-zero": repeats_by_zero,
    "shares-one-image": shares_one_image,
    "moves-backwards": moves_backwards,
    "wraps-around": wraps_around,
    "drops-the-last-line": drops_the_last_line,
    "zeroes-the-border": zeroes_the_border,
    "falls-back": falls_back,
    "collapses": collapses,
}


def mutants(patch: int) -> Mapping[str, Mutant]:
    """All of them, with the cells of this patch size that must catch them."""

    def one(name: str, trap: int, harm: str, symptom: Any, *shapes: tuple[Case, int, int]) -> Mutant:
        return Mutant(name, trap, harm, symptom, tuple(patches(c, "complex64", b, n, patch) for c, b, n in shapes))

    mixed, zero, integer = Case.MIXED, Case.ZERO, Case.INTEGER
    found = (
        one("loses-the-batch", 2, "another shape", _shape, (mixed, 16, 4), (mixed, 32, 4)),
        one("tiles-the-batch", 2, "only the first group is right", _group, (mixed, 16, 4), (mixed, 128, 1)),
        one("repeats-the-offsets", 2, "only the first group is right", _group, (mixed, 32, 4)),
        one("repeats-by-zero", 4, "another shape", _shape, (mixed, 128, 1), (mixed, 32, 4)),
        one("shares-one-image", 2, "every image is the first", _shared, (mixed, 4, 1), (zero, 4, 4)),
        one("moves-backwards", 5, "right for the opposite offsets", _backwards, (mixed, 4, 1), (integer, 4, 4)),
        one("wraps-around", 0, "wrong only where content is missing", _wrapped, (mixed, 4, 1), (integer, 4, 4)),
        one("drops-the-last-line", 5, "wrong only on the border", _border, (mixed, 4, 1), (zero, 4, 1)),
        one("zeroes-the-border", 5, "wrong only on the border", _border, (mixed, 4, 4), (zero, 4, 4)),
        one("falls-back", 5, "backwards, and wrong on the border", _fallen, (mixed, 4, 4), (zero, 4, 4)),
        one("collapses", 8, "nothing but zeros", _nothing, (mixed, 4, 1), (mixed, 32, 4), (zero, 4, 4)),
    )
    return {m.name: m for m in found}


# What each bug does to a result.


def _shape(given: Given, values: Array, tolerance: float) -> bool:
    return values.shape != _want(given).shape


def _group(given: Given, values: Array, tolerance: float) -> bool:
    wrong = np.asarray(_wrong(given, values, tolerance).any(axis=(1, 2)))
    return not wrong[:GROUP].any() and bool(wrong[GROUP:].any())


def _shared(given: Given, values: Array, tolerance: float) -> bool:
    flat = _flat(values)
    return not _wrong(given, values, tolerance)[0].any() and np.array_equal(flat, np.broadcast_to(flat[0], flat.shape))


def _backwards(given: Given, values: Array, tolerance: float) -> bool:
    mirrored = reference(given.inputs.arrays["images"], -given.inputs.arrays["offsets"])
    return verdict.judge(mirrored, values, tolerance).verdict is Verdict.PASS


def _wrapped(given: Given, values: Array, tolerance: float) -> bool:
    images, offsets = given.inputs.arrays["images"], given.inputs.arrays["offsets"]
    whole = np.asarray(_flat(oracle.translate(np.ones(images.shape), offsets)) > 1 - 1e-6)
    # Its own rounding is its own affair: it is no backend.
    wrong = _wrong(given, values, max(tolerance, TOLERANCE["complex64"]))
    return not wrong[whole].any() and bool(wrong[~whole].any())


def _border(given: Given, values: Array, tolerance: float) -> bool:
    wrong = _wrong(given, values, tolerance)
    return not wrong[:, 1:-1, 1:-1].any() and bool(wrong.any())


def _fallen(given: Given, values: Array, tolerance: float) -> bool:
    images, offsets = given.inputs.arrays["images"], given.inputs.arrays["offsets"]
    mirrored = Given(given.inputs, "", reference(images, -offsets), tolerance)
    return _border(mirrored, values, tolerance)


def _nothing(given: Given, values: Array, tolerance: float) -> bool:
    return values.shape == _want(given).shape and not np.any(values)


def _right(images: Array, offsets: Array) -> Array:
    """The right answer in the input's own precision, for the mutants to spoil."""
    return oracle.translate(images, offsets).astype(images.dtype)


def _want(given: Given) -> Array:
    return given.reference.values


def _wrong(given: Given, values: Array, tolerance: float) -> Array:
    """(n, H, W): where the error is above the tolerance."""
    error = np.abs(values - given.reference.values)
    return np.asarray(_flat(~(error <= tolerance * given.reference.scale)))


def _flat(batch: Array) -> Array:
    """(n, H, W); a view."""
    return batch.reshape(-1, *batch.shape[-2:])
