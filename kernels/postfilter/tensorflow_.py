"""The TensorFlow backend, for parity: the same operator from another library, in its own layout (NHWC)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kernels.postfilter.weights import Weights


def make(weights: Weights, *, threads: int) -> Any:
    """NumPy in, NumPy out. TensorFlow fixes its threads when it starts, so they are not changed here."""
    # A float32 product would otherwise be made of 10-bit numbers where the device offers that.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    layers = [
        (tf.constant(w.transpose(2, 3, 1, 0)), tf.constant(b))
        for w, b in ((weights.w1, weights.b1), (weights.w2, weights.b2), (weights.w3, weights.b3))
    ]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def filtered(frames: Any) -> Any:
        (w1, b1), (w2, b2), (w3, b3) = layers
        hidden = tf.nn.relu(tf.nn.conv2d(frames, w1, 1, "SAME") + b1)
        hidden = tf.nn.relu(tf.nn.conv2d(hidden, w2, 1, "SAME") + b2)
        return tf.clip_by_value(frames + tf.nn.conv2d(hidden, w3, 1, "SAME") + b3, 0.0, 255.0)

    def run(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        given = tf.constant(np.ascontiguousarray(np.moveaxis(frames, 1, -1)))
        return np.ascontiguousarray(np.moveaxis(filtered(given).numpy(), -1, 1))

    return run
