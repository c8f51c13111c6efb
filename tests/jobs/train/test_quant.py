"""Fake quantisation of all tensors at once equals the int8 file bit for bit; zero tensors; the seed's option."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jobs.train.loop import train
from jobs.train.model import Model, flattened, unflattened, views
from jobs.train.objective import Surrogate
from jobs.train.quant import FakeQuantiser
from kernels.postfilter.quantised import quantise
from kernels.postfilter.weights import Weights, shapes
from tests.jobs.train.small import Remembered, pictures, recipe

CPU = torch.device("cpu")


def any_weights(seed: int, h: int = 5) -> Weights:
    """Of any size, with ties between two int8 numbers, and negative zeros."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes(h).items():
        tensor = (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3)).astype(np.float32)
        flat = tensor.reshape(-1)
        if rng.random() < 0.5:  # the scale is a power of two: multiples of half of it are exact ties
            flat[:] = (rng.integers(-253, 254, flat.size) * 2.0**-9).astype(np.float32)
            flat[0] = 127 * 2.0**-8
        flat[-1] = -0.0
        found[name] = tensor
    return Weights.of(found)


def bits(tensors: dict[str, npt.NDArray[np.float32]]) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(tensor).tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("seed", range(30))
def test_the_forward_weights_are_those_of_the_int8_file_bit_for_bit(seed: int) -> None:
    weights = any_weights(seed)
    values, passes = FakeQuantiser(5, CPU)(flattened(weights, CPU))
    assert passes is None
    assert bits(unflattened(values, 5).tensors()) == bits(quantise(weights).weights().tensors())


def test_rounding_half_up_would_be_seen() -> None:
    weights = any_weights(3)
    flat = flattened(weights, CPU)
    quantiser = FakeQuantiser(5, CPU)
    s = quantiser.scales(flat)[quantiser.tensor_of]
    mutant = torch.floor(flat / s + 0.5).clamp(-127, 127) * s
    assert bits(unflattened(mutant, 5).tensors()) != bits(quantise(weights).weights().tensors())


def test_tensors_of_zeros_stay_zero_and_nothing_becomes_nan() -> None:
    quantiser = FakeQuantiser(4, CPU, cut_largest=True)
    values, passes = quantiser(flattened(Weights.zeros(4), CPU))
    assert passes is not None
    assert (values == 0).all()
    assert (passes == 1).all()
    assert (quantiser.scales(torch.zeros_like(values)) == 1).all()


def test_a_nan_cannot_be_overlooked() -> None:
    flat = flattened(any_weights(0), CPU)
    flat[7] = float("nan")
    values, _ = FakeQuantiser(5, CPU)(flat)
    assert values[:135].isnan().all()
    assert values[135:].isfinite().all()


@pytest.mark.parametrize("cut", [False, True], ids=["ours", "the seed's"])
def test_the_largest_weight_of_a_tensor_trains_and_does_not_with_the_seeds_option(cut: bool) -> None:
    """One step from weights of which no tensor is zero; Adam moves every weight that has a gradient."""
    rule = recipe(cut_largest=cut, epochs=1, pairs=2, pairs_per_epoch=2)
    model = Model(rule, CPU)
    with torch.no_grad():
        views(model.flat, rule.h)["w3"].copy_(torch.linspace(-0.02, 0.03, 108).view(3, 4, 3, 3))
        views(model.flat, rule.h)["b3"].copy_(torch.tensor([0.1, -0.2, 0.05]))
    before = {name: tensor.clone() for name, tensor in views(model.flat, rule.h).items()}
    assert train(model, pictures(2, 24, 28), Surrogate.of(rule), Remembered())
    moved = {}
    for name, tensor in views(model.flat, rule.h).items():
        largest = before[name].abs().argmax()
        moved[name] = bool((tensor.flatten() != before[name].flatten())[largest])
        assert (tensor != before[name]).sum() >= tensor.numel() // 2
    assert set(moved.values()) == {not cut}
