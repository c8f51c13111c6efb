"""Kind `smoke`: a small real training in plain Python, the first work that a lane is given.

It fits a logistic regression to points made from a seed, writes a step row for each epoch, saves a checkpoint and
reads it back, and leaves files whose every byte follows from its nonce, so that the head knows what has to come back.
With a pace it is the background attempt of admission: its steps tell afterwards whether it ever stood still. It needs
nothing but the standard library, and on request it sends numbers to the first GPU and back through the driver alone.

Importing this module loads no pydantic, as with kind `command`.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import random
import socket
import time
from typing import TYPE_CHECKING, Any

from core.errors import JobFailed

if TYPE_CHECKING:
    from core.kind import Context
    from jobs.smoke_kind import Smoke as Smoke

ECHO, SAID = "echo.bin", "smoke.json"
POINTS, FEATURES = 256, 8
RATE = 0.1
_GPU_BYTES = 1 << 20


def run(ctx: Context) -> None:
    """Train for the asked number of epochs.

    Raises:
        JobFailed: the loss does not fall, a checkpoint does not read back, or the GPU does not answer.
    """
    p = ctx.params
    ctx.expect(last_step=p.steps, artifacts=[ECHO, SAID])
    gpu = gpu_echo() if p.gpu else None
    points = made(p.seed)
    weights = [0.0] * (FEATURES + 1)
    first = loss = mean_loss(points, weights)
    begun = time.monotonic()
    ctx.log(f"{POINTS} points, {p.steps} epochs, loss {first:.4f}")
    for step in range(1, p.steps + 1):
        # By the clock of the first step, so that what one step takes does not add up.
        while (left := begun + step * p.pace_s - time.monotonic()) > 0 and not ctx.stopping:
            time.sleep(min(left, 0.2))
        if ctx.stopping:
            ctx.leave()
        loss = epoch(points, weights)
        ctx.metrics(step, loss=loss)
        ctx.progress(step, p.steps)
        if p.checkpoint:
            save(ctx, step, weights, loss)
    if not loss < first:
        raise JobFailed(f"the loss went from {first:.6g} to {loss:.6g}: this machine does not compute as it should")
    ctx.log(f"loss {loss:.4f} after {p.steps} epochs")
    ctx.artifact(ECHO).write_bytes(echo(p.nonce, p.kib << 10))
    said = {"hostname": socket.gethostname(), "pid": os.getpid(), "loss": [first, loss], "weights": weights, "gpu": gpu}
    ctx.artifact(SAID).write_text(json.dumps(said, indent=1) + "\n")


def made(seed: int) -> list[tuple[list[float], int]]:
    """Points and their classes (0, 1), which a plane separates but for one in twenty."""
    rng = random.Random(seed)
    plane = [rng.gauss(0, 1) for _ in range(FEATURES)]
    out = []
    for _ in range(POINTS):
        x = [rng.gauss(0, 1) for _ in range(FEATURES)]
        side = sum(a * b for a, b in zip(x, plane, strict=True)) > 0
        out.append((x, int(side != (rng.random() < 0.05))))
    return out


def epoch(points: list[tuple[list[float], int]], weights: list[float]) -> float:
    """Gradient descent over every point once, in place. Returns the mean loss afterwards."""
    for x, y in points:
        error = _probability(x, weights) - y
        for i, value in enumerate(x):
            weights[i] -= RATE * error * value
        weights[-1] -= RATE * error
    return mean_loss(points, weights)


def mean_loss(points: list[tuple[list[float], int]], weights: list[float]) -> float:
    """Mean cross entropy in nats."""
    total = 0.0
    for x, y in points:
        p = min(max(_probability(x, weights), 1e-12), 1 - 1e-12)
        total -= math.log(p if y else 1 - p)
    return total / len(points)


def _probability(x: list[float], weights: list[float]) -> float:
    z = weights[-1] + sum(a * b for a, b in zip(x, weights, strict=False))
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def save(ctx: Context, step: int, weights: list[float], loss: float) -> None:
    """A checkpoint that is read back at once, as a later attempt would."""
    with ctx.save_checkpoint(step, loss=loss) as folder:
        (folder / "weights.json").write_text(json.dumps(weights))
    found = ctx.load_checkpoint()
    if found is None or found.step != step or json.loads((found.path / "weights.json").read_text()) != weights:
        raise JobFailed(f"the checkpoint of step {step} does not read back as it was written")


def echo(nonce: str, size: int) -> bytes:
    """`size` bytes that only somebody who knows `nonce` can tell."""
    out = bytearray()
    count = 0
    while len(out) < size:
        out += hashlib.sha256(f"{nonce}:{count}".encode()).digest()
        count += 1
    return bytes(out[:size])


def gpu_echo() -> dict[str, Any]:
    """Send bytes to the first GPU that we may see and back, by the driver's own library.

    Raises:
        JobFailed: there is no driver, no GPU, or the bytes come back changed.
    """
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise JobFailed("no GPU was granted", hint="submit with --gpus 1")
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise JobFailed(f"the GPU's driver cannot be loaded: {error}", hint="install it, or set gpus: 0") from None

    def call(name: str, *args: Any) -> None:
        code = getattr(cuda, name)(*args)
        if code:
            raise JobFailed(f"the GPU's driver answered {name} with error {code}", hint="run nvidia-smi on the lane")

    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    name = ctypes.create_string_buffer(128)
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, len(name), device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        call("cuCtxSetCurrent", context)
        size = ctypes.c_size_t(_GPU_BYTES)
        there, back = os.urandom(_GPU_BYTES), ctypes.create_string_buffer(_GPU_BYTES)
        call("cuMemAlloc_v2", ctypes.byref(memory), size)
        call("cuMemcpyHtoD_v2", memory, there, size)
        call("cuMemcpyDtoH_v2", back, memory, size)
        call("cuMemFree_v2", memory)
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(device)
    if back.raw != there:
        raise JobFailed("bytes come back changed from the GPU", hint="this GPU or its driver is broken")
    return {"name": name.value.decode("utf-8", "replace"), "bytes": _GPU_BYTES}


LIGHT = {"Smoke": run}


def __getattr__(name: str) -> Any:
    if name == "Smoke":
        from jobs.smoke_kind import Smoke

        return Smoke
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
