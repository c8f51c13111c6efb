"""What networks say of the original pairs is kept: asked once, never another number, never more memory than allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from jobs.train import references
from jobs.train.evaluate import Evaluation
from jobs.train.loop import train
from jobs.train.model import Model
from jobs.train.objective import Surrogate, Upstream
from jobs.train.passes import planes
from jobs.train.references import References
from kernels.postfilter.weights import Weights, shapes
from tests.jobs.train.small import Pictures, Remembered, one_thread, pictures, recipe

CPU = torch.device("cpu")
HEIGHT, WIDTH = 24, 32
ANSWER = (6 + 4 * HEIGHT * WIDTH) * 4  # bytes of one


@dataclass
class Asked:
    """Two networks in double precision that remember the sums of the pairs which they were asked about."""

    sums: list[float] = field(default_factory=list)

    def pose(self, pair: torch.Tensor) -> torch.Tensor:
        self.sums.append(float(pair.detach().double().sum()))
        weights = torch.from_numpy(np.random.default_rng(5).standard_normal((pair.numel(), 12)).astype(np.float32))
        return (pair / 255).reshape(1, -1) @ weights / 20

    def seg(self, pair: torch.Tensor) -> torch.Tensor:
        weights = torch.from_numpy(np.random.default_rng(6).standard_normal((3, 4)).astype(np.float32))
        return torch.einsum("nchw,ck->nkhw", pair[1:] / 60, weights)

    def objective(self) -> Upstream:
        return Upstream(self.pose, self.seg)

    def originals(self, frames: Pictures) -> list[int]:
        """How often each pair's original was asked about."""
        exact = [float(planes(torch.from_numpy(pair)).double().sum()) for pair in frames.original]
        return [self.sums.count(one) for one in exact]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def trained(frames: Pictures) -> tuple[str, list[tuple[float, ...]], list[int]]:
    """(the weights' digest, the step rows' numbers, how often each original was asked about)."""
    asked, hooks, rule = Asked(), Remembered(), recipe(epochs=3, rate=1e-2)
    model = Model(rule, CPU)
    train(model, frames, asked.objective(), hooks)
    rows = [(row.value, *row.terms.values(), row.gradient_norm) for row in hooks.seen]
    return model.weights().digest(), rows, asked.originals(frames)


def test_a_training_asks_once_about_an_original_and_its_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pictures(5, HEIGHT, WIDTH)
    digest, rows, often = trained(frames)
    assert often == [1] * 5
    for most, kept in ((0, 0), (2 * ANSWER, 2)):
        monkeypatch.setattr(references, "BYTES", most)
        again, same, often = trained(frames)
        assert sorted(often) == [1] * kept + [3] * (5 - kept), "once an epoch where it is not kept"
        assert (again, same) == (digest, rows)


def test_answers_of_other_pairs_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: a cache that takes every pair for the first gives other weights."""
    frames = pictures(5, HEIGHT, WIDTH)
    digest, rows, _ = trained(frames)
    honest = References.terms
    monkeypatch.setattr(References, "terms", lambda self, index, *rest: honest(self, 0, *rest))
    wrong, others, _ = trained(frames)
    assert (wrong, others) != (digest, rows)
    assert wrong != digest


def test_candidates_are_measured_against_answers_that_were_kept() -> None:
    frames = pictures(4, HEIGHT, WIDTH)
    rng = np.random.default_rng(4)
    weights = [
        Weights.of({n: (rng.standard_normal(s) * 0.05).astype(np.float32) for n, s in shapes(4).items()})
        for _ in range(2)
    ]
    asked = Asked()
    kept = Evaluation(frames, (0, 2, 3), asked.objective())
    fresh = [Evaluation(frames, (0, 2, 3), Asked().objective()) for _ in range(3)]
    # MS-SSIM is no number for frames that are too small for it.
    assert replace(kept.decoded(), ms_ssim=0.0) == replace(fresh[0].decoded(), ms_ssim=0.0)
    for k, one in enumerate(weights):
        found, exact = (e.candidate(one, step=1, epoch=1) for e in (kept, fresh[k + 1]))
        assert replace(found.quality, ms_ssim=0.0) == replace(exact.quality, ms_ssim=0.0)
    assert asked.originals(frames) == [1, 0, 1, 1]
    assert sorted(kept.maps) == [0, 2, 3]


def test_memory_is_bounded_and_a_surrogate_keeps_nothing() -> None:
    frames = pictures(3, HEIGHT, WIDTH)
    pairs = [planes(torch.from_numpy(pair)) for pair in frames.original]
    maps = torch.zeros((1, HEIGHT, WIDTH), dtype=torch.uint8)
    asked = Asked()
    some = References(asked.objective(), CPU, most=ANSWER)
    for _ in range(2):
        for index, pair in enumerate(pairs):
            some.terms(index, pair + 1, lambda pair=pair: pair, pair, maps)  # type: ignore[misc]
    assert (sorted(some.known), some.size) == ([0], ANSWER)
    assert asked.originals(frames) == [1, 2, 2]
    nobody = References(asked.objective(), CPU)
    nobody.terms(None, pairs[0] + 1, lambda: pairs[0], pairs[0], maps)
    assert nobody.known == {}
    plain = References(Surrogate(), CPU)
    found = plain.terms(0, pairs[0] + 1, lambda: pairs[0], pairs[0], maps)
    assert plain.known == {}
    assert torch.equal(found, Surrogate().terms(pairs[0] + 1, pairs[0], pairs[0], maps))
