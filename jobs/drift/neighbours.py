"""What `drift-nn` does: subsets of samples and of held-out images, each to its nearest image of the train split.

Cosines are between images less the mean image of the train split: with a common background every pair is alike.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import write_atomic
from core.kind import Context
from jobs.dose.npz import write_npz
from jobs.drift.given import Images, read_data, read_samples
from jobs.drift.subsets import counts, quotas, stratified
from jobs.drift_kinds.names import DATA, NEAREST, NEAREST_SAID, SAMPLE
from jobs.drift_kinds.nn import NnParams
from kernels.drifting.metrics_nearest import closeness, nearest

SCHEMA = "lab.nearest/1"
SETS = ("samples", "held")


def run(ctx: Context) -> None:
    """Compare both.

    Raises:
        BadInput: what is given cannot be read or does not go together, or there are not so many of each class.
    """
    p: NnParams = ctx.params
    ctx.expect(rows={"drift_nn": len(SETS)}, artifacts=[NEAREST, NEAREST_SAID])
    data, samples = read_data(ctx.input(DATA)), read_samples(ctx.input(SAMPLE))
    if samples.images.images.shape[1:] != data.shape:
        raise BadInput(
            f"samples of {samples.images.images.shape[1:]} and data of {data.shape} cannot be compared",
            hint="give the data that the model was trained on",
        )
    both = {"samples": samples.images, "held": data.held}
    shares = _shares(p, samples.images, data.held)
    mean = data.train.images.astype(np.float64).mean(axis=0)
    known = set(data.train.digests)
    rows: list[dict[str, Any]] = []
    arrays: dict[str, npt.NDArray[Any]] = {}
    for which, images in both.items():
        at = stratified(images.names, images.labels.tolist(), shares, which, p.seed)
        part = images.take(at)
        found = nearest(_flat(part, mean), _flat(data.train, mean))
        said = closeness(found, part.labels, data.train.labels)
        rows.append(
            {
                "which": which,
                "against": "train",
                "n": said.n,
                "n_against": data.train.n,
                "mean": said.mean,
                "median": said.median,
                "p95": said.p95,
                "label_match": said.label_match,
                "seed": p.seed,
                "copies": sum(d in known for d in part.digests),
                "samples": images.sha256,
                "train": data.train.sha256,
                "alpha": samples.alpha if which == "samples" else None,
            }
        )
        arrays |= {
            f"{which}_index": np.asarray(at, dtype=np.int64),
            f"{which}_label": part.labels,
            f"{which}_nearest": found.index,
            f"{which}_nearest_label": data.train.labels[found.index],
            f"{which}_cosine": found.cosine,
        }
        ctx.log(f"{which}: {said.n} against {data.train.n}, p95 {said.p95:.6g}, label match {said.label_match:.3g}")
    write_npz(ctx.artifact(NEAREST), arrays)
    document = {"schema": SCHEMA, "rows": rows, "seed": p.seed, "space": "pixels less the train split's mean"}
    write_atomic(ctx.artifact(NEAREST_SAID), json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    ctx.results("drift_nn", rows)


def _shares(p: NnParams, samples: Images, held: Images) -> dict[int, int]:
    """How many of each class, the same of both."""
    one, other = counts(samples.labels.tolist()), counts(held.labels.tolist())
    both = {label: min(n, other.get(label, 0)) for label, n in one.items()}
    total = sum(both.values())
    n = total if p.n is None else p.n
    if not 0 < n <= total:
        raise BadInput(
            f"n={n}, and of the same classes there are {total} samples and held-out images each",
            hint="ask for fewer, or make more samples",
        )
    return quotas(both, n)


def _flat(images: Images, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((images.images.astype(np.float64) - mean).reshape(images.n, -1))
