"""One vector for all weights; Adam, clip and average against hand-computed oracles; the passes against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import jobs.train.passes as passes_module
from jobs.train.model import Model, flattened, unflattened, views
from jobs.train.objective import Objective, Surrogate, Upstream
from jobs.train.passes import Pair, Passes
from jobs.train.recipe import Recipe
from kernels.postfilter.torch_ import apply
from kernels.postfilter.weights import Weights, shapes
from tests.jobs.train.small import one_thread, pictures, recipe, tensors

CPU = torch.device("cpu")
YES = torch.ones((), dtype=torch.bool)
Double = npt.NDArray[np.float64]


def some_weights(h: int, seed: int = 1) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights.of({n: (rng.standard_normal(s) * 0.08).astype(np.float32) for n, s in shapes(h).items()})


def test_the_views_are_the_tensors_channels_last_in_one_memory() -> None:
    weights = some_weights(4)
    flat = flattened(weights, CPU)
    found = views(flat, 4)
    assert flat.shape == (9 * 16 + 56 * 4 + 3,)
    for name, tensor in weights.tensors().items():
        assert np.array_equal(found[name].numpy(), tensor)
        assert tensor.ndim == 1 or found[name].is_contiguous(memory_format=torch.channels_last)
    found["w2"][1, 2, 0, 1] = 9
    assert unflattened(flat, 4).w2[1, 2, 0, 1] == 9


def by_hand(start: Double, gradients: list[Double], rates: list[float], rule: Recipe) -> tuple[Double, Double]:
    """Clip, Adam (Kingma and Ba, algorithm 1) and the average, in double precision."""
    w, m, v, ema = start.copy(), np.zeros_like(start), np.zeros_like(start), start.copy()
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        g = g * min(1.0, rule.clip / (np.sqrt((g * g).sum()) + 1e-6))
        m = rule.beta1 * m + (1 - rule.beta1) * g
        v = rule.beta2 * v + (1 - rule.beta2) * g * g
        w = w - rate * (m / (1 - rule.beta1**t)) / (np.sqrt(v / (1 - rule.beta2**t)) + rule.epsilon)
        ema = rule.decay * ema + (1 - rule.decay) * w
    return w, ema


@pytest.mark.parametrize("size", [0.001, 30.0], ids=["not clipped", "clipped"])
def test_steps_equal_the_hand_computed_ones(size: float) -> None:
    rule, rng = recipe(), np.random.default_rng(0)
    model = Model(rule, CPU)
    start = model.flat.double().numpy().copy()
    assert np.array_equal(model.ema.numpy(), model.flat.numpy())
    gradients = [rng.standard_normal(start.size) * size for _ in range(6)]
    rates = [1e-4, 3e-4, 5e-4, 5e-4, 4e-4, 1e-4]
    for g, rate in zip(gradients, rates, strict=True):
        norm, distance = model.step(torch.from_numpy(g.astype(np.float32)), rate, YES)
        assert float(norm) == pytest.approx(np.sqrt((g * g).sum()), rel=1e-5)
        assert float(distance) == pytest.approx(float((model.flat - model.ema).norm()), rel=1e-6)
    w, ema = by_hand(start, gradients, rates, rule)
    assert np.abs(model.flat.numpy() - w).max() < 1e-6
    assert np.abs(model.ema.numpy() - ema).max() < 1e-6
    # Twins: an average that starts at zero, or a gradient that is not clipped, is far away.
    assert np.abs(rule.decay**6 * start).max() > 1e-2
    unclipped, _ = by_hand(start, gradients, rates, recipe(clip=1e9))
    assert (np.abs(unclipped - w).max() > 1e-5) == (size > 1) or size > 1


def test_the_average_stops_at_the_first_step_that_is_no_number() -> None:
    model = Model(recipe(), CPU)
    good = torch.full_like(model.flat, 0.01)
    model.step(good.clone(), 1e-3, YES)
    kept = model.ema.clone()
    model.step(torch.full_like(good, float("nan")), 1e-3, YES)
    assert torch.equal(model.ema, kept)
    assert not model.finite
    model.step(good.clone(), 1e-3, YES)
    assert torch.equal(model.ema, kept)
    other = Model(recipe(), CPU)
    other.step(good.clone(), 1e-3, ~YES)  # the loss alone is no number
    assert not other.finite
    # The twin: a number moves the average.
    assert not torch.equal(kept, Model(recipe(), CPU).ema)


def by_autograd(flat: Tensor, h: int, pairs: list[Pair], objective: Objective, divisor: int) -> tuple[Tensor, Tensor]:
    """The definition in double precision: `kernels.postfilter.torch_.apply` and torch's own derivatives."""
    leaf = flat.double().requires_grad_()
    total, every = torch.zeros((), dtype=torch.float64), []
    for pair in pairs:
        original, decoded = (t.permute(0, 3, 1, 2).double() for t in (pair.original, pair.decoded))
        terms = objective.terms(apply(decoded, views(leaf, h)), original, decoded, pair.saliency)
        total = total + objective.value(terms)
        every.append(terms.detach())
    (gradient,) = torch.autograd.grad(total / divisor, leaf)
    return gradient, torch.stack(every).mean(dim=0)


