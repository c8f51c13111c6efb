"""What Keras has no words for, on TensorFlow: a group's canvas, and a step with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kernels.translation import groups_tensorflow


def settle(threads: int) -> None:
    """So many threads, and algorithms that give the same bits every time. Before anything is computed."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")
    tf.config.experimental.enable_op_determinism()


def averager(weight: Any, pad: int) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A function of patches (B, N, N, C) of groups at (B, 1, 2, C): each group's canvas, cut into its patches again."""

    # Compiled: as a graph of small operations the translation takes eight times as long. One function for all callers,
    # for each costs seconds to compile.
    @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
    def canvas(re: Any, im: Any, positions: Any) -> tuple[Any, Any]:
        # Positions are given. Their gradient would be the real part of a complex one, as is right; nobody asks for it.
        at = tf.stop_gradient(positions)
        whole = groups_tensorflow.reassemble(tf.complex(re, im), at, pad=pad, weight=weight)
        found = groups_tensorflow.extract(whole, at, tuple(re.shape[1:3]))
        return tf.math.real(found), tf.math.imag(found)

    found: Callable[[Any, Any, Any], tuple[Any, Any]] = canvas
    return found


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one graph; tensors in, tensors out."""
    graph: Callable[..., Any] = tf.function(function, autograph=False)
    return graph


def stepper(loss: Callable[..., Any], weights: Sequence[Any], optimizer: Any) -> Callable[..., Any]:
    """A function of a batch that makes one step and returns the loss before it."""

    def step(*batch: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(*batch)
        optimizer.apply(tape.gradient(value, weights), weights)
        return value

    return compiled(step)


def host(tensor: Any) -> np.ndarray[Any, Any]:
    """As NumPy."""
    found: np.ndarray[Any, Any] = np.asarray(tensor)
    return found
