"""Words of the dose study: its arms and controls, its views, and what one condition of it is.

Light: nothing heavy is imported here, and the reports need no more than this of the design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The seed's three sources of chance. Repetition r of a study adds r to each.
SIMULATION, GROUPING, SUBSAMPLING = 42, 123, 456
SPLITS = ("train", "test")
TRAINED = ("pinn", "supervised")  # arms with a training
# What a trained arm must beat: the same network before its training, and the mean of the training object everywhere.
MUST_BEAT = ("untrained", "mean")
# The network's fixed first layer by itself. It knows the probe and the light, so it is no bar that a training has to
# pass: what a trained arm has over it is what its training adds.
PHYSICS = "physics"
CONTROLS = (*MUST_BEAT, PHYSICS)
ARMS = (*TRAINED, "lsqml")
# LSQML on the training half. That lies beside the test half, with a guard band between: another part of the object.
TRAIN_HALF = "lsqml_train"


@dataclass(frozen=True)
class View:
    """Which scan positions a condition sees, and how they are grouped.

    Attributes:
        overlap: f; centres are at least (1-f)·N apart. None: every position.
        gridsize: a group has gridsize² members.
    """

    name: str
    overlap: float | None
    gridsize: int

    @property
    def members(self) -> int:
        """C, how many patterns a group has."""
        return self.gridsize**2


@dataclass(frozen=True)
class Scan:
    """A raster over the object, each position moved a little.

    Attributes:
        rows, cols: what the positions span along y and x, pixels.
        step: from position to position before they are moved; jitter: by how much at most, along each axis.
        train_fraction: of the rows that the guard band leaves, how much is to train on.
        margin: pixels of object around what the patterns see.
    """

    rows: float
    cols: float
    step: float
    jitter: float
    train_fraction: float = 0.5
    margin: int = 2


@dataclass(frozen=True)
class Condition:
    """One cell of the study: a dose, a view, a repetition.

    Attributes:
        photons: mean a pattern.
        seed: of the simulation; those of grouping and subsampling go with it.
    """

    photons: float
    view: View
    seed: int

    @property
    def name(self) -> str:
        return f"d{dose_word(self.photons)}_{self.view.name}_gs{self.view.gridsize}_s{self.seed}"

    @property
    def grouping_seed(self) -> int:
        return GROUPING + self.seed - SIMULATION

    @property
    def subsampling_seed(self) -> int:
        return SUBSAMPLING + self.seed - SIMULATION


def controls_of(arms: Sequence[str]) -> tuple[str, ...]:
    """Controls that go with these arms: they are for the trained ones."""
    return CONTROLS if any(arm in TRAINED for arm in arms) else ()


def dose_word(photons: float) -> str:
    """A dose as names have it: 1000, never 1e+03."""
    return f"{photons:.0f}" if float(photons).is_integer() else repr(float(photons))
