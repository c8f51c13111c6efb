"""The golden loss guard: a training must not end worse than the one a person declared golden.

A golden is the model.json of a training that a person looked at and found good; fetching it is what promotes it:

    lab fetch JOB -o out
    lab run dose-train ... --set golden=out/artifacts/model.json
    mkdir goldens && cp out/artifacts/model.json goldens/d1000_dense_gs2_s42_pinn.json      # CONDITION_ARM.json
    lab submit dose --set goldens=goldens                                         # every training that has one there
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadInput

TOLERANCE = 0.25


@dataclass(frozen=True)
class Verdict:
    """Did it pass, and a sentence with the numbers."""

    ok: bool
    why: str


def guard(candidate: float | None, reference: float | None, tolerance: float = TOLERANCE) -> Verdict:
    """candidate ≤ reference + tolerance·|reference|. What is missing or not finite fails.

    A loss may be negative, so a limit of reference·(1 + tolerance) would lie on the wrong side.

    Raises:
        ValueError: a tolerance that is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"a tolerance is finite and not negative, not {tolerance}")
    for name, value in (("loss", candidate), ("golden loss", reference)):
        if value is None:
            return Verdict(False, f"the {name} is missing")
        if not math.isfinite(value):
            return Verdict(False, f"the {name} is {value}, which is not finite")
    assert candidate is not None
    assert reference is not None
    limit = reference + tolerance * abs(reference)
    said = f"the loss {candidate:.6g} against the golden {reference:.6g}, limit {limit:.6g}"
    return Verdict(candidate <= limit, said)


def golden_loss(path: Path, condition: dict[str, object]) -> float | None:
    """The `final_loss` of a golden, which must be of the same condition; None: it says none.

    Raises:
        BadInput: it is no manifest, or belongs to another condition.
    """
    hint = "a golden is the model.json of a good training of the same condition"
    try:
        found = json.loads(path.read_text())
        own = dict(found["condition"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read as a golden: {type(error).__name__}: {error}", hint=hint) from None
    for name, wanted in condition.items():
        if own.get(name) != wanted:
            raise BadInput(f"{path} is a golden of {name}={own.get(name)!r}, and this is {wanted!r}", hint=hint)
    loss = found.get("final_loss")
    return float(loss) if isinstance(loss, (int, float)) and not isinstance(loss, bool) else None
