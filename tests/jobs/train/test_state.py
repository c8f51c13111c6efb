"""Going on exactly: pieces through files equal one go, bit for bit; what does not match is refused, by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.train.loop import train
from jobs.train.model import Model
from jobs.train.objective import Surrogate
from jobs.train.recipe import Recipe
from jobs.train.state import Identity, Mode, StateRefused, load, save
from tests.jobs.train.small import Remembered, pictures, recipe

CPU = torch.device("cpu")
FRAMES = pictures(5, 26, 32)


def identity(rule: Recipe, **changed: str) -> Identity:
    return Identity(**{"recipe": rule.digest(), "data": "d" * 64, "code": "c" * 64, **changed})


def digests(model: Model) -> tuple[str, str]:
    """Of the weights and of their average."""
    return model.weights().digest(), hashlib.sha256(model.ema.numpy().tobytes()).hexdigest()


def train_on(model: Model, hooks: Remembered) -> bool:
    return train(model, FRAMES, Surrogate.of(model.recipe), hooks, read_every=2)


class Killed(Remembered):
    """Hooks that end the training in the middle of things, after so many steps."""

    def stopping(self) -> bool:
        if self.made == self.stop_at:
            raise KeyboardInterrupt
        return False


def in_pieces(rule: Recipe, folder: Path, seed: int) -> Model:
    """Train with a state after some steps, killed after a random number of others each time.

    What is lost at a kill is everything in memory, the random generators of the process among it.
    """
    random = np.random.default_rng(seed)
    kept: list[int] = []

    def keep(model: Model) -> None:
        (folder / str(model.steps)).mkdir()
        save(folder / str(model.steps), model, identity(rule))
        kept.append(model.steps)

    while True:
        model = Model(rule, CPU)
        if kept:
            assert load(folder / str(kept[-1]), model, identity(rule)) == kept[-1]
        due = model.steps + int(random.integers(1, 3))
        try:
            train_on(model, Killed(due_at=frozenset({due}), stop_at=due + int(random.integers(0, 3)), save=keep))
            return model
        except KeyboardInterrupt:
            torch.manual_seed(int(random.integers(1000)))
            np.random.seed(int(random.integers(1000)))


@pytest.mark.parametrize("seed", range(4))
def test_pieces_with_kills_equal_one_go_bit_for_bit(seed: int, tmp_path: Path) -> None:
    rule = recipe()
    assert rule.steps == 12
    whole = Model(rule, CPU)
    assert train_on(whole, Remembered())
    pieces = in_pieces(rule, tmp_path, seed)
    assert pieces.steps == 12
    assert digests(pieces) == digests(whole)


def test_twelve_pieces_in_any_order_of_kills_give_the_same_rows(tmp_path: Path) -> None:
    """Every step from the state of the step before, the steps in random order."""
    rule = recipe()

    def keep(model: Model) -> None:
        (tmp_path / str(model.steps)).mkdir()
        save(tmp_path / str(model.steps), model, identity(rule))

    whole = Remembered(due_at=frozenset(range(1, 12)), save=keep)
    first = Model(rule, CPU)
    train_on(first, whole)
    for step in np.random.default_rng(0).permutation(range(1, 12)).tolist():
        model = Model(rule, CPU)
        load(tmp_path / str(step), model, identity(rule))
        again = Remembered(stop_at=step + 1)
        train_on(model, again)
        own = [vars(row) | {"seconds": 0} for row in again.seen]
        assert own == [vars(whole.seen[step]) | {"seconds": 0}]
    model = Model(rule, CPU)
    assert digests(model) != digests(first)
    assert load(tmp_path / "11", model, identity(rule)) == 11
    train_on(model, Remembered())
    assert digests(model) == digests(first)


@pytest.mark.parametrize("lost", ["ema", "first_moment", "second_moment", "adam_steps", "weights"])
def test_a_state_without_one_of_its_parts_would_be_seen(lost: str, tmp_path: Path) -> None:
    """The twin of the tests above: what a state forgets, the digests show."""
    rule = recipe()
    whole = Model(rule, CPU)
    train_on(whole, Remembered())
    model = Model(rule, CPU)
    train_on(model, Remembered(stop_at=5))
    with torch.no_grad():
        fresh = Model(rule, CPU)
        {
            "ema": lambda: model.ema.copy_(fresh.ema),
            "first_moment": lambda: model.first_moment.zero_(),
            "second_moment": lambda: model.second_moment.zero_(),
            "adam_steps": lambda: model.adam_steps.zero_(),
            "weights": lambda: model.flat.copy_(fresh.flat),
        }[lost]()
    assert model.steps == 5
    train_on(model, Remembered())
    assert digests(model) != digests(whole)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = Model(recipe(), CPU)
    train_on(model, Remembered(stop_at=5))
    save(tmp_path, model, identity(recipe()))
    return tmp_path


def change(name: str, value: Any) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        state[name] = value
        (folder / "state.json").write_text(json.dumps(state))

    return changed


def flip(name: str) -> Callable[[Path], None]:
    def flipped(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)

    return flipped


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (change("data", "e" * 64), "another data"),
        (change("code", "e" * 64), "another code"),
        (change("recipe", "e" * 64), "another recipe"),
        (change("h", 5), "5 hidden channels, not 4"),
        (change("torch", "1.0"), "made by torch 1.0"),
        (change("step", 13), "its step 13"),
        (change("format", 2), "not of format 1"),
        (flip("weights.npy"), "weights.npy was changed"),
        (flip("ema.npy"), "ema.npy was changed"),
        (flip("torch_rng.npy"), "torch_rng.npy was changed"),
        (lambda f: (f / "first_moment.npy").unlink(), "first_moment.npy cannot be read"),
        (lambda f: (f / "second_moment.npy").write_bytes(b"\x93NUMPY"), "second_moment.npy cannot be read"),
        (lambda f: (f / "state.json").write_text('{"form'), "state.json cannot be read"),
        (lambda f: (f / "state.json").unlink(), "state.json cannot be read"),
    ],
)
def test_what_does_not_match_is_refused_and_the_model_stays(
    damage: Callable[[Path], None], said: str, folder: Path
) -> None:
    model = Model(recipe(), CPU)
    before = digests(model)
    damage(folder)
    with pytest.raises(StateRefused, match=said):
        load(folder, model, identity(recipe()))
    assert (digests(model), model.steps) == (before, 0)


def test_every_reason_is_named_and_an_unchanged_state_is_taken(folder: Path) -> None:
    with pytest.raises(StateRefused, match=r"another data .*another code"):
        load(folder, Model(recipe(), CPU), identity(recipe(), data="x", code="y"))
    assert load(folder, Model(recipe(), CPU), identity(recipe())) == 5


def test_the_other_modes(folder: Path) -> None:
    exact, only, reset = (Model(recipe(), CPU) for _ in range(3))
    load(folder, exact, identity(recipe()))
    other = identity(recipe(epochs=9), data="x", code="y")
    assert load(folder, only, other, Mode.MODEL_ONLY) == load(folder, reset, other, Mode.RESET_RATE) == 0
    assert digests(only) == digests(reset) == digests(exact)
    assert (float(only.adam_steps), float(reset.adam_steps), float(exact.adam_steps)) == (0, 5, 5)
    assert not only.first_moment.any()
    assert torch.equal(reset.first_moment, exact.first_moment)
    assert reset.first_moment.any()
    assert (only.steps, reset.steps, exact.steps) == (0, 0, 5)


def test_what_is_no_number_is_never_kept(tmp_path: Path) -> None:
    model = Model(recipe(), CPU)
    with torch.no_grad():
        model.flat[3] = float("inf")
    with pytest.raises(StateRefused, match="weights is not finite"):
        save(tmp_path, model, identity(recipe()))
    model = Model(recipe(), CPU)
    model.finite.fill_(False)
    with pytest.raises(StateRefused, match="a loss is not finite"):
        save(tmp_path, model, identity(recipe()))
    assert not list(tmp_path.iterdir())
