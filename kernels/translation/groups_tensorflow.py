"""`groups` on TensorFlow tensors: eager, graph and XLA, static shapes, differentiable.

Shapes: patches (B, N, N, C), positions (B, 1, 2, C) [x, y], canvas (B, M, M, 1), flat index b·C+c. A pad is a
number in the shape of the result, so it is given, not found: `groups.even_pad` of the positions at hand finds it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kernels.translation.groups import check_extract, check_group, crop
from kernels.translation.shapes import ShapeMismatch, check_shapes
from kernels.translation.tensorflow_ import translate


def extract(canvas: Any, positions: Any, frame: tuple[int, int]) -> Any:
    """crop(T(canvas, +r_c)): (B, H, W, 1) by (B, 1, 2, C) to (B, *frame, C).

    Raises:
        ShapeMismatch: another number of canvases than groups, or a frame that has no place in the middle.
    """
    spots = _spots(positions)
    shape = canvas.shape.as_list()
    if len(shape) != 4 or shape[3] != 1:
        raise ShapeMismatch(f"canvases must be (B, M, M, 1), not {tuple(shape)}")
    check_extract(shape[:3], spots.shape.as_list(), frame)
    count, height, width, _ = shape
    channels = spots.shape.as_list()[1]
    # Each canvas once for each of its own positions; never one group's canvas for another.
    wide = tf.reshape(tf.broadcast_to(canvas[:, None, ..., 0], (count, channels, height, width)), (-1, height, width))
    moved = translate(wide, tf.reshape(relative(spots), (count * channels, 2)))
    found = crop(tf.reshape(moved, (count, channels, height, width)), frame)
    return tf.transpose(found, (0, 2, 3, 1))


def reassemble(patches: Any, positions: Any, *, pad: int, weight: Any = None) -> Any:
    """The weighted mean of each group's patches at their places: (B, N, N, C) to (B, N + 2·pad, N + 2·pad, 1).

    Args:
        pad: pixels on every side, as many as the largest r_c; what is moved farther is cut off.
        weight: (N, N), real, not negative; 1 everywhere if left out.

    Raises:
        ShapeMismatch: patches and positions that do not belong together, also when a shape is not known.
    """
    spots = _spots(positions)
    shape = patches.shape.as_list()
    if len(shape) != 4:
        raise ShapeMismatch(f"patches must be (B, N, N, C), not {tuple(shape)}")
    count, height, width, channels = shape
    check_group((count, channels, height, width), spots.shape.as_list())
    flat = tf.reshape(tf.transpose(patches, (0, 3, 1, 2)), (count * channels, height, width))
    mean = _mean(flat, weight, tf.reshape(-relative(spots), (count * channels, 2)), pad, count)
    return mean[..., None]


def stitch(crops: Any, positions: Any, *, pad: int) -> Any:
    """The mean of all crops at their places: (n, m, m) by (n, 2) to (m + 2·pad, m + 2·pad).

    Raises:
        ShapeMismatch: crops and positions that do not belong together.
    """
    check_shapes(crops.shape.as_list(), positions.shape.as_list())
    wide = tf.cast(positions, tf.float64)
    return _mean(crops, None, wide - tf.reduce_mean(wide, axis=0), pad, 1)[0]


def relative(positions: Any) -> Any:
    """r_c = -(o_c - mean_C o), for (B, C, 2), in double precision: positions are large, their differences not."""
    wide = tf.cast(positions, tf.float64)
    return -(wide - tf.reduce_mean(wide, axis=1, keepdims=True))


def _mean(images: Any, weight: Any, moves: Any, pad: int, groups: int) -> Any:
    """Σ T(pad(weight·image)) / Σ T(pad(weight)) within each group: (groups·C, H, W) to (groups, H', W')."""
    frame = images.shape.as_list()[1:]
    real = images.dtype.real_dtype
    weight = tf.ones(frame, real) if weight is None else tf.cast(weight, real)
    if weight.shape.as_list() != frame:
        raise ShapeMismatch(f"the weight is {tuple(weight.shape.as_list())}, but a patch is {tuple(frame)}")
    shares = tf.broadcast_to(weight, images.shape)
    around = ((0, 0), (pad, pad), (pad, pad))
    moved = translate(tf.pad(images * _like(shares, images), around), moves)
    weights = translate(tf.pad(shares, around), moves)
    total, per_pixel = (
        tf.reduce_sum(tf.reshape(t, (groups, -1, *moved.shape.as_list()[1:])), axis=1) for t in (moved, weights)
    )
    # Divided by 1 where there is nothing: by 0 would be NaN, and stay so in the gradient.
    lit = per_pixel > 0
    mean = total / _like(tf.where(lit, per_pixel, tf.ones_like(per_pixel)), images)
    return tf.where(lit, mean, tf.zeros_like(mean))


def _like(values: Any, images: Any) -> Any:
    """Real values as complex ones where the images are. The gradient of a cast is the same, with a warning."""
    return tf.complex(values, tf.zeros_like(values)) if images.dtype.is_complex else values


def _spots(positions: Any) -> Any:
    """(B, 1, 2, C) as (B, C, 2)."""
    shape = positions.shape.as_list()
    if len(shape) != 4 or shape[1:3] != [1, 2]:
        raise ShapeMismatch(f"positions must be (B, 1, 2, C), not {tuple(shape)}")
    return tf.transpose(positions[:, 0], (0, 2, 1))