def networks() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(5)
    pose = torch.randn((3, 9), generator=generator, dtype=torch.float64) / 50
    seg = torch.randn((5, 3, 3, 3), generator=generator, dtype=torch.float64) / 50
    return (
        lambda pair: (pair[:, :, ::3, ::2].mean(dim=(2, 3)) @ pose.to(pair.dtype)).reshape(-1),
        lambda pair: torch.nn.functional.conv2d(pair[1:], seg.to(pair.dtype), stride=2),
    )


OBJECTIVES: dict[str, Objective] = {
    "surrogate": Surrogate(),
    "both frames": Surrogate(alpha=5.0, sal_weight=2.0, sal_both_frames=True),
    "upstream": Upstream(*networks()),
}


@pytest.mark.parametrize("strip", [100_000, 1_500, 400], ids=["frames together", "two strips", "many strips"])
@pytest.mark.parametrize("which", OBJECTIVES)
@pytest.mark.parametrize(("height", "width"), [(30, 44), (57, 31)])
def test_the_strips_gradients_are_those_of_autograd(
    which: str, strip: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes_module, "STRIP", strip)
    objective, h = OBJECTIVES[which], 6
    pairs = tensors(pictures(3, height, width), both=which == "both frames")
    flat = flattened(some_weights(h), CPU)
    found = {}
    for threads in (1, 3):
        with one_thread(), Passes(h, objective, CPU, threads) as passes:
            found[threads] = passes.gradient(flat, pairs, 4)
    assert all(torch.equal(a, b) for a, b in zip(found[1], found[3], strict=True))  # threads change no bit
    gradient, terms = by_autograd(flat, h, pairs, objective, 4)
    for name, exact in views(gradient, h).items():
        assert (views(found[1][0].double(), h)[name] - exact).abs().max() <= 3e-5 * exact.abs().max(), name
    assert torch.allclose(found[1][1].double(), terms, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("mutant", ["halo", "clamp", "swapped pad"])
def test_a_wrong_pass_is_seen(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes_module, "STRIP", 400)
    if mutant == "halo":
        frames = passes_module._frames
        monkeypatch.setattr(passes_module, "_frames", lambda p, s, which, halo: frames(p, s, which, min(halo, 2)))
        monkeypatch.setattr(passes_module, "_inner", lambda *_: False)
    elif mutant == "clamp":
        monkeypatch.setattr(passes_module, "_CLAMP", (-1e9, 1e9))
    else:
        backwards = passes_module._backwards
        monkeypatch.setattr(
            passes_module,
            "_backwards",
            lambda slope, x, w, pad, mask: backwards(slope, x, w.flip(2) if mask[0] else w, pad, mask),
        )
    objective, h = Surrogate(), 6
    pairs = tensors(pictures(2, 30, 44))
    flat = flattened(some_weights(h), CPU)
    with one_thread(), Passes(h, objective, CPU, 1) as passes:
        found, _, _ = passes.gradient(flat, pairs, 2)
    exact, _ = by_autograd(flat, h, pairs, objective, 2)
    assert (found.double() - exact).abs().max() > 1e-3 * exact.abs().max()


def test_filtered_frames_are_those_of_the_operator() -> None:
    pair = tensors(pictures(1, 57, 32))[0]
    flat = flattened(some_weights(5), CPU)
    with one_thread(), Passes(5, Surrogate(), CPU, 1) as passes:
        found = passes.filtered(flat, pair)
    exact = apply(pair.decoded.permute(0, 3, 1, 2).double(), views(flat.double(), 5))
    assert (found.double() - exact).abs().max() < 1e-3
    assert ((exact == 0) | (exact == 255)).any()  # the clamp is tried
