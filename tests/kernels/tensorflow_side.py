"""Runs in a process of its own (TensorFlow and torch never meet): `tensorflow_side.py IN.npz OUT.npz`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf

from kernels.translation import build, groups_tensorflow
from kernels.translation.shapes import ShapeMismatch
from kernels.translation.tensorflow_ import translate, translate_nhwc

MODES = ("tensorflow-eager", "tensorflow-graph", "tensorflow-xla")


def main(given: str, out: str) -> None:
    answers: dict[str, Any] = {}
    with np.load(given) as data:
        cases = {name: data[name] for name in data.files}
    for mode in MODES:
        run = build(mode, finite=False)
        for name in [n.removesuffix(".images") for n in cases if n.endswith(".images")]:
            answers[f"{mode}.{name}"] = run(cases[f"{name}.images"], cases[f"{name}.offsets"])
        answers[f"{mode}.xla"] = np.array(run.evidence()["xla"])  # type: ignore[attr-defined]
        answers[f"{mode}.adjoint"], answers[f"{mode}.slope"] = gradients(mode, cases)
    for mode in MODES:  # after all that ask whether XLA compiled them
        answers |= {f"{mode}.{name}": value for name, value in groups(mode, cases).items()}
    answers["dynamic"] = np.array(dynamic())
    answers["mismatch"] = np.array(mismatch())
    np.savez(out, **answers)


def gradients(mode: str, cases: dict[str, Any]) -> Any:
    """Of <T(x), y> by x, which has to be the transposed stencil applied to y, and by the offsets."""
    x, y = tf.constant(cases["grad.x"]), tf.constant(cases["grad.y"])
    offsets = tf.constant(cases["grad.t"])

    def gradient() -> Any:
        with tf.GradientTape() as tape:
            tape.watch((x, offsets))
            loss = tf.reduce_sum(translate(x, offsets) * y)
        return tape.gradient(loss, (x, offsets))

    run = gradient
    if mode != "tensorflow-eager":
        run = tf.function(gradient, jit_compile=mode == "tensorflow-xla", autograph=False)
    return tuple(found.numpy() for found in run())


def groups(mode: str, cases: dict[str, Any]) -> dict[str, Any]:
    """Extraction, reassembly and stitch, in the models' layout; back in the layout of the oracle."""
    given = {name.removeprefix("groups."): value for name, value in cases.items() if name.startswith("groups.")}
    frame, pad, wide = given["patches"].shape[2:], int(given["pad"]), int(given["wide"])
    positions = tf.constant(np.moveaxis(given["positions"], 1, -1)[:, None])

    def everything(canvas: Any, patches: Any, crops: Any) -> tuple[Any, Any, Any]:
        return (
            groups_tensorflow.extract(canvas, positions, frame),
            groups_tensorflow.reassemble(patches, positions, pad=pad, weight=tf.constant(given["weight"])),
            groups_tensorflow.stitch(crops, tf.constant(given["places"]), pad=wide),
        )

    run = everything
    if mode != "tensorflow-eager":
        run = tf.function(everything, jit_compile=mode == "tensorflow-xla", autograph=False)
    patches, merged, picture = run(
        tf.constant(given["canvas"][..., None]),
        tf.constant(np.moveaxis(given["patches"], 1, -1)),
        tf.constant(given["crops"]),
    )
    found = {"extract": np.moveaxis(patches.numpy(), -1, 1), "reassemble": merged.numpy()[..., 0]}
    try:
        groups_tensorflow.reassemble(tf.zeros((2, 8, 8, 4)), positions[:1], pad=pad)
    except ShapeMismatch as error:
        found["mismatch"] = np.array(str(error))
    return {**found, "stitch": picture.numpy()}


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
