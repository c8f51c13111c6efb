"""The loop: rows as the recipe has them, the average and the zero last layer, a stop wish, a NaN, threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from jobs.train.loop import NotFinite, StepRow, train
from jobs.train.model import Model, views
from jobs.train.objective import Surrogate
from jobs.train.recipe import Recipe
from tests.jobs.train.small import Remembered, pictures, recipe

CPU = torch.device("cpu")
FRAMES = pictures(5, 26, 32)


def run(rule: Recipe, hooks: Remembered, *, threads: int = 1, read_every: int = 20) -> Model:
    model = Model(rule, CPU)
    train(model, FRAMES, Surrogate.of(rule), hooks, threads=threads, read_every=read_every)
    return model


@pytest.mark.parametrize("read_every", [1, 2, 20])
def test_the_rows_are_those_of_the_recipe(read_every: int) -> None:
    rule, hooks = recipe(), Remembered()
    run(rule, hooks, read_every=read_every)
    assert [row.step for row in hooks.seen] == list(range(1, 13))
    for row in hooks.seen:
        assert (row.epoch, row.rate, row.pairs) == (
            (row.step - 1) // 3,
            rule.rate_of(row.step - 1),
            rule.pairs_of(row.step - 1),
        )
        assert row.value == pytest.approx(row.terms["reconstruction"] + 0.1 * row.terms["sal"], rel=1e-6)
        assert row.seconds > 0
        assert row.gradient_norm > 0
        assert row.ema_distance > 0
    assert hooks.seen[0].terms["sal"] == 0  # the first filter is the identity
    assert hooks.seen[-1].terms["sal"] > 0


def test_it_trains_and_the_zero_last_layer_survives() -> None:
    rule = recipe(epochs=40, rate=3e-3)
    hooks = Remembered()
    model = run(rule, hooks)
    first, last = (sum(row.value for row in part) for part in (hooks.seen[:3], hooks.seen[-3:]))
    assert last < 0.9 * first
    assert not views(Model(rule, CPU).flat, 4)["w3"].any()
    assert (views(model.flat, 4)["w3"] != 0).all()


def test_one_training_gives_the_same_bits_on_any_number_of_threads() -> None:
    one, three = (run(recipe(), Remembered(), threads=threads) for threads in (1, 3))
    assert one.weights().digest() == three.weights().digest()
    assert torch.equal(one.ema, three.ema)
    # The twin: another seed gives others.
    assert run(recipe(seed=1), Remembered()).weights().digest() != one.weights().digest()


def test_the_seeds_divisor_makes_the_last_groups_gradient_smaller() -> None:
    norms = []
    for own in (True, False):
        hooks = Remembered()
        run(recipe(epochs=1, divide_by_own_length=own, rate=1e-9), hooks)
        norms.append([row.gradient_norm for row in hooks.seen])
    assert norms[0][:2] == norms[1][:2]
    assert norms[0][2] == pytest.approx(2 * norms[1][2], rel=1e-5)


def test_a_stop_wish_ends_with_a_checkpoint_and_all_rows() -> None:
    hooks, rule = Remembered(stop_at=5), recipe()
    model = Model(rule, CPU)
    assert not train(model, FRAMES, Surrogate.of(rule), hooks)
    assert (hooks.kept, len(hooks.seen), model.steps) == ([5], 5, 5)
    hooks.stop_at = None
    assert train(model, FRAMES, Surrogate.of(rule), hooks)
    assert [row.step for row in hooks.seen] == list(range(1, 13))


def test_rows_come_before_the_checkpoint_that_they_lead_to() -> None:
    order: list[str] = []

    class Ordered(Remembered):
        def rows(self, rows: Sequence[StepRow]) -> None:
            order.extend(f"row {row.step}" for row in rows)

        def checkpoint(self, model: Model) -> None:
            order.append(f"checkpoint {model.steps}")

    run(recipe(epochs=1), Ordered(due_at=frozenset({2})))
    assert order == ["row 1", "row 2", "checkpoint 2", "row 3"]


@dataclass(frozen=True)
class Breaks(Surrogate):
    """A surrogate that is no number from its n-th call on."""

    after: int = 4
    calls: ClassVar[list[int]] = []

    def slope(
        self, filtered: Tensor, original: Tensor, decoded: Tensor, emphasis: Tensor | None, pixels: int
    ) -> tuple[Tensor, Tensor]:
        self.calls.append(1)
        slope, terms = super().slope(filtered, original, decoded, emphasis, pixels)
        return (slope, terms) if len(self.calls) < self.after else (slope * math.nan, terms)


@pytest.mark.parametrize("due", [frozenset({6}), frozenset({4, 5, 6})], ids=["late", "every step"])
def test_a_nan_is_stopped_with_its_step_and_never_reaches_a_checkpoint(due: frozenset[int]) -> None:
    Breaks.calls.clear()
    rule = recipe(pairs_per_epoch=5, group=1)
    averages: list[Tensor] = []
    hooks = Remembered(due_at=due | {2}, save=lambda model: averages.append(model.ema.clone()))
    model = Model(rule, CPU)
    with pytest.raises(NotFinite, match=r"step \d+ \(epoch 0, pairs \[\d\]\) has a loss or a gradient that is no") as e:
        train(model, FRAMES, Breaks(after=2 * 3 + 1), hooks)
    # A strip is a frame here at most, so a pair has one or two; step by step the count tells which one broke.
    broken = e.value.row.step
    assert [row.step for row in hooks.seen] == list(range(1, broken))
    assert all(step < broken for step in hooks.kept)
    assert 2 in hooks.kept
    assert all(average.isfinite().all() for average in averages)
    assert model.ema.isfinite().all()
    assert not model.finite


def test_the_data_must_be_that_of_the_recipe() -> None:
    with pytest.raises(ValueError, match="the data has 5 pairs of frames, and the recipe 6"):
        train(Model(recipe(pairs=6), CPU), FRAMES, Surrogate(), Remembered())
