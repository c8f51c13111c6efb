"""What `drift-eval` does: count, check the contract, compute features, and write numbers beside a held-out floor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.fsio import write_atomic
from core.kind import Context
from jobs.dose.npz import write_npz
from jobs.drift.contract import DRAW_SEED, FLOOR, ORDER, Extractor, read_extractor
from jobs.drift.contract_checks import (
    data_checks,
    extractor_checks,
    failed,
    leakage_check,
    lineage_checks,
    sample_checks,
)
from jobs.drift.digests import arrays_sha256
from jobs.drift.extractor_net import features_of
from jobs.drift.given import Data, Images, Samples, Trained, read_data, read_samples, read_trained
from jobs.drift.subsets import counts, drawn, quotas, stratified
from jobs.drift_kinds.evaluate import EvalParams
from jobs.drift_kinds.names import DATA, EVALUATION, EXTRACTOR, FEATURES, GATE, SAMPLE, TRAIN, WAIVER
from kernels.devices import KernelRefused
from kernels.drifting.metrics import accuracy, frechet, inception_score

SCHEMA = "lab.evaluation/1"
_MAY_DIFFER = "different images"  # equal images are counted in the rows and judged by who asks

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Features and probabilities of a set of images."""

    images: Images
    features: Floats
    probabilities: Floats

    def take(self, at: list[int]) -> Measured:
        return Measured(self.images.take(at), self.features[at], self.probabilities[at])


