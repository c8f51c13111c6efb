"""Which runs may stand beside each other: those whose values are made of the same things, and those that repeat a run.

Two digests go into the table `training`, so that whoever reads the tables alone can tell:

- `value_sha256`: equal where an evaluation value means the same: objective, its weights, its networks, the fixed pairs.
  `alpha` is among the weights: it weighs the term `sal` of an evaluation value too.
- `settings_sha256`: equal where runs differ in their seeds only, so that what differs between them is chance.
"""

from __future__ import annotations

from core.fsio import digest
from jobs.train_kind import TrainParams

SEEDS = ("seed", "weights_seed")
# What changes no number, or only how often one is looked at between the candidates.
_IDLE = ("preview", "cache", "checkpoint_epochs", "checkpoint_seconds")
_WEIGHTS = ("alpha", "sal_weight", "sal_both_frames")
_OF_UPSTREAM = ("seg_weight", "pose_weight", "pose_epsilon")


def value_digest(p: TrainParams, networks: str | None, evaluation: str) -> str:
    """SHA-256 of what an evaluation value of this training is made of.

    Args:
        networks: digest of those that the objective asks; None: none.
        evaluation: digest of the fixed pairs.
    """
    weights = (*_WEIGHTS, *_OF_UPSTREAM) if p.objective == "upstream" else _WEIGHTS
    return digest([p.objective, {name: getattr(p, name) for name in weights}, networks, evaluation])


def settings_digest(p: TrainParams, networks: str | None, data: str, code: str) -> str:
    """SHA-256 of all that this training is made with but its seeds.

    Args:
        data: digest of the frames, those of the fixed pairs among them. code: of the source that decides the numbers.
    """
    given = {name: value for name, value in p.model_dump(mode="json").items() if name not in (*SEEDS, *_IDLE)}
    return digest([given, networks, data, code])
