"""What a kernel brings to a parity run. Everything else in this package knows arrays, digests and numbers only.

An adapter has two halves. One lives in the run's own process: the matrix, the inputs, the float64 reference and the
mutants. The other is called in the process of a side, which is told what to compute and not why. Both build the
*effective input* by themselves, in words, from what they hold in their hands; the digests of the two are compared
before anything else.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from jobs.parity import Params
    from jobs.parity.verdict import Reference

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Inputs:
    """All that a candidate is given.

    Attributes:
        arrays: by name, read-only.
        settings: what JSON can hold.
        files: declared files by name, such as an HKL list.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a candidate gives back.

    Attributes:
        values: the prediction.
        counts: numbers that have to equal the oracle's exactly.
        peer: the same thing computed by the same candidate in another way; where it is given, `values` must equal it
            bit for bit (tiled against untiled).
    """

    values: Array
    counts: Mapping[str, int] = field(default_factory=dict)
    peer: Array | None = None


Function = Callable[[Inputs], Answer]


@dataclass(frozen=True)
class Cell:
    """One batch that a candidate has to work on: hashable, no arrays.

    Attributes:
        case: what is special about it; with dtype and shape it names the cell.
        before: images of a first call that the same function answers before the one that is judged; 0: none.
        options: settings of the kernel, as sorted pairs; values hashable.
    """

    case: str
    dtype: str
    batch: int
    channels: int
    height: int
    width: int
    before: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def size(self) -> int:
        return self.batch * self.channels

    @property
    def shape(self) -> str:
        return f"{self.batch}×{self.channels}×{self.height}×{self.width}"

    def __str__(self) -> str:
        return f"{self.case} {self.dtype} {self.batch}×{self.channels}"


@dataclass(frozen=True)
class Given:
    """One cell, filled: inputs, what is right, and how exactly it must be met.

    Attributes:
        effective: the effective input in canonical words; its SHA-256 is what both sides must agree on.
        tolerance: limit of the local relative error; 0: bit for bit.
        counts: what the candidate's counts must be.
        by_peer: the candidate is held against its own `Answer.peer`, not against the reference.
    """

    inputs: Inputs
    effective: str
    reference: Reference
    tolerance: float
    counts: Mapping[str, int] = field(default_factory=dict)
    by_peer: bool = False

    @property
    def digest(self) -> str:
        return sha256(self.effective)


# (what was given, the mutant's values, the tolerance) -> is this the harm that this very bug does?
Symptom = Callable[[Given, Array, float], bool]


@dataclass(frozen=True)
class Mutant:
    """One bug that somebody's tests let through.

    Attributes:
        trap: the row of the kernel's trap table that it keeps alive; 0: of no table.
        harm: in words, what it does to a result. A mutant that fails in another way was not caught but broken.
        symptom: the same as a check on the arrays.
        cells: where it must be caught.
    """

    name: str
    trap: int
    harm: str
    symptom: Symptom
    cells: tuple[Cell, ...]


Record = Mapping[str, Any]


@dataclass(frozen=True)
class Perturbation:
    """A change of the inputs under which some taps must move.

    Attributes:
        moves: (tap, place, field): each must differ from what it was without the change.
    """

    inputs: Inputs
    moves: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Tapping:
    """Pixels of one cell at which intermediate numbers are compared.

    Attributes:
        pixels: place (edge, centre, ...) -> (slow, fast).
        perturbations: by name.
        records: the oracle's, by name of the perturbation; "" for the inputs as they are.
        tolerance: relative, of the numbers that are no integers.
    """

    inputs: Inputs
    pixels: Mapping[str, tuple[int, int]]
    perturbations: Mapping[str, Perturbation]
    records: Mapping[str, Sequence[Record]]
    tolerance: float


@dataclass(frozen=True)
class Picture:
    """One image of a cell for the figure: values (H, W) over the same pixels.

    Attributes:
        quantity: what the values are.
        relative: local relative error of the candidate.
    """

    title: str
    quantity: str
    input: Array | None
    oracle: Array
    candidate: Array
    relative: Array
    tolerance: float


class Adapter(abc.ABC):
    """A kernel under test.

    Args:
        params: of the run.
        folder: an empty folder for files that the cells need; it stays until the end of the run.
        files: declared inputs of the job by name.
    """

    name: ClassVar[str]

    def __init__(self, params: Params, folder: Path, files: Mapping[str, Path]) -> None:
        self.params = params
        self.folder = folder
        self.files = files

    # In the run's own process.

    @abc.abstractmethod
    def cells(self, candidate: str = "") -> Sequence[Cell]:
        """The matrix of one candidate, quick cells first: of a backend by its name, or of any other."""

    @abc.abstractmethod
    def given(self, cell: Cell) -> Given:
        """Inputs and reference of one cell; the same for the same parameters everywhere."""

    @abc.abstractmethod
    def mutants(self) -> Mapping[str, Mutant]:
        """Known-bad candidates of this kernel by name."""

    def warm(self, cell: Cell) -> Cell | None:
        """The cell whose inputs the same function answers first, if there is one."""
        return None

    def tapped(self) -> Sequence[Cell]:
        """Cells whose intermediate numbers are compared, not only their result."""
        return ()

    def tapping(self, cell: Cell) -> Tapping:
        """What to tap there, and what the oracle says. Called for cells of `tapped` only."""
        raise LookupError(f"{self.name} has no taps")

    # For a dump.

    def dumped(self) -> Cell:
        """The cell that a dump shows."""
        return self.cells()[0]

    def notes(self, cell: Cell) -> dict[str, Any]:
        """What else a dump says about it."""
        return {}

    def has_canvas(self, cell: Cell) -> bool:
        """Do the patches of this cell belong to one picture?"""
        return False

    def canvas(self, cell: Cell, values: Array) -> Array:
        """That picture (H, W), put together from a prediction."""
        raise LookupError(f"{self.name} has no canvas")

    # For external programs: what a command line can name, and what its file of floats must look like.

    placeholders: ClassVar[tuple[str, ...]] = ()
    has_taps: ClassVar[bool] = False

    def told_taps(self, path: Path, pixels: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
        """Records that a program wrote, with the place of each.

        Raises:
            KernelRefused: there are none, or they are no records.
        """
        return []

    def program_shape(self, cell: Cell) -> tuple[int, ...]:
        """The shape of the floats that a program writes."""
        return (cell.batch, cell.channels, cell.height, cell.width)

    def from_program(self, cell: Cell, floats: Array) -> Array:
        """The prediction in them."""
        return floats

    # What pictures of a prediction show.
    quantity: ClassVar[str] = "amplitude"

    def amplitudes(self, values: Array) -> Array:
        """(n, H, W) of a prediction, as pictures show them."""
        return np.abs(values.reshape(-1, *values.shape[-2:])).astype(np.float64)

    def picture(self, cell: Cell, values: Array) -> Picture | None:
        """What the figure can show of a candidate's answer."""
        return None

    # In the process of a side. Static: a side has no parameters and no reference.

    @staticmethod
    @abc.abstractmethod
    def effective(inputs: Inputs) -> str:
        """The effective input in canonical words, from what is really there."""

    @staticmethod
    @abc.abstractmethod
    def load(target: str, threads: int) -> Function:
        """The function of a backend.

        Args:
            target: a name among the kernel's backends.
        """

    @staticmethod
    @abc.abstractmethod
    def spoiled(name: str) -> Function:
        """The function of a mutant."""

    @staticmethod
    @abc.abstractmethod
    def wrapped(function: Callable[..., Any]) -> Function:
        """An outside candidate in its own signature, as a function of inputs."""

    @staticmethod
    def taps(target: str, threads: int, inputs: Inputs, pixels: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
        """Records of the intermediate numbers at some pixels, from a backend's own code path.

        Each has at least `tap`, `place`, `pixel` [slow, fast], `oversample`, `utc` and `values`.
        """
        return []

    @staticmethod
    def fields(record: Record) -> dict[str, Any]:
        """The values of a record by name, nested ones unfolded."""
        return dict(record["values"])


def remembered(frames: Sequence[str]) -> int:
    """How many filled cells to keep at once where frames may be large: some hundred megabytes of references."""
    largest = max((int(h) * int(w) for h, _, w in (f.partition("x") for f in frames)), default=1)
    return max(2, min(32, (1 << 24) // largest))


def described(arrays: Mapping[str, Array], settings: Mapping[str, Any] | None = None) -> str:
    """Canonical words for arrays (dtype, shape, digest of the bytes in C order) and settings, a line each."""
    lines = []
    for name, array in sorted(arrays.items()):
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        whole = hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()
        lines.append(f"{name} {little.dtype.str} {'x'.join(str(n) for n in little.shape)} {whole}")
    lines += [f"{name} {value!r}" for name, value in sorted((settings or {}).items())]
    return "\n".join(lines) + "\n"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
