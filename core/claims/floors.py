"""How much evidence each rung asks for. A claim may be held to more, never to less.

The highest: what the literature asks for (a Fréchet distance of 50,000 samples). Those below: what tells a result from
chance at the size of the data here, and no more is said by them.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.claims.words import Rung

_E, _C, _P = Rung.EXPERIMENTAL, Rung.CLOSEST_FEASIBLE, Rung.PAPER_FAITHFUL

SAMPLES: Mapping[Rung, int] = {_E: 100, _C: 400, _P: 50_000}  # generated and evaluated
STEPS: Mapping[Rung, int] = {_E: 100, _C: 300, _P: 10_000}  # of training
NEIGHBOURS: Mapping[Rung, int] = {_E: 64, _C: 200, _P: 1024}  # samples whose nearest neighbours were looked for
AGAINST: Mapping[Rung, int] = {_E: 128, _C: 512, _P: 10_000}  # training images among which they were looked for
SEEDS: Mapping[Rung, int] = {_E: 1, _C: 3, _P: 3}  # of the spread against which an effect is judged
# What an evaluation with an extractor of this profile may support. What is not here supports a smoke test.
PROFILES: Mapping[str, Rung] = {"proxy": Rung.SMOKE, "cached": _C}


def rung_for(count: float, floors: Mapping[Rung, int]) -> Rung:
    """The highest rung whose floor `count` reaches."""
    reached = [rung for rung, least in floors.items() if count >= least]
    return max(reached, key=lambda r: r.height, default=Rung.SMOKE)


def next_floor(count: float, floors: Mapping[Rung, int]) -> str:
    """What is missing for the rung above, in a phrase."""
    for rung, least in floors.items():
        if count < least:
            return f"{rung} needs {least:,}"
    return ""