def run(ctx: Context) -> None:
    """Evaluate.

    Raises:
        BadInput: something given is damaged, does not belong together, or the extractor shares weights with the
            training encoder and no waiver says that it may.
    """
    p: EvalParams = ctx.params
    data, extractor = read_data(ctx.input(DATA)), read_extractor(ctx.input(EXTRACTOR))
    samples = read_samples(ctx.input(SAMPLE))
    trained = read_trained(ctx.input(TRAIN)) if ctx.has_input(TRAIN) else None
    _refuse_unlike(data, extractor, samples, trained)
    _refuse_misnamed(p, trained)
    leak = _leak(p, extractor, trained)
    ctx.expect(
        rows={"drift_eval": _planned(extractor, data, samples), "drift_waiver": int(p.allow_shared_encoder)},
        artifacts=[EVALUATION, FEATURES],
    )
    device = "cuda" if ctx.gpus else "cpu"
    own, real = (
        Measured(images, *features_of(extractor.weights, images.images, device))
        for images in (samples.images, data.held)
    )
    chosen = stratified(
        real.images.names,
        real.images.labels.tolist(),
        quotas(counts(real.images.labels.tolist()), min(own.images.n, real.images.n)),
        FLOOR,
        DRAW_SEED,
    )
    common = {
        "n_reference": data.reference.n,
        "contract": extractor.contract.sha256,
        "reference": data.reference.sha256,
        "device_class": device_class(device),
        "profile": extractor.contract.profile,
        "extractor": extractor.weights.sha256,
        "leakage": leak[0],
        "waiver": WAIVER if p.allow_shared_encoder else "",
    }
    told = {"alpha": samples.alpha, "seed": samples.seed, "control": p.control, "train": _model(samples)}
    try:
        rows = [
            {**row, **common}
            for row in (
                *_rows(own, extractor, {**told}, "{}", "is_mean"),
                *_matched(own, real, extractor, told),
                *_rows(
                    real.take(chosen),
                    extractor,
                    {"alpha": None, "seed": DRAW_SEED, "control": "held", "train": ""},
                    "{}_floor",
                    "is_floor",
                ),
            )
        ]
    except KernelRefused as error:
        raise BadInput(f"the samples cannot be measured: {error}", hint="make more, or look at them") from None
    features = {"features": own.features, "probabilities": own.probabilities}
    waivers = _waivers(p, extractor, trained, leak[1])
    write_npz(ctx.artifact(FEATURES), features)
    document = {
        "schema": SCHEMA,
        "rows": rows,
        "waivers": waivers,
        "features_sha256": arrays_sha256(features),
        "contract": extractor.contract.payload,
        "floor_ids": [real.images.names[at] for at in chosen],
    }
    write_atomic(ctx.artifact(EVALUATION), json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    ctx.results("drift_eval", rows)
    ctx.results("drift_waiver", waivers)
    for row in rows:
        ctx.log(f"{row['metric']} {row['value']:.6g} of {row['n']}{' WAIVED: ' + WAIVER if row['waiver'] else ''}")
    if own.images.unique < own.images.n:
        ctx.log(f"{own.images.n} samples are {own.images.unique} different images")


def device_class(device: str) -> str:
    """What numbers are comparable on: cpu, or the GPU by its name."""
    if device == "cpu":
        return "cpu"
    import torch

    return f"cuda {torch.cuda.get_device_name(torch.device(device))}"


def _rows(of: Measured, extractor: Extractor, told: Mapping[str, Any], name: str, score: str) -> list[dict[str, Any]]:
    """The numbers of one set of images. `name` makes a metric's name, `score` is that of the inception score."""
    common = {**told, "n": of.images.n, "n_unique": of.images.unique, "samples": of.images.sha256}
    spread = inception_score(of.probabilities[drawn(of.images.names, ORDER, DRAW_SEED)], extractor.contract.is_splits)
    rows = [
        {"metric": name.format("fid"), "value": _fid(of, extractor), "std": None, **common},
        {"metric": score, "value": spread.mean, "std": spread.std, **common},
    ]
    if _judges(extractor):
        right = accuracy(of.probabilities, of.images.labels)
        rows.append({"metric": name.format("accuracy"), "value": right, "std": None, **common})
    return rows


def _matched(own: Measured, real: Measured, extractor: Extractor, told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where there are more samples than held-out images: the distance of as many, to stand beside the floor."""
    if own.images.n <= real.images.n:
        return []
    labels = own.images.labels.tolist()
    chosen = stratified(own.images.names, labels, quotas(counts(labels), real.images.n), FLOOR, DRAW_SEED)
    return [{**row, "metric": "fid_matched"} for row in _rows(own.take(chosen), extractor, told, "{}", "is_mean")[:1]]


def _fid(of: Measured, extractor: Extractor) -> float:
    return frechet(of.features, extractor.reference["features"]).distance


def _judges(extractor: Extractor) -> bool:
    """Has it a head that knows the classes?"""
    return "accuracy" in extractor.contract.payload.get("metrics", {})


def _planned(extractor: Extractor, data: Data, samples: Samples) -> int:
    return 2 * (3 if _judges(extractor) else 2) + (samples.images.n > data.held.n)


def _refuse_unlike(data: Data, extractor: Extractor, samples: Samples, trained: Trained | None) -> None:
    checks = [
        *data_checks(data),
        *extractor_checks(extractor, data),
        *(check for check in sample_checks(samples, data) if check.check != _MAY_DIFFER),
        *(lineage_checks(trained, samples, data) if trained is not None else ()),
    ]
    wrong = failed(checks)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadInput(
            f"what is given does not belong together: {wrong[0].sentence()}{more}",
            hint="give the folders of jobs that were made from one another, unchanged",
        )


def _refuse_misnamed(p: EvalParams, trained: Trained | None) -> None:
    """Raises BadInput: an untrained model is passed off as a trained one, or the other way round."""
    if trained is not None and trained.untrained != (p.control == "untrained"):
        was = "was not trained" if trained.untrained else "was trained"
        raise BadInput(
            f"the model {was}, and control={p.control!r} says otherwise",
            hint="say control=untrained of the samples of an untrained model, and of no other",
        )


def _leak(p: EvalParams, extractor: Extractor, trained: Trained | None) -> tuple[str, str]:
    """(the word for the rows, what is shared).

    Raises:
        BadInput: weights are shared and nobody waived the check.
    """
    if trained is None:
        return "unchecked", "no training was given, so nothing was compared"
    check = leakage_check(trained, extractor)
    if check.passed:
        return "none", "nothing is shared"
    if not p.allow_shared_encoder:
        raise BadInput(
            f"the extractor is what the model was trained with: {check.found}",
            hint="evaluate with another extractor, or waive the check with allow_shared_encoder, which caps all claims",
        )
    return "shared", check.found


def _waivers(p: EvalParams, extractor: Extractor, trained: Trained | None, found: str) -> list[dict[str, Any]]:
    if not p.allow_shared_encoder:
        return []
    encoder = arrays_sha256(trained.encoder) if trained is not None and trained.encoder else ""
    return [
        {
            "waiver": WAIVER,
            "gate": GATE,
            "found": found,
            "reason": p.waiver_reason,
            "extractor": extractor.weights.sha256,
            "encoder": encoder,
        }
    ]


def _model(samples: Samples) -> str:
    return str(samples.stated.get("train_sha256") or "")
