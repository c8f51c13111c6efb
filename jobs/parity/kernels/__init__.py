"""The kernels that a parity run can hold to account: one adapter module each, looked up by name.

What a submit needs to check parameters stands here and costs nothing to import. A new kernel is an adapter
(`jobs.parity.adapter.Adapter`) in a module of this package, and one line in `OFFERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.parity.adapter import Adapter


@dataclass(frozen=True)
class Offer:
    """What there is of one kernel.

    Attributes:
        backends: those that run on the CPU.
        cuda: backend -> the name of the same on CUDA. What is missing here has no CUDA form, so no cell either.
        adapter: `module:Class`.
        own: parameters that mean something for this kernel only.
    """

    kernel: str
    adapter: str
    backends: tuple[str, ...]
    dtypes: tuple[str, ...]
    default_dtypes: tuple[str, ...]
    cuda: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    default_frames: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All that may be asked for by name."""
        return (*self.backends, *self.cuda.values())


OFFERS: dict[str, Offer] = {
    o.kernel: o
    for o in (
        Offer(
            "translation",
            "jobs.parity.kernels.translation:Translation",
            backends=("numba", "torch", "tensorflow-eager", "tensorflow-graph", "tensorflow-xla"),
            cuda={"torch": "torch-cuda"},
            dtypes=("complex64", "complex128"),
            default_dtypes=("complex64",),
            own=("sizes", "channels", "train", "predict", "patch"),
        ),
        Offer(
            "fcell",
            "jobs.parity.kernels.fcell:Fcell",
            backends=("numba", "torch"),
            cuda={"torch": "torch-cuda"},
            dtypes=("float32",),
            default_dtypes=("float32",),
            default_frames=("64x48",),
            own=("frames", "oversamples", "shapes", "hkl", "pixels"),
        ),
        Offer(
            "postfilter",
            "jobs.parity.kernels.postfilter:Postfilter",
            backends=("numba", "torch", "tensorflow"),
            cuda={"torch": "torch-cuda"},
            dtypes=("float32",),
            default_dtypes=("float32",),
            default_frames=("96x72", "61x83"),
            own=("frames", "widths", "tiles"),
        ),
        Offer(
            "pinn",
            "jobs.parity.kernels.pinn:Pinn",
            backends=("tensorflow", "torch"),
            dtypes=("complex64",),
            default_dtypes=("complex64",),
            default_frames=("32x32",),
            own=("frames",),
        ),
    )
}


def device_of(backend: str) -> str:
    return "cuda" if backend.endswith("-cuda") else "cpu"


def adapter(kernel: str) -> type[Adapter]:
    """The adapter of a kernel. Raises KeyError for a kernel that there is not."""
    module, _, name = OFFERS[kernel].adapter.partition(":")
    found: type[Adapter] = getattr(importlib.import_module(module), name)
    return found
