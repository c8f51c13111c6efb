"""The datasets of one dose: exposed from a true object, or thinned from measured counts.

A stored pattern is sqrt(counts)/scale, with scale = sqrt(mean counts of a training frame)/(N/2): that is X = measured/s
times the normalisation sqrt((N/2)²/mean ΣX²), in which s cancels. Counts are whole, so the same counts give the same
bytes on any machine. The probe is scaled along: X² = |FFT2(P·O)|²/N² holds for what is stored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from jobs.dose.dataset import Dataset
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.sources import Measured
from kernels.diffraction import dose, forward, seeds, split

Array = npt.NDArray[Any]
Complex = npt.NDArray[np.complex64]
Positions = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """What is simulated.

    Attributes:
        object: complex64 (M, M). probe: complex64 (N, N).
        x, y: (n,), positions in the object.
        words: where it comes from.
    """

    object: Complex
    probe: Complex
    x: Positions
    y: Positions
    words: str

    @property
    def size(self) -> int:
        return int(self.probe.shape[0])


@dataclass(frozen=True)
class Made:
    """The datasets of one dose.

    Attributes:
        datasets: by file name without its ending: train and test, or train, half_a and half_b.
        truth: the true object; None for measured data.
        drawn: what was drawn for each dataset.
        leakage: pixels that training and test share, and that each reads; None where nothing is split.
        guard: frames between the two, which nobody gets.
        numbers: s, the deviation of the drawn mean in standard deviations, the fraction that was kept.
    """

    datasets: Mapping[str, Dataset]
    truth: Reconstruction | None
    drawn: Mapping[str, dose.Drawn]
    leakage: split.Leakage | None
    guard: int
    numbers: Mapping[str, float] = field(default_factory=dict)


def expose(scene: Scene, photons: float, *, seed: int, train_fraction: float = 0.5, guard: float | None = None) -> Made:
    """Draw the patterns of both halves of the scan.

    Args:
        photons: mean per pattern, over both halves.
        seed: of the photons. `Scene.x` and `y` have theirs already.
        train_fraction, guard: see `split.y_split`.

    Raises:
        BadInput: a half without a frame, or training and test patches that share pixels.
    """
    train, test, between = split_safely(scene.x, scene.y, scene.size, train_fraction=train_fraction, guard=guard)
    leak = split.leakage(scene.x, scene.y, train, test, scene.size)
    frames = np.concatenate([train, test])
    seen = forward.patches(scene.object, scene.x[frames], scene.y[frames], scene.size)
    counts, drawn = dose.draw(forward.amplitude(scene.probe, seen), photons, seeds.noise_chance(seed, photons))
    scale = scale_of(counts[: len(train)])
    probe = (scene.probe.astype(np.complex128) * (drawn.s / scale)).astype(np.complex64)
    digest = digest_of(scene.object)
    datasets, told = {}, {}
    for name, part in (("train", slice(0, len(train))), ("test", slice(len(train), None))):
        told[name] = dose.drawn_of(counts[part], drawn.s, photons)
        datasets[name] = Dataset(
            diffraction=dose.amplitudes(counts[part], 1 / scale),
            object_guess=scene.object,
            probe_guess=probe,
            x=scene.x[frames[part]],
            y=scene.y[frames[part]],
            patches=seen[part].astype(np.complex64),
            scan_index=frames[part],
            meta=_meta(name, photons, told[name], scale, seed, scene.words, digest),
        )
    truth = Reconstruction(
        object=scene.object,
        origin=(0, 0),
        covered=np.ones(scene.object.shape, dtype=np.bool_),
        probe=probe,
        meta={"arm": "truth", "source": scene.words, "truth": digest},
    )
    off = (drawn.photons_mean - photons) / drawn.error
    return Made(datasets, truth, told, leak, len(between), {"s": drawn.s, "deviation": off})


def split_safely(
    x: Positions, y: Positions, size: int, *, train_fraction: float = 0.5, guard: float | None = None
) -> tuple[split.Index, split.Index, split.Index]:
    """`split.y_split`, held against what it is for.

    Raises:
        BadInput: a half is empty, or patches of both halves read the same pixels; with the numbers.
    """
    train, test, between = split.y_split(x, y, size, fraction=train_fraction, guard=guard)
    if not len(train) or not len(test):
        raise BadInput(
            f"a scan of {np.ptp(x):.4g}×{np.ptp(y):.4g} px cannot be split along y with a guard band of {size + 1} px: "
            f"{len(train)} frames to train on, {len(test)} to test on",
            hint="scan more rows",
        )
    leak = split.leakage(x, y, train, test, size)
    if leak.shared:
        raise BadInput(
            f"training and test patches share {leak.shared} pixels of the object: a guard band of {guard:g} px is less "
            f"than a patch of {size}",
            hint=f"leave a band of {size + 1} px",
        )
    return train, test, between


def thinned(measured: Measured, photons: float | None, *, seed: int, half: int = 0) -> Made:
    """All frames of a measured set at a smaller dose, and its photons in two halves that share none.

    Args:
        photons: mean per pattern; None: all that were measured.
        seed: of which are kept.
        half: 1 or 2: `train` is that half; 0: it is both.

    Raises:
        BadInput: more photons are asked for than were measured.
    """
    frames = len(measured.counts)
    had = int(measured.counts.sum()) / frames
    counts, fraction = measured.counts, 1.0
    if photons is not None:
        fraction = photons / had
        if not 0 < fraction <= 1:
            raise BadInput(
                f"{photons:g} photons per pattern cannot be thinned out of {had:.6g} measured ones",
                hint="ask for fewer, or leave photons out for all of them",
            )
        counts, _ = dose.thin(counts, fraction, seeds.thinning_chance(seed, photons, "dose"))
    first, second = dose.thin(counts, 0.5, seeds.thinning_chance(seed, photons, "halves"))
    asked = had if photons is None else photons
    parts = {"train": (counts, first, second)[half], "half_a": first, "half_b": second}
    datasets, told = {}, {}
    for name, part in parts.items():
        wanted = asked if part is counts else asked / 2
        told[name] = dose.drawn_of(part, 1.0, wanted)
        scale = scale_of(part)
        datasets[name] = Dataset(
            diffraction=dose.amplitudes(part, 1 / scale),
            object_guess=np.ones((measured.object_size,) * 2, np.complex64),
            probe_guess=measured.probe,
            x=measured.x,
            y=measured.y,
            scan_index=np.arange(frames, dtype=np.int64),
            meta=_meta(name, wanted, told[name], scale, seed, measured.words, None),
        )
    return Made(datasets, None, told, None, 0, {"s": 1.0, "fraction": fraction})


def scale_of(counts: Counts) -> float:
    """Root of counts for one unit of normalised amplitude: sqrt(mean counts per frame)/(N/2).

    Raises:
        BadInput: there is not one photon.
    """
    total = int(counts.sum())
    if not total:
        raise BadInput("not one photon was drawn", hint="ask for a greater dose")
    return float(math.sqrt(total / len(counts)) / (counts.shape[-1] / 2))


def digest_of(array: Array) -> str:
    """SHA-256 of the shape and the numbers."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(repr(little.shape).encode() + little.tobytes()).hexdigest()


def _meta(
    name: str, photons: float, drawn: dose.Drawn, scale: float, seed: int, words: str, truth: str | None
) -> dict[str, Any]:
    return {
        "split": name,
        "photons": float(photons),
        "photons_drawn": drawn.photons_mean,
        "s": drawn.s,
        "scale": scale,
        "seed": seed,
        "source": words,
        "truth": truth,
    }
