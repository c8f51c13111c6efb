"""The parameters of the postfilter: six tensors, their shapes, and how a new set is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.postfilter.shapes import PostfilterRefused

Array = npt.NDArray[np.float32]
# Far above any useful width, and what 16 bits in the header of a file can hold.
MOST_CHANNELS = 4096


class WeightsRefused(PostfilterRefused):
    """The tensors are no weights of a postfilter."""


def shapes(h: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, (outputs, inputs, 3, 3) and (outputs,), in the order of the operator."""
    return {"w1": (h, 3, 3, 3), "b1": (h,), "w2": (h, h, 3, 3), "b2": (h,), "w3": (3, h, 3, 3), "b3": (3,)}


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of conv 3→h, conv h→h and conv h→3, all float32.

    Raises:
        WeightsRefused: a wrong shape or dtype, or a value that is not finite.
    """

    w1: Array
    b1: Array
    w2: Array
    b2: Array
    w3: Array
    b3: Array

    def __post_init__(self) -> None:
        h = _channels(self.b1)
        for name, shape in shapes(h).items():
            tensor = getattr(self, name)
            if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32:
                what = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
                raise WeightsRefused(f"{name} must be a float32 array, not {what}")
            if tensor.shape != shape:
                raise WeightsRefused(f"{name} must be {shape} where b1 has {h} channels, not {tensor.shape}")
            if not np.isfinite(tensor).all():
                where = tuple(int(i) for i in np.argwhere(~np.isfinite(tensor))[0])
                raise WeightsRefused(f"{name}{list(where)} is not finite: such weights cannot be used")
            object.__setattr__(self, name, np.ascontiguousarray(tensor))

    @property
    def h(self) -> int:
        """The number of hidden channels."""
        return len(self.b1)

    def tensors(self) -> dict[str, Array]:
        """The six tensors by name, in the order of the operator."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def count(self) -> int:
        """9h² + 56h + 3."""
        return sum(tensor.size for tensor in self.tensors().values())

    def flops_per_pixel(self) -> int:
        """Multiplications and additions for one pixel, biases and halos left out: 2·(9h² + 54h)."""
        return 2 * (9 * self.h**2 + 54 * self.h)

    def digest(self) -> str:
        """SHA-256 of h and all values; -0 counts as 0, because the weights are equal."""
        canonical = hashlib.sha256(b"postfilter weights 1 %d\n" % self.h)
        for tensor in self.tensors().values():
            canonical.update((tensor + np.float32(0)).astype("<f4").tobytes())
        return canonical.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Weights):
            return NotImplemented
        return all(np.array_equal(a, b) for a, b in zip(self.tensors().values(), other.tensors().values(), strict=True))

    def __hash__(self) -> int:
        return hash(self.digest())

    @classmethod
    def zeros(cls, h: int) -> Weights:
        """All zero: the identity."""
        return cls.of({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes(_at_least_one(h)).items()})

    @classmethod
    def initial(cls, h: int, seed: int) -> Weights:
        """Step 0 of a training: hidden layers uniform in ±1/sqrt(inputs·9), the last layer zero.

        So the first output is the input. The numbers come from NumPy's PCG64: one seed gives the same weights
        whichever library trains them.
        """
        random = np.random.default_rng(seed)
        tensors = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes(_at_least_one(h)).items()}
        for layer, inputs in (("1", 3), ("2", h)):
            reach = (inputs * 9) ** -0.5
            for kind in "wb":
                tensor = tensors[kind + layer]
                tensor[...] = random.uniform(-reach, reach, tensor.shape)
        return cls.of(tensors)

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Weights:
        """Weights from tensors by name.

        Raises:
            WeightsRefused: a tensor is missing or of no use here, each named.
        """
        names = {field.name for field in fields(cls)}
        if missing := sorted(names - set(tensors)):
            raise WeightsRefused(f"weights without {', '.join(missing)}: there must be {', '.join(sorted(names))}")
        if extra := sorted(set(tensors) - names):
            raise WeightsRefused(f"weights with {', '.join(extra)}, which this operator has not")
        return cls(**tensors)


def _channels(biases: object) -> int:
    if not isinstance(biases, np.ndarray) or biases.ndim != 1 or not 1 <= biases.size <= MOST_CHANNELS:
        what = biases.shape if isinstance(biases, np.ndarray) else type(biases).__name__
        raise WeightsRefused(f"b1 must be (h,) with h from 1 to {MOST_CHANNELS}, not {what}")
    return biases.size


def _at_least_one(h: int) -> int:
    if isinstance(h, bool) or not isinstance(h, int) or not 1 <= h <= MOST_CHANNELS:
        raise WeightsRefused(f"a postfilter has 1 to {MOST_CHANNELS} hidden channels, not {h!r}")
    return h
