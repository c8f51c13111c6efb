"""The process of one side: `python -P -m jobs.parity.candidate FOLDER PARENT_PID`.

It is told what to load, where the inputs lie, and where the answers go; not what is expected, nor why it is in the
run. The environment was set before this process began, so that it is in force before the first import; what was
really in force is reported back, and so is the effective input, built here from what really arrived.
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
from pathlib import Path
from typing import Any

from jobs.parity.adapter import Adapter, Answer, Function, Inputs, sha256
from jobs.parity.exchange import save, take
from jobs.parity.kernels import adapter, device_of

# Variables that change what a numerical library computes or how fast; no others are recorded.
REPORTED = (
    *("TF_XLA_", "TF_ENABLE_", "TF_DETERMINISTIC_", "TF_NUM_", "TF_FORCE_", "XLA_", "KERAS_BACKEND"),
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMEXPR_", "NUMBA_", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_"),
)
PRIVATE = ("NUMBA_CACHE_DIR",)  # another in every run, and empty in each
PACKAGES = ("numpy", "numba", "torch", "tensorflow", "keras")
ANSWERS = "answers"  # folder of reports and arrays, beside the request


def main(folder: Path, parent: int) -> None:
    """Work through the tasks of `folder`/request.json, one report line each."""
    _die_with(parent)
    request = json.loads((folder / "request.json").read_text())
    _limit_threads(request["library"], request["threads"])
    side = _Side(adapter(request["kernel"]), request["threads"], folder / ANSWERS)
    with (folder / ANSWERS / "reports.jsonl").open("a") as reports:
        for task in request["tasks"]:
            report = side.answer(task)
            # Before its line is there, the output is complete: `save` renames.
            reports.write(json.dumps(report) + "\n")
            reports.flush()


class _Side:
    """What one process has built so far."""

    def __init__(self, kernel: type[Adapter], threads: int, answers: Path) -> None:
        self._kernel = kernel
        self._threads = threads
        self._answers = answers
        self._built: dict[str, Function] = {}

    def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        report: dict[str, Any] = {"id": task["id"], "error": None, "device": device_of(task["target"])}
        try:
            if task["pixels"]:
                self._tap(task, report)
            else:
                self._compute(task, report)
        except Exception as error:
            report["error"] = "".join(traceback.format_exception(error))[-8000:]
            report["reason"] = f"{type(error).__name__}: {error}"[:1000]
        report["peak_mb"] = _peak_mb()
        env = sorted(os.environ.items())
        report["env"] = {k: v for k, v in env if k.startswith(REPORTED) and k not in PRIVATE}
        report["versions"] = _versions()
        return report

    def _compute(self, task: dict[str, Any], report: dict[str, Any]) -> None:
        inputs = self._take(task["inputs"], report, "digest")
        if task["before"]:
            # A new function whose first call is the training batch; its later shapes are what is judged.
            function = self._load(task["target"])
            first = function(self._take(task["before"], report, "before_digest"))
            save(self._answers / f"{task['id']}-before.npy", first.values)
        else:
            function = self._built.get(task["target"]) or self._load(task["target"])
            self._built[task["target"]] = function
        begun = time.perf_counter()
        answer = function(inputs)
        report["first_seconds"] = time.perf_counter() - begun
        self._keep(task["id"], answer, report)
        report["seconds"] = min(_timed(function, inputs) for _ in range(task["repeats"]))
        report["evidence"] = _evidence(function)

    def _tap(self, task: dict[str, Any], report: dict[str, Any]) -> None:
        """Records for the inputs as they are and for each perturbation of them."""
        what, _, name = task["target"].partition(":")
        if what != "backend":
            raise LookupError(f"{task['target']} has no taps")
        pixels = {tag: (int(slow), int(fast)) for tag, (slow, fast) in task["pixels"].items()}
        report["taps"] = {}
        for label, place in task["inputs"].items():
            inputs = self._take(place, report.setdefault("digests", {}), label)
            report["taps"][label] = self._kernel.taps(name, self._threads, inputs, pixels)

    def _take(self, place: str, report: dict[str, Any], name: str) -> Inputs:
        inputs = take(Path(place))
        effective = self._kernel.effective(inputs)
        report[name] = sha256(effective)
        return inputs

    def _load(self, target: str) -> Function:
        """`backend:NAME`, `mutant:NAME` or `entry:GROUP:NAME`."""
        how, _, name = target.partition(":")
        if how == "backend":
            return self._kernel.load(name, self._threads)
        if how == "mutant":
            return self._kernel.spoiled(name)
        group, _, name = name.partition(":")
        found = importlib.metadata.entry_points(group=group, name=name)
        if not found:
            raise LookupError(f"no entry point {name!r} in the group {group!r} on {platform.node()}")
        return self._kernel.wrapped(next(iter(found)).load())

    def _keep(self, task: int, answer: Answer, report: dict[str, Any]) -> None:
        if answer.peer is not None:
            save(self._answers / f"{task}-peer.npy", answer.peer)
        report["counts"] = {name: int(count) for name, count in answer.counts.items()}
        save(self._answers / f"{task}.npy", answer.values)


def _timed(function: Function, inputs: Inputs) -> float:
    begun = time.perf_counter()
    function(inputs)
    return time.perf_counter() - begun


def _evidence(function: Function) -> dict[str, Any]:
    """What the function can prove about how it ran.

    Raises:
        RuntimeError: it was asked to compile with XLA and did not.
    """
    tell = getattr(function, "evidence", None)
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
