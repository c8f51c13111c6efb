"""The terms of both objectives against NumPy in double precision; saliency; what a value is called."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.train.objective import Local, Surrogate, Upstream, emphasis
from jobs.train.recipe import Recipe
from jobs.train.saliency import saliency


def any_pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    frames = [torch.from_numpy(rng.uniform(0, 255, (2, 3, 8, 10)).astype(np.float32)) for _ in range(3)]
    return frames[0], frames[1], frames[2], torch.from_numpy(rng.integers(0, 256, (1, 8, 10), dtype=np.uint8))


@pytest.mark.parametrize("alpha", [0.0, 10.0, 20.0, 30.0])
def test_the_surrogate_against_numpy(alpha: float) -> None:
    filtered, original, decoded, sal = any_pair()
    f, o, d = (t.double().numpy() for t in (filtered, original, decoded))
    s = sal.double().numpy() / 255
    reconstruction = ((f - o) ** 2).mean()
    second_only = ((f[1] - d[1]) ** 2 / (1 + alpha * s[0])).mean()
    objective = Surrogate.of(Recipe(alpha=alpha))
    terms = objective.terms(filtered, original, decoded, sal)
    assert terms.tolist() == pytest.approx([reconstruction, second_only], rel=1e-6)
    assert float(objective.value(terms)) == pytest.approx(reconstruction + 0.1 * second_only, rel=1e-6)
    # The twin: a term over both frames is another number.
    assert ((f - d) ** 2 / (1 + alpha * s)).mean() != pytest.approx(second_only, rel=1e-6)


def test_sal_over_both_frames_is_an_option() -> None:
    filtered, original, decoded, _ = any_pair()
    sal = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 8, 10), dtype=np.uint8))
    f, d = filtered.double().numpy(), decoded.double().numpy()
    exact = ((f - d) ** 2 / (1 + 20 * sal.double().numpy()[:, None] / 255)).mean()
    terms = Surrogate(sal_both_frames=True).terms(filtered, original, decoded, sal)
    assert float(terms[1]) == pytest.approx(exact, rel=1e-6)


def test_upstream_against_numpy() -> None:
    filtered, original, decoded, sal = any_pair()
    rng = np.random.default_rng(2)
    to_pose, to_class = rng.standard_normal((480, 12)) / 2000, rng.standard_normal((3, 4)) / 40

    def pose(pair: torch.Tensor) -> torch.Tensor:
        return pair.reshape(1, -1) @ torch.from_numpy(to_pose).to(pair.dtype)

    def seg(pair: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nchw,ck->nkhw", pair[1:], torch.from_numpy(to_class).to(pair.dtype))

    f, o, d = (t.double().numpy() for t in (filtered, original, decoded))
    six = ((f.reshape(-1) @ to_pose)[:6] - (o.reshape(-1) @ to_pose)[:6]) ** 2
    p = [np.exp(np.einsum("chw,ck->khw", x[1], to_class)) for x in (f, o)]
    p = [x / x.sum(axis=0) for x in p]
    exact = [
        1 - (p[0] * p[1]).sum(axis=0).mean(),
        six.mean(),
        ((f[1] - d[1]) ** 2 / (1 + 20 * sal.double().numpy()[0] / 255)).mean(),
    ]
    objective = Upstream.of(Recipe(), pose, seg)
    terms = objective.terms(filtered, original, decoded, sal)
    assert terms.tolist() == pytest.approx(exact, rel=1e-5)
    value = 100 * exact[0] + np.sqrt(10 * exact[1] + 1e-8) + 0.1 * exact[2]
    assert float(objective.value(terms)) == pytest.approx(value, rel=1e-5)
    # The twin: all twelve outputs of the pose network give another number.
    assert (((f - o).reshape(-1) @ to_pose) ** 2).mean() != pytest.approx(exact[1], rel=1e-3)


def test_equal_frames_have_a_slope_that_is_a_number() -> None:
    _, original, _, sal = any_pair()
    filtered = original.clone().requires_grad_()
    objective = Upstream(lambda x: x.reshape(1, -1)[:, :9], lambda x: x[1:] / 100)
    objective.value(objective.terms(filtered, original, original, sal)).backward()  # type: ignore[no-untyped-call]
    assert filtered.grad is not None
    assert filtered.grad.isfinite().all()


def test_values_are_named_apart_and_no_surrogate_is_called_a_score() -> None:
    assert Surrogate.quantity != Upstream.quantity
    assert not any("score" in text for text in (Surrogate.quantity, Upstream.quantity, *Surrogate.names))
    assert isinstance(Surrogate(), Local)
    assert not isinstance(Upstream(abs, abs), Local)


def test_emphasis_by_hand() -> None:
    maps = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    assert emphasis(maps, 20.0).flatten().tolist() == pytest.approx([1, 1 / 5, 1 / 21])


def test_saliency_is_strongest_at_an_edge_and_nothing_on_a_flat_picture() -> None:
    frame = np.full((60, 80, 3), 40, dtype=np.uint8)
    assert not saliency(frame).any()
    frame[:, 40:] = 200
    found = saliency(frame)
    assert (str(found.dtype), found.shape, int(found.max())) == ("uint8", (60, 80), 255)
    assert found[:, 39:41].min() > 200
    assert not found[:, :25].any()
    assert np.array_equal(saliency(frame[:, ::-1]), found[:, ::-1])  # it has no side
