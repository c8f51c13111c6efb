"""Nearest by cosine against a loop, and what a model that remembers its training set looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kernels.devices import KernelRefused
from kernels.drifting import metrics_nearest
from kernels.drifting.metrics_nearest import Nearest, closeness, nearest

Array = npt.NDArray[Any]


def made(n: int, d: int, seed: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal((n, d))


def test_the_nearest_is_what_a_loop_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, others = made(23, 7, 1), made(31, 7, 2)
    monkeypatch.setattr(metrics_nearest, "_BLOCK", 5)
    found = nearest(queries, others)
    for at, query in enumerate(queries):
        cosines = [float(query @ o / np.sqrt((query @ query) * (o @ o))) for o in others]
        assert found.index[at] == int(np.argmax(cosines))
        assert found.cosine[at] == pytest.approx(max(cosines), abs=1e-14)


def test_the_first_of_equal_ones_and_zero_to_nothing() -> None:
    found = nearest([[2.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [3.0, 0.0]])
    assert found.index.tolist() == [1, 0]
    assert found.cosine.tolist() == [1.0, 0.0]


def test_statistics_with_labels_carried_as_a_column() -> None:
    found = Nearest(np.array([0, 2, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4]))
    said = closeness(found, [5, 6, 7, 7], [5, 7, 8])
    assert (said.n, said.mean, said.median, said.label_match) == (4, 0.25, 0.25, 0.75)
    assert said.p95 == pytest.approx(0.3 + 0.85 * 0.1)


def test_copies_stand_out_from_samples_of_the_same_kind() -> None:
    train = made(200, 16, 3)
    labels = np.arange(200) % 4
    new = closeness(nearest(made(80, 16, 4), train), np.arange(80) % 4, labels)
    copied = closeness(nearest(train[:80] * 1.7, train), labels[:80], labels)
    assert copied.p95 == pytest.approx(1)
    assert copied.label_match == 1
    assert new.p95 < 0.9


@pytest.mark.parametrize(
    ("queries", "others"),
    [(np.zeros((0, 3)), np.zeros((2, 3))), (np.zeros((2, 3)), np.zeros((2, 4))), (np.full((1, 2), np.inf), [[1.0, 2]])],
)
def test_what_cannot_be_compared_is_refused(queries: Any, others: Any) -> None:
    with pytest.raises(KernelRefused):
        nearest(queries, others)


def test_a_label_is_needed_for_each() -> None:
    with pytest.raises(KernelRefused):
        closeness(Nearest(np.array([0, 2]), np.array([0.1, 0.2])), [1, 1], [1, 1])
