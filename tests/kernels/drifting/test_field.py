"""The drift field: the batch form against loops, torch against the float64 oracle, and what must hold at p = q."""

from __future__ import annotations

import inspect
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kernels.devices import KernelRefused
from kernels.drifting import field, kernel, torch_field
from kernels.drifting.field import Gains, drift, normalised, scale
from kernels.drifting.schedule import unconditional_weight

Array = Any
TAUS = (0.02, 0.05, 0.2)


def draw(*shape: int, seed: int = 0, at: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(size=shape) + at


def by_loops(x: Array, pos: Array, neg: Array, temperature: float, weight: Array, own: bool) -> Array:
    """V of algorithm 2, a pair at a time, with the weight in the kernel that is normalised over y."""
    every = [*((y, 1.0, False) for y in pos), *((y, w, True) for y, w in zip(neg, weight, strict=True))]
    logits = np.full((len(x), len(every)), -np.inf)
    weights = np.array([w for _, w, _ in every])
    for i, a in enumerate(x):
        for j, (y, _, is_negative) in enumerate(every):
            if own and is_negative and j - len(pos) == i:
                continue
            logits[i, j] = -math.sqrt(float(((a - y) ** 2).sum())) / temperature
    out = np.zeros_like(x)
    affinity = np.zeros_like(logits)
    for i in range(len(x)):
        for j in range(len(every)):
            if weights[j] == 0 or not np.isfinite(logits[i, j]):
                continue
            row = sum(weights[k] * math.exp(logits[i, k] - logits[i, j]) for k in range(len(every)))
            column = sum(math.exp(logits[k, j] - logits[i, j]) for k in range(len(x)))
            affinity[i, j] = math.sqrt(weights[j] / row / column)
    for i in range(len(x)):
        a_pos, a_neg = affinity[i, : len(pos)], affinity[i, len(pos) :]
        out[i] = sum(w * a_neg.sum() * y for w, y in zip(a_pos, pos, strict=True))
        out[i] -= sum(w * a_pos.sum() * y for w, y in zip(a_neg, neg, strict=True))
    return out


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("guided", [True, False])
def test_the_oracle_is_the_page(own: bool, guided: bool) -> None:
    x, pos, free = draw(6, 4), draw(5, 4, seed=1, at=0.5), draw(3, 4, seed=2)
    neg = np.concatenate([x if own else draw(6, 4, seed=3), free])
    weight = np.r_[np.ones(6), [0.0, 0.4, 2.5] if guided else np.ones(3)]
    with np.errstate(divide="ignore"):
        found = drift(x, pos, neg, 0.7, own=own, log_weight=np.log(weight)).field()
    assert np.abs(found - by_loops(x, pos, neg, 0.7, weight, own)).max() < 1e-13


def test_equal_sets_do_not_move_and_others_do() -> None:
    x, data = draw(20, 6), draw(30, 6, seed=1)
    assert np.abs(drift(x, data, data, 0.5, own=False).field()).max() < 1e-15
    assert np.abs(drift(x, data, data[::-1], 0.5, own=False).field()).max() < 1e-12  # in another order
    assert np.abs(drift(x, data, data + 0.5, 0.5, own=False).field()).max() > 0.01
    for gains in (Gains(1, 1.5), Gains(1, 0)):
        assert np.abs(drift(x, data, data, 0.5, own=False).field(gains)).max() > 0.01


def test_it_is_antisymmetric() -> None:
    x, p, q = draw(10, 5), draw(12, 5, seed=1), draw(9, 5, seed=2, at=0.3)
    to, back = (drift(x, a, b, 0.8, own=False).field() for a, b in ((p, q), (q, p)))
    assert np.abs(to + back).max() < 1e-14
    unequal = [drift(x, a, b, 0.8, own=False).field(Gains(1, 1.5)) for a, b in ((p, q), (q, p))]
    assert np.abs(unequal[0] + unequal[1]).max() > 0.01


def test_samples_of_the_data_itself_hardly_move_on_average() -> None:
    """p = q in distribution: what is left of the mean over 60 draws is chance."""

    def mean(at: float, gains: Gains) -> float:
        rng = np.random.default_rng(5)
        total = np.zeros(3)
        for _ in range(60):
            x, pos = rng.normal(size=(24, 3)) + at, rng.normal(size=(24, 3))
            # Along x: a drift that only moves inwards or outwards has no mean of its own.
            v = drift(x, pos, x, 0.6).field(gains)
            total += [*(v[:, :2].mean(0)), (v * x).sum(1).mean()]
        return float(np.abs(total / 60).max())

    quiet = mean(0.0, Gains())
    assert quiet < 0.03
    assert mean(0.5, Gains()) > 5 * quiet
    assert mean(0.0, Gains(1, 1.5)) > 5 * quiet
    assert mean(0.0, Gains(1, 0)) > 5 * quiet


def test_a_shift_of_everything_shifts_nothing() -> None:
    x, pos = draw(8, 4), draw(7, 4, seed=1)
    for gains in (Gains(), Gains(1, 1.5), Gains(1, 0)):
        here, there = (drift(x + a, pos + a, x + a, 0.5).field(gains) for a in (0.0, 100.0))
        assert np.abs(here - there).max() < 1e-11


def test_the_scale_makes_distances_alike_and_the_drift_has_size_one() -> None:
    groups = [(draw(9, 16, seed=i), draw(8, 16, seed=i + 5, at=1), draw(9, 16, seed=i)) for i in range(3)]
    large = [tuple(1000 * part for part in group) for group in groups]
    assert math.isclose(scale(large), 1000 * scale(groups), rel_tol=1e-12)  # type: ignore[arg-type]
    found, unit, sizes = normalised(groups, temperatures=(0.2,))
    again, _, same = normalised(large, temperatures=(0.2,))  # type: ignore[arg-type]
    assert np.allclose(found, again, atol=1e-9)
    assert np.allclose(sizes, same)
    assert unit > 0
    assert math.isclose(float(np.mean([(v**2).sum(1).mean() for v in found])) / 16, 1.0, rel_tol=1e-9)


# Torch against the oracle, and mutants of it.


def case(alpha: tuple[float, ...] | None, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    groups, places, n, p, u, width = 3, 2, 7, 6, 4, 5
    x, pos = draw(groups, places, n, width), draw(groups, places, p, width, seed=1, at=0.4)
    free = draw(groups, places, u, width, seed=2)
    given: tuple[Any, ...] = (x, pos, None, None)
    if alpha is not None:
        given = (x, pos, free, unconditional_weight(np.array(alpha), n, u))
    tensors = tuple(None if a is None else torch.from_numpy(a).to(dtype) for a in given)
    arrays = [(x[g, k], pos[g, k], x[g, k] if alpha is None else np.concatenate([x[g, k], free[g, k]]))
              for g in range(groups) for k in range(places)]  # fmt: skip
    weights = None
    if alpha is not None:
        with np.errstate(divide="ignore"):
            weights = [np.log(np.r_[np.ones(n), np.full(u, given[3][g])]) for g in range(groups) for _ in range(places)]
    return tensors, {"arrays": arrays, "weights": weights, "shape": x.shape}


def apart(module: ModuleType, alpha: tuple[float, ...] | None, gains: Gains, dtype: torch.dtype) -> float:
    """The greatest difference of a torch module's drift, scale and sizes from the oracle's."""
    tensors, about = case(alpha, dtype)
    want, unit, sizes = normalised(about["arrays"], temperatures=TAUS, gains=gains, log_weights=about["weights"])
    found = module.drift_of(*tensors, temperatures=TAUS, gains=gains)
    differences = [
        np.abs(found.drift.numpy() - np.stack(want).reshape(about["shape"])).max(),
        abs(float(found.scale) - unit),
        np.abs(found.sizes.numpy() - sizes).max(),
    ]
    return float(np.nan_to_num(max(differences), nan=math.inf))


GUIDED = (1.0, 1.7, 4.0)  # the first has weight 0


@pytest.mark.parametrize("alpha", [None, GUIDED])
@pytest.mark.parametrize("gains", [Gains(), Gains(1, 0), Gains(1, 1.5)])
def test_torch_is_the_oracle(alpha: tuple[float, ...] | None, gains: Gains) -> None:
    assert apart(torch_field, alpha, gains, torch.float64) < 1e-11
    assert apart(torch_field, alpha, gains, torch.float32) < 2e-4


MUTANTS = {
    "the sign of V-": ("* attraction - gains.repulsion", "* attraction + gains.repulsion"),
    "no self mask": ("own[:, :count].fill_diagonal_(True)", "pass"),
    "softmax over y only": (" * torch.softmax(logits, dim=-2)).sqrt()", ")"),
    "softmax over x only": ("(torch.softmax(logits + log_weight, dim=-1) * torch.softmax(logits, dim=-2)).sqrt()",
                            "torch.softmax(logits + log_weight, dim=-2)"),
    "no root": (").sqrt()\n    a_pos", ")\n    a_pos"),
    "no weight": ("weights[..., count:] = weight.to(x.dtype)[:, None, None, None]", "pass"),
    "weight, not its logarithm": ("weights.log()", "weights"),
    "not over the other": ("a_pos * a_neg.sum(-1, keepdim=True)", "a_pos * a_pos.sum(-1, keepdim=True)"),
    "temperature without the root of C": ("tau * math.sqrt(width)", "tau"),
    "scale without the root of C": ("scale = mean / math.sqrt(width)", "scale = mean"),
    "the drift is not normalised": ("total += found / torch.where(size > 0, size, torch.ones_like(size))",
                                    "total += found"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_not_the_oracle(name: str) -> None:
    old, new = MUTANTS[name]
    text = inspect.getsource(torch_field)
    assert text.count(old) == 1
    mutant = ModuleType("mutant")
    # dataclasses look their module up by name.
    mutant.__dict__["__name__"] = torch_field.__name__
    exec(compile(text.replace(old, new), "mutant", "exec"), mutant.__dict__)
    assert apart(mutant, GUIDED, Gains(), torch.float64) > 1e-3


def test_the_loss_moves_samples_along_the_drift() -> None:
    tensors, _ = case(GUIDED, torch.float64)
    x = tensors[0].clone().requires_grad_(True)
    loss, found = torch_field.drift_loss(x, *tensors[1:], temperatures=TAUS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    want = -2 * found.drift / (found.scale * x.numel())
    assert float((x.grad - want).abs().max()) < 1e-14
    assert math.isclose(float(loss.detach()), float((found.drift**2).mean()), rel_tol=1e-12)


def test_identical_groups_have_no_nan() -> None:
    """All samples equal to all data: distances 0, scale 0, drift 0."""
    x = torch.ones(2, 1, 4, 3)
    found = torch_field.drift_of(x, torch.ones(2, 1, 5, 3))
    assert torch.equal(found.drift, torch.zeros_like(x))
    assert torch.equal(found.sizes, torch.zeros(3))


def test_what_cannot_be_computed_is_refused() -> None:
    x = torch.zeros(1, 1, 1, 2)
    with pytest.raises(KernelRefused, match="two samples"):
        torch_field.drift_of(x, x)
    with pytest.raises(KernelRefused, match="go together"):
        torch_field.drift_of(torch.zeros(1, 1, 2, 2), x, x)
    with pytest.raises(KernelRefused, match="temperature"):
        drift(draw(3, 2), draw(3, 2), draw(3, 2), 0.0)
    with pytest.raises(KernelRefused, match="not among"):
        kernel.without_own(np.zeros((3, 2)))
    assert field.TEMPERATURES == TAUS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    tensors, _ = case(GUIDED, torch.float32)
    there = torch_field.drift_of(*(t.cuda() for t in tensors), temperatures=TAUS)
    here = torch_field.drift_of(*tensors, temperatures=TAUS)
    assert float((there.drift.cpu() - here.drift).abs().max()) < 2e-4
