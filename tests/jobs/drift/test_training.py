"""What a training comes to, on images of which everything is known: a bright column, and noise in each pixel."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jobs.drift.encoders import Convolutions
from jobs.drift.generator import Generator
from jobs.drift.sample import draw
from jobs.drift.training import Training
from jobs.drift_kinds.train import DriftTrainParams

DARK, BRIGHT, NOISE = -0.3, 0.3, 0.15
SIDE, CLASSES = 4, 3


def mean_images() -> npt.NDArray[np.float32]:
    """Of class c column c is bright."""
    found = np.full((CLASSES, SIDE, SIDE, 1), DARK, np.float32)
    for label in range(CLASSES):
        found[label, :, label] = BRIGHT
    return found


@cache
def trained(variant: str, encoder: str = "raw", unconditional: int = 8) -> Training:
    given: dict[str, Any] = {"steps": None if variant == "untrained" else 150, "unconditional": unconditional}
    p = DriftTrainParams(
        variant=variant,  # type: ignore[arg-type]
        encoder=encoder,  # type: ignore[arg-type]
        samples=24,
        positives=24,
        hidden=32,
        depth=2,
        noise=16,
        rate=3e-3,
        **given,
    )
    rng = np.random.default_rng(0)
    labels = np.arange(300, dtype=np.int64) % CLASSES
    images = mean_images()[labels] + rng.normal(0, NOISE, (300, SIDE, SIDE, 1)).astype(np.float32)
    encode = Convolutions(1, seed=0).requires_grad_(False) if encoder == "tiny" else None
    training = Training(p.recipe(), images, labels, CLASSES, encode)
    while training.steps < p.planned:
        training.step()
    return training


def moments(generator: Generator, alpha: float = 1.0) -> tuple[float, float, float]:
    """(greatest mean error of a class's mean image, spread of a pixel over the data's, contrast of the columns)."""
    images, labels = draw(generator, 600, alpha=alpha, seed=0)
    means = np.stack([images[labels == c].mean(0) for c in range(CLASSES)])
    spread = np.stack([images[labels == c].std(0) for c in range(CLASSES)]).mean() / NOISE
    bright = mean_images() > 0
    error = np.abs(means - mean_images()).mean((1, 2, 3)).max()
    return float(error), float(spread), float(means[bright].mean() - means[~bright].mean())


def test_it_comes_to_the_distribution_and_the_controls_do_not() -> None:
    error, spread, _ = moments(trained("full").average)
    assert error < 0.08
    assert 0.7 < spread < 1.3
    assert moments(trained("attraction-only").average)[1] < 0.5 * spread, "it falls together"
    assert moments(trained("over-repulsion").average)[1] > 1.3 * spread, "it flies apart"
    assert moments(trained("untrained").average)[0] > 3 * error


def test_another_encoder_comes_there_too() -> None:
    error, spread, _ = moments(trained("full", "tiny").average)
    assert error < 0.1
    assert 0.6 < spread < 1.4


def test_alpha_does_something_where_the_loss_sees_it() -> None:
    def moved(training: Training) -> float:
        return moments(training.average, 4.0)[2] - moments(training.average, 1.0)[2]

    live, inert = moved(trained("full", unconditional=24)), moved(trained("full", unconditional=0))
    assert live > 0.025, "guidance leads away from what the classes have in common"
    assert abs(inert) < live / 2


def test_the_average_follows_the_weights() -> None:
    training = trained("full")
    pairs = zip(training.average.parameters(), training.generator.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs)
    own, average = (moments(g)[2] for g in (training.generator, training.average))
    assert abs(own - average) < 0.1
