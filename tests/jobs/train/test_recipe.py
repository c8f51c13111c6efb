"""The recipe: the seed's schedule and counts, every value checked, groups that depend on the epoch alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from jobs.train.recipe import Recipe, RecipeRefused, branch_name, branch_of, factor


def test_the_rates_of_the_science_page() -> None:
    recipe = Recipe(epochs=500)
    after = {epoch: recipe.rate_of(epoch * recipe.steps_per_epoch) for epoch in (350, 410)}
    assert {epoch: round(rate, 6) for epoch, rate in after.items()} == {350: 0.000113, 410: 0.000049}
    assert [factor(e, 500) for e in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factor(5, 500) == 1.0
    # Half way down the cosine, and the last epoch, computed by hand.
    assert factor(5 + 45, 95) == pytest.approx(0.98 / 2 + 0.02)
    assert factor(499, 500) == pytest.approx(0.49 * (1 + math.cos(math.pi * 494 / 495)) + 0.02, rel=1e-14)
    # The twin: a schedule without its floor gives other numbers.
    assert round(5e-4 * 0.5 * (1 + math.cos(math.pi * 345 / 495)), 6) != 0.000113


def test_the_steps_of_the_science_page() -> None:
    assert Recipe(epochs=500).steps == 9_500
    assert Recipe(epochs=1000).steps == 19_000
    assert Recipe().steps_per_epoch == 19
    groups = Recipe().groups(0)
    assert [len(g) for g in groups] == [4] * 18 + [3]
    assert len({i for g in groups for i in g}) == 75


def test_a_short_group_is_a_mean_over_its_own_pairs_unless_the_seed_is_wanted() -> None:
    assert Recipe().divisor(3) == 3
    assert Recipe(divide_by_own_length=False).divisor(3) == 4


def test_every_epoch_has_a_permutation_of_its_own_that_depends_on_the_seed_alone() -> None:
    recipe = Recipe()
    assert recipe.groups(3) == Recipe(rate=1.0).groups(3)
    assert recipe.groups(3) != recipe.groups(4)
    assert recipe.groups(3) != Recipe(seed=1).groups(3)
    step = 3 * 19 + 7
    assert (recipe.where(step), recipe.pairs_of(step)) == ((3, 7), recipe.groups(3)[7])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5: it must be a whole number"),
        ({"h": True}, "h is True"),
        ({"rate": 0.0}, "rate is 0.0: it must be above 0"),
        ({"rate": math.nan}, "rate is nan"),
        ({"alpha": -1}, "alpha is -1"),
        ({"clip": 0}, "clip is 0"),
        ({"decay": 1.0}, "decay is 1.0: it must be at least 0 and below 1"),
        ({"beta2": 1}, "beta2 is 1"),
        ({"cut_largest": 1}, "cut_largest is 1: say true or false"),
        ({"pairs": 10}, "an epoch cannot see 75 of 10 pairs"),
        ({"seed": -1}, "seed is -1"),
        ({"pose_epsilon": 0}, "pose_epsilon is 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeRefused, match=said.replace(".", r"\.")):
        Recipe(**changed)


def test_every_value_is_in_the_digest() -> None:
    recipe = Recipe()
    others: dict[str, Any] = {
        name: (not value) if isinstance(value, bool) else value / 2 if isinstance(value, float) else value + 1
        for name, value in vars(recipe).items()
        if name != "pairs_per_epoch"
    }
    digests = {replace(recipe, **{name: value}).digest() for name, value in others.items()}
    assert len(digests | {recipe.digest()}) == len(others) + 1
    assert Recipe().digest() == recipe.digest()


def test_names() -> None:
    assert branch_name(500, 20.0, 32) == Recipe(h=32).name == "long500_qat_ema_alpha20_h32"
    for branch in ((1000, 30.0, 24), (500, 0.5, 16), (7, 12345678.0, 1), (7, 1e20, 1), (10, 1e-05, 4)):
        assert branch_of(branch_name(*branch)) == branch
    with pytest.raises(ValueError, match="no branch"):
        branch_of("long500_qat_alpha20_h32")
