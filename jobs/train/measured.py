"""What a training has measured and the course it took so far: it goes into every checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs.train.evaluate import Candidate, Quality, choose
from jobs.train.figure import Curves
from jobs.train.loop import StepRow
from jobs.train.state import StateRefused
from kernels.postfilter.quantised import Quantised, decode, encode

MEASURED, BEST = "measured.json", "best.int8"


@dataclass
class Course:
    """The sums of each epoch's steps, for the curves: a step counts once, however often it was interrupted.

    Attributes:
        terms: their names.
        epochs: epoch -> [steps, training value, rate, each term].
    """

    terms: list[str] = field(default_factory=list)
    epochs: dict[int, list[float]] = field(default_factory=dict)

    def add(self, row: StepRow) -> None:
        self.terms = [*row.terms]
        sums = self.epochs.setdefault(row.epoch, [0.0] * (3 + len(self.terms)))
        for at, value in enumerate((1.0, row.value, row.rate, *row.terms.values())):
            sums[at] += value

    def curves(self) -> Curves:
        """The means of each epoch."""
        found = sorted(self.epochs.items())

        def means(at: int) -> tuple[float, ...]:
            return tuple(sums[at] / sums[0] for _, sums in found)

        terms = {name: means(3 + i) for i, name in enumerate(self.terms)}
        return Curves(tuple(e for e, _ in found), means(1), terms, means(2), int(sum(s[0] for _, s in found)))


@dataclass
class Measured:
    """What was measured so far.

    Attributes:
        decoded, unsharp: what every candidate must better.
        best: the int8 weights of the candidate that would be chosen now.
    """

    decoded: Quality | None = None
    unsharp: Quality | None = None
    candidates: list[Candidate] = field(default_factory=list)
    course: Course = field(default_factory=Course)
    best: Quantised | None = None

    def add(self, candidate: Candidate, shipped: Quantised) -> None:
        self.candidates.append(candidate)
        if not math.isfinite(candidate.quality.value):
            return
        if choose(self.candidates) is candidate:
            self.best = shipped

    def went(self, rows: Sequence[StepRow]) -> None:
        """These steps were made."""
        for row in rows:
            self.course.add(row)

    def save(self, folder: Path) -> None:
        (folder / MEASURED).write_text(json.dumps({**asdict(self), "best": None}))
        if self.best is not None:
            (folder / BEST).write_bytes(encode(self.best))

    @classmethod
    def load(cls, folder: Path) -> Measured:
        """Raises StateRefused: it is not whole."""
        try:
            said = json.loads((folder / MEASURED).read_text())
            others = {n: Quality(**said[n]) if said[n] else None for n in ("decoded", "unsharp")}
            found = [Candidate(**{**c, "quality": Quality(**c["quality"])}) for c in said["candidates"]]
            course = Course(said["course"]["terms"], {int(e): sums for e, sums in said["course"]["epochs"].items()})
            best = decode((folder / BEST).read_bytes(), BEST) if (folder / BEST).exists() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateRefused(f"{folder} does not say what was measured ({error})") from None
        return cls(others["decoded"], others["unsharp"], found, course, best)
