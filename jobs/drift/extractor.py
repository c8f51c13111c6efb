"""What `drift-extractor` does: weights, made or trained; features of the reference split; the contract over both."""

from __future__ import annotations

from typing import Any

from core.kind import Context
from jobs.dose.npz import write_npz
from jobs.drift.contract import payload_of, write_contract
from jobs.drift.extractor_net import Weights, features_of, random_weights
from jobs.drift.extractor_train import trained
from jobs.drift.given import Data, Images, read_data
from jobs.drift_kinds.extractor import ExtractorParams
from jobs.drift_kinds.names import CONTRACT, DATA, REFERENCE, WEIGHTS
from kernels.drifting.metrics import accuracy, frechet


def run(ctx: Context) -> None:
    """Make the extractor.

    Raises:
        BadInput: the data cannot be read.
        JobFailed: training diverged.
    """
    p: ExtractorParams = ctx.params
    cached = p.profile == "cached"
    ctx.expect(
        rows={"drift_extractor": 1},
        last_step=p.epochs if cached else None,
        artifacts=[WEIGHTS, CONTRACT, REFERENCE],
    )
    data = read_data(ctx.input(DATA))
    height, width, channels = data.shape
    weights = random_weights(max(height, width), channels, data.classes, p.feature_dim, p.seed)
    loss: float | None = None
    if cached:
        weights, loss = _train(ctx, p, weights, data.train)
    features, probabilities = features_of(weights, data.reference.images)
    reference = {"features": features, "probabilities": probabilities, "labels": data.reference.labels}
    payload = payload_of(p.profile, weights, data, reference, seed=p.seed, is_splits=p.is_splits)
    write_npz(ctx.artifact(WEIGHTS), weights.arrays())
    write_npz(ctx.artifact(REFERENCE), reference)
    contract = write_contract(ctx.artifact(CONTRACT), payload)
    held = features_of(weights, data.held.images)
    row: dict[str, Any] = {
        "profile": p.profile,
        "seed": p.seed,
        "feature_dim": p.feature_dim,
        "classes": data.classes,
        "epochs": p.epochs if cached else 0,
        "loss": loss,
        **_accuracies(weights, data, cached),
        "fid_held": frechet(held[0], features).distance,
        "extractor": weights.sha256,
        "contract": contract,
        "reference": data.reference.sha256,
        "reference_n": data.reference.n,
        "data": data.sha256,
    }
    ctx.results("drift_extractor", [row])
    ctx.log(f"contract {contract}: {p.profile}, reference of {data.reference.n}, held-out FID {row['fid_held']:.6g}")


def _train(ctx: Context, p: ExtractorParams, start: Weights, images: Images) -> tuple[Weights, float]:
    weights, loss = start, float("nan")
    for epoch in trained(start, images, epochs=p.epochs, rate=p.rate, batch=p.batch, seed=p.seed):
        weights, loss = epoch.weights, epoch.loss
        ctx.metrics(epoch.number, loss=loss)
        ctx.progress(epoch.number, p.epochs)
        if ctx.stopping:  # so short a training keeps no checkpoint: it starts over
            ctx.leave()
    return weights, loss


def _accuracies(weights: Weights, data: Data, cached: bool) -> dict[str, float | None]:
    return {
        f"accuracy_{name}": accuracy(features_of(weights, split.images)[1], split.labels) if cached else None
        for name, split in data.splits.items()
    }
