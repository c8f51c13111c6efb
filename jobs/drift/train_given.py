"""What a drift training is given: its images, and the encoder whose features it drifts in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.errors import BadInput
from core.kind import Context
from jobs.dose.npz import read_npz
from jobs.drift.dataset import Dataset
from jobs.drift.encoders import Convolutions, Encode, Given, raw_features, train_autoencoder
from jobs.drift.generator import take_weights, weights_of
from jobs.drift_kinds.train import DATA, EXTRACTOR, DriftTrainParams

EXTRACTOR_FILE = "extractor.npz"
LEAST_SIDE = 4

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Images:
    """What is learned. Attributes: images: (n, H, W, C). labels: (n,). classes: how many. data_sha256: of data.json."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    classes: int
    data_sha256: str
    source: str


@dataclass(frozen=True)
class Encoder:
    """Attributes: weights: by name; empty: it has none. error: of the autoencoder, else None."""

    encode: Encode
    weights: Arrays
    error: float | None = None


def images(ctx: Context, p: DriftTrainParams) -> Images:
    """The train split, or noise in its place.

    Raises:
        BadInput: the data cannot be read, or is too small.
    """
    data = Dataset.load(ctx.input(DATA))
    train, classes = data.train, data.classes
    if min(train.images.shape[1:3]) < LEAST_SIDE:
        raise BadInput(
            f"images of {train.images.shape[1]}×{train.images.shape[2]} px are too small",
            hint=f"give images of {LEAST_SIDE} px a side or more",
        )
    counts = np.bincount(train.labels, minlength=len(classes))
    if counts.min() < 1:
        raise BadInput(
            f"class {classes[int(counts.argmin())]} has no image to train on", hint="split the data otherwise"
        )
    found = train.images
    if p.real == "noise":
        found = np.random.default_rng([p.seed, 5]).uniform(-1, 1, found.shape).astype(np.float32)
    return Images(found, train.labels, len(classes), data.sha256, str(data.document["source"]["name"]))


def encoder(ctx: Context, p: DriftTrainParams, given: Images, known: Arrays | None) -> Encoder:
    """The encoder that is asked for.

    Args:
        known: the autoencoder's weights, where an earlier attempt has trained it.

    Raises:
        BadInput: the extractor cannot be read, or is of other images.
    """
    device, channels = torch.device(p.device), given.images.shape[3]
    if p.encoder == "raw":
        return Encoder(raw_features, {})
    if p.encoder == "extractor":
        return _extractor(ctx.input(EXTRACTOR) / EXTRACTOR_FILE, channels, device)
    made = Convolutions(channels, seed=p.encoder_seed).to(device).requires_grad_(False)
    error = None
    if p.encoder == "autoencoder" and known:
        take_weights(made, known)
    elif p.encoder == "autoencoder":
        made, error = train_autoencoder(given.images, steps=p.autoencoder_steps, seed=p.encoder_seed, device=device)
        ctx.log(f"autoencoder: {p.autoencoder_steps} steps, mean squared error {error:.4f} on masked images")
    return Encoder(made, weights_of(made), error)


def _extractor(path: Path, channels: int, device: torch.device) -> Encoder:
    arrays = read_npz(path)
    try:
        made = Given(arrays, device)
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"{path} holds no extractor: {error}", hint="give the artifacts of a drift-extractor job"
        ) from None
    if made.channels != channels:
        raise BadInput(
            f"{path} is of images with {made.channels} channels, and these have {channels}",
            hint="give the extractor of this data",
        )
    return Encoder(made, arrays)
