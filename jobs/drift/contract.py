"""The evaluation contract: what a number was measured with, as one document and its hash.

The hash that a document states is never used: whoever reads it computes it again from the payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import write_atomic
from jobs.dose.npz import read_npz
from jobs.drift.digests import arrays_sha256, payload_sha256
from jobs.drift.extractor_net import Weights
from jobs.drift.given import Data, read_document
from jobs.drift_kinds.names import CONTRACT, REFERENCE, WEIGHTS

SCHEMA = "lab.eval-contract/1"
# Draws of every evaluation under a contract (see `jobs.drift.subsets`): their words and seed.
ORDER, FLOOR, DRAW_SEED = "inception", "floor", 0
ARRAYS = ("features", "probabilities", "labels")  # of reference.npz


@dataclass(frozen=True)
class Contract:
    """Attributes: payload: what it says; stated: the hash that stands beside it, as it was found."""

    payload: Mapping[str, Any]
    stated: str

    @property
    def sha256(self) -> str:
        """Of the payload's canonical form, computed."""
        return payload_sha256(self.payload)

    @property
    def profile(self) -> str:
        return str(self.payload.get("profile"))

    @property
    def is_splits(self) -> int:
        """Raises BadInput: it names none."""
        metrics = self.payload.get("metrics")
        score = metrics.get("inception_score") if isinstance(metrics, dict) else None
        splits = score.get("splits") if isinstance(score, dict) else None
        if not isinstance(splits, int) or isinstance(splits, bool) or splits < 1:
            raise BadInput("the contract names no number of splits", hint="make it with drift-extractor")
        return splits


@dataclass(frozen=True)
class Extractor:
    """What a drift-extractor job left. Attributes: reference: features, probabilities and labels of that split."""

    weights: Weights
    contract: Contract
    reference: Mapping[str, npt.NDArray[Any]]

    @property
    def reference_sha256(self) -> str:
        """Of the reference statistics' content."""
        return arrays_sha256(self.reference)


def payload_of(
    profile: str,
    weights: Weights,
    data: Data,
    reference: Mapping[str, npt.NDArray[Any]],
    *,
    seed: int,
    is_splits: int,
) -> dict[str, Any]:
    """What a contract over these says."""
    metrics: dict[str, Any] = {
        "fid": {"estimator": "unbiased-cov nuclear"},
        "inception_score": {"splits": is_splits, "std": "population", "order": [ORDER, DRAW_SEED]},
        "floor": {"control": "held", "choice": [FLOOR, DRAW_SEED]},
    }
    if profile == "cached":
        metrics["accuracy"] = {"classifier": "the extractor's head"}
    return {
        "schema": SCHEMA,
        "profile": profile,
        "seed": seed,
        "extractor_sha256": weights.sha256,
        "architecture": weights.architecture(),
        "head": "trained" if profile == "cached" else "random",
        "preprocessing": preprocessing_of(data),
        "feature_dim": weights.feature_dim,
        "classes": data.classes,
        "metrics": metrics,
        "data_sha256": data.sha256,
        "reference_sha256": data.reference.sha256,
        "reference_n": data.reference.n,
        "reference_features_sha256": arrays_sha256(reference),
    }


def preprocessing_of(data: Data) -> dict[str, Any]:
    """What images are when the extractor gets them. side: one number of squares, else [height, width]."""
    height, width, channels = data.shape
    return {"range": [-1, 1], "side": height if height == width else [height, width], "channels": channels}


def write_contract(path: Path, payload: Mapping[str, Any]) -> str:
    """Write the document. Returns its hash."""
    sha256 = payload_sha256(payload)
    write_atomic(path, json.dumps({"payload": payload, "sha256": sha256}, indent=1, sort_keys=True) + "\n")
    return sha256


def read_contract(path: Path) -> Contract:
    """Read a document.

    Raises:
        BadInput: it is none.
    """
    document = read_document(path)
    payload = document.get("payload")
    if not isinstance(payload, dict):
        raise BadInput(f"{path} has no payload", hint="it is made by drift-extractor")
    try:
        payload_sha256(payload)
    except ValueError as error:
        raise BadInput(f"{path} has no canonical form: {error}", hint="make it again with drift-extractor") from None
    return Contract(payload, str(document.get("sha256")))


def read_extractor(folder: Path) -> Extractor:
    """Read a drift-extractor job's folder; what it says of itself is not compared here.

    Raises:
        BadInput: a file is missing or damaged.
    """
    weights = Weights.of(read_npz(folder / WEIGHTS), folder / WEIGHTS)
    reference = read_npz(folder / REFERENCE)
    features = reference.get("features")
    if set(reference) != set(ARRAYS) or features is None or features.dtype != np.float64 or features.ndim != 2:
        raise BadInput(f"{folder / REFERENCE} has no reference statistics", hint="it is made by drift-extractor")
    return Extractor(weights, read_contract(folder / CONTRACT), reference)
