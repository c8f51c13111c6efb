"""The process of one side: `python -P -m jobs.parity.candidate FOLDER PARENT_PID`.

It is told what to load, which files hold the inputs, and where the outputs go; not what is expected, nor why
it is in the run. The environment was set before this process began, so that it is in force before the first
import; what was really in force is reported back.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.parity.exchange import digest, load, save

# Variables that change what a numerical library computes or how fast; no others are recorded.
REPORTED = (
    *("TF_XLA_", "TF_ENABLE_", "TF_DETERMINISTIC_", "TF_NUM_", "TF_FORCE_", "XLA_", "KERAS_BACKEND"),
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_"),
)
PACKAGES = ("numpy", "torch", "tensorflow", "keras")

Translate = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]


def main(folder: Path, parent: int) -> None:
    """Work through the tasks of `folder`/request.json, one report line each."""
    _die_with(parent)
    request = json.loads((folder / "request.json").read_text())
    _limit_threads(request["library"], request["threads"])
    built: dict[str, Translate] = {}
    with (folder / "reports.jsonl").open("a") as reports:
        for task in request["tasks"]:
            report = _answer(task, folder, built)
            # Before its line is there, the output is complete: `save` renames.
            reports.write(json.dumps(report) + "\n")
            reports.flush()


def load_target(target: str) -> Translate:
    """`backend:NAME`, `mutant:NAME` or `entry:GROUP:NAME`."""
    how, _, name = target.partition(":")
    if how == "backend":
        from kernels.translation import build

        return build(name)
    if how == "mutant":
        from jobs.parity.mutants import MUTANTS

        return MUTANTS[name].translate
    group, _, name = name.partition(":")
    found = importlib.metadata.entry_points(group=group, name=name)
    if not found:
        raise LookupError(f"no entry point {name!r} in the group {group!r} on {platform.node()}")
    loaded: Translate = next(iter(found)).load()
    return loaded


def _answer(task: dict[str, Any], folder: Path, built: dict[str, Translate]) -> dict[str, Any]:
    report: dict[str, Any] = {"id": task["id"], "error": None}
    try:
        images, offsets = load(Path(task["images"])), load(Path(task["offsets"]))
        report["digest"] = digest(images, offsets)
        if task["before"]:
            # A new function whose first call is the training batch; its later shapes are what is judged.
            translate = load_target(task["target"])
            first = [load(Path(p)) for p in task["before"]]
            report["before_digest"] = digest(*first)
            translate(*first)
        else:
            translate = built.get(task["target"]) or built.setdefault(task["target"], load_target(task["target"]))

        begun = time.perf_counter()
        out = np.asarray(translate(images, offsets))
        report["first_seconds"] = time.perf_counter() - begun
        save(folder / f"{task['id']}.npy", out)
        report["seconds"] = min(_timed(translate, images, offsets) for _ in range(task["repeats"]))
        report["evidence"] = _evidence(translate)
    except Exception as error:
        report["error"] = "".join(traceback.format_exception(error))[-8000:]
        report["reason"] = f"{type(error).__name__}: {error}"[:1000]
    report["peak_mb"] = _peak_mb()
    report["device"] = "cpu"
    report["env"] = {k: v for k, v in sorted(os.environ.items()) if k.startswith(REPORTED)}
    report["versions"] = _versions()
    return report


def _timed(translate: Translate, images: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> float:
    begun = time.perf_counter()
    translate(images, offsets)
    return time.perf_counter() - begun


def _evidence(translate: Translate) -> dict[str, Any]:
    """What the function can prove about how it ran.

    Raises:
        RuntimeError: it was asked to compile with XLA and did not.
    """
    tell = getattr(translate, "evidence", None)
    told: dict[str, Any] = dict(tell()) if callable(tell) else {}
    if told.get("mode") == "xla" and not told.get("xla"):
        raise RuntimeError("XLA was asked for, but nothing was compiled")
    return told


def _limit_threads(library: str, threads: int) -> None:
    """The variables reach OpenMP; the thread pools of TensorFlow and torch have to be told as well."""
    with contextlib.suppress(ImportError):  # the tasks then say so, each in its report
        if library == "torch":
            import torch

            torch.set_num_threads(threads)
            torch.set_num_interop_threads(threads)
        elif library == "tensorflow":
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if name in sys.modules:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
    return found


def _peak_mb() -> float:
    """Of this program alone: the kernel's rusage would count what the parent held when it forked."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _die_with(parent: int) -> None:
    """Never outlive the run: the kernel kills this process when its parent ends (Linux)."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we could ask
        raise SystemExit("the parity run that started this side is gone")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
