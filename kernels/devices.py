"""Where a kernel may run: how many threads, and which torch device. Refusals are one sentence each.

`KernelRefused` is the root of every refusal in `kernels`, so that a caller can tell "this cannot be computed,
and here is why" from a bug.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class KernelRefused(ValueError):
    """What was asked cannot be computed; nothing was."""


class DeviceMissing(KernelRefused):
    """The device that was asked for is not on this machine."""


def thread_count(threads: int | None) -> int:
    """How many threads a kernel uses: what was asked, or every core this process may run on.

    Asking for more than there are is allowed: a result never depends on it.

    Raises:
        KernelRefused: fewer than one, or not a whole number.
    """
    if threads is None:
        return usable_cores()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise KernelRefused(f"a kernel needs at least 1 thread, not {threads!r}: leave it out to use every core")
    return threads


def usable_cores() -> int:
    """The cores this process may run on, which a scheduler or `taskset` can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on every platform
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def torch_device(name: str) -> torch.device:
    """The torch device of that name: "cpu", "cuda" or "cuda:1".

    Raises:
        KernelRefused: torch has no such kind of device, or the kernels are not written for it.
        DeviceMissing: CUDA was asked for, and this torch or this machine has none, or not that many.
        ImportError: torch is not installed here.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise KernelRefused(f"torch knows no device {name!r}: say cpu, cuda or cuda:1") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise KernelRefused(f"the kernels run on cpu and cuda, not on {name!r}: say cpu, cuda or cuda:1")
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceMissing(
            f"{name} was asked for, but this torch ({torch.__version__}) is built without CUDA: "
            "use the cpu, or install a CUDA build of torch"
        )
    if not torch.cuda.is_available():
        raise DeviceMissing(f"{name} was asked for, but torch finds no CUDA device on this machine: use the cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise DeviceMissing(
            f"{name} was asked for, but this machine has CUDA devices 0 to {torch.cuda.device_count() - 1} only"
        )
    return device
