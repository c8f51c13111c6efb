"""What the drift studies take their images from, and the profile of evaluation; shared parameters. Light."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import BadInput
from core.kind import Params
from jobs.drift_kinds.data import DIGITS, NOISE, DriftDataParams


class SourceParams(Params):
    """See each field. What is left out is as drift-data and drift-train have it."""

    source: str = Field(DIGITS, description="digits, noise (a control), or a folder of images, a subfolder a class")
    side: int | None = Field(None, ge=4, le=128, description="px, to which a folder's images are brought [as they are]")
    colour: bool = Field(False, description="of a folder: three channels")
    reference: int = Field(500, ge=2, description="images that samples are compared with")
    held: int = Field(500, ge=2, description="images that stand in for samples: the floor of every distance")
    profile: Literal["proxy", "cached"] = Field(
        "cached", description="of the evaluation: proxy is a random extractor, and supports a smoke test only"
    )
    steps: int | None = Field(None, ge=1, le=1_000_000, description="of each training [as drift-train has it]")

    @field_validator("source")
    @classmethod
    def _absolute(cls, value: str) -> str:
        return value if value in (DIGITS, NOISE) else str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _as_data(self) -> SourceParams:
        DriftDataParams(**self.data())  # says what does not go together
        return self

    @property
    def named(self) -> str:
        """The source in a word."""
        return self.source if self.source in (DIGITS, NOISE) else Path(self.source).name

    def check(self) -> None:
        """Hold the source against the splits, before anything is submitted.

        Raises:
            BadInput: there is no such folder, or too few images lie in it.
        """
        if self.source in (DIGITS, NOISE):
            return
        from jobs.drift.sources import listed

        count = {name: len(files) for name, files in listed(Path(self.source)).items()}
        if sum(count.values()) <= self.reference + self.held:
            raise BadInput(
                f"source={self.source} has {sum(count.values())} images of {len(count)} classes, and reference="
                f"{self.reference} and held={self.held} leave none of them to train on",
                hint="give a smaller reference and held, e.g. a quarter of the images each",
            )

    def data(self) -> dict[str, Any]:
        """Parameters of drift-data."""
        names = ("source", "side", "colour", "reference", "held")
        fields = DriftDataParams.model_fields
        return {n: getattr(self, n) for n in names if getattr(self, n) != fields[n].default}


def filtered(what: str, asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `known` that are asked for, in its order.

    Raises:
        BadInput: one that is asked for is not there.
    """
    asked, known = list(asked), list(known)
    for name in asked:
        if name not in known:
            raise BadInput(f"{what}: there is no {name!r}", hint=f"there are: {', '.join(known)}")
    return [name for name in known if name in asked]


def counted(n: int, word: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {word}{'' if n == 1 else 's'}"
