"""Runs in a process of its own (TensorFlow and torch never meet): `tensorflow_side.py IN.npz OUT.npz`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf

from kernels.translation import build
from kernels.translation.shapes import ShapeMismatch
from kernels.translation.tensorflow_ import translate, translate_nhwc

MODES = ("tensorflow-eager", "tensorflow-graph", "tensorflow-xla")


def main(given: str, out: str) -> None:
    answers: dict[str, Any] = {}
    with np.load(given) as data:
        cases = {name: data[name] for name in data.files}
    for mode in MODES:
        run = build(mode)
        for name in [n.removesuffix(".images") for n in cases if n.endswith(".images")]:
            answers[f"{mode}.{name}"] = run(cases[f"{name}.images"], cases[f"{name}.offsets"])
        answers[f"{mode}.xla"] = np.array(run.evidence()["xla"])  # type: ignore[attr-defined]
        answers[f"{mode}.adjoint"] = adjoint(mode, cases)
    answers["dynamic"] = np.array(dynamic())
    answers["mismatch"] = np.array(mismatch())
    np.savez(out, **answers)


def adjoint(mode: str, cases: dict[str, Any]) -> Any:
    """The gradient of Re<T(x), y> by x, which has to be the transposed stencil applied to y."""
    x, y = tf.constant(cases["grad.x"]), tf.constant(cases["grad.y"])
    offsets = tf.constant(cases["grad.t"])

    def gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(translate(x, offsets) * y)
        return tape.gradient(loss, x)

    if mode == "tensorflow-eager":
        return gradient().numpy()
    return tf.function(gradient, jit_compile=mode == "tensorflow-xla", autograph=False)().numpy()


def dynamic() -> str:
    spec = [tf.TensorSpec((None, 8, 8, 1), tf.complex64), tf.TensorSpec((None, 1, 2, 1), tf.float32)]
    try:
        tf.function(translate_nhwc, input_signature=spec, autograph=False).get_concrete_function()
    except ShapeMismatch as error:
        return str(error)
    return "accepted"


def mismatch() -> str:
    try:
        translate_nhwc(tf.zeros((4, 8, 8, 1)), tf.zeros((128, 1, 2, 1)))
    except ShapeMismatch as error:
        return str(error)
    return "accepted"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
