"""A training that was interrupted ends with the same bytes; one whose state lacks a part does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.dose.npz import read_npz, write_npz
from jobs.drift.digests import arrays_sha256
from jobs.drift.train_state import ARRAYS, STATE
from tests.jobs.context import Left
from tests.jobs.drift.small import Attempt, data

FILES = ("model.npz", "config.json", "models/step-000008.npz", "models/step-000012.npz")


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"data": data(tmp_path_factory.mktemp("bars") / "data")}


@pytest.fixture(scope="module")
def whole(bars: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Attempt:
    return go(tmp_path_factory.mktemp("whole"), bars)


def go(root: Path, inputs: dict[str, Path], number: int = 1, **params: Any) -> Attempt:
    ctx = Attempt(root, inputs, number, last_checkpoints=2, **params)
    ctx.run()
    return ctx


def left_at(root: Path, inputs: dict[str, Path], step: int, **params: Any) -> None:
    """An attempt that is asked to stop after so many steps."""
    ctx = Attempt(root, inputs, last_checkpoints=2, **params)
    ctx.after = step
    with pytest.raises(Left):
        ctx.run()
    assert (root / "checkpoints" / f"{step:06d}" / STATE).is_file()


def same(one: Attempt, other: Attempt) -> bool:
    return all(one.bytes_of(name) == other.bytes_of(name) for name in FILES)


@pytest.mark.parametrize("step", [1, 7, 9])
def test_interrupted_it_ends_with_the_same_bytes(
    bars: dict[str, Path], whole: Attempt, tmp_path: Path, step: int
) -> None:
    left_at(tmp_path, bars, step)
    again = go(tmp_path, bars, 2)
    assert same(again, whole)
    assert again.tables["drift_steps"] == whole.tables["drift_steps"]
    assert again.tables["drift_training"][0]["resumed_at"] == step
    assert f"going on from the checkpoint of step {step}" in " ".join(again.logs)


def test_the_autoencoder_is_trained_once(bars: dict[str, Path], tmp_path: Path) -> None:
    more = {"encoder": "autoencoder", "autoencoder_steps": 3}
    plain = go(tmp_path / "plain", bars, **more)
    left_at(tmp_path / "cut", bars, 5, **more)
    again = go(tmp_path / "cut", bars, 2, **more)
    assert same(again, plain)
    assert again.bytes_of("encoder.npz") == plain.bytes_of("encoder.npz")
    assert not any("autoencoder:" in line for line in again.logs), "its weights were in the checkpoint"
    for key in ("encoder_error", "model_sha256"):
        assert again.tables["drift_training"][0][key] == plain.tables["drift_training"][0][key]


Change = Callable[[dict[str, Any], dict[str, Any]], None]


def _queue(arrays: dict[str, Any], state: dict[str, Any]) -> None:
    for name in [n for n in arrays if n.startswith("q.class.")]:
        arrays[name] = arrays[name][::-1].copy()


def _noise(arrays: dict[str, Any], state: dict[str, Any]) -> None:
    import torch

    arrays["rng.noise"] = torch.Generator().manual_seed(0).get_state().numpy()


def _chance(arrays: dict[str, Any], state: dict[str, Any]) -> None:
    state["chance"] = np.random.default_rng([0, 1]).bit_generator.state


def _queue_chance(arrays: dict[str, Any], state: dict[str, Any]) -> None:
    state["queue_chance"] = np.random.default_rng([0, 2]).bit_generator.state


def _moments(arrays: dict[str, Any], state: dict[str, Any]) -> None:
    for name in [n for n in arrays if n.startswith("o.")]:
        del arrays[name]


def _average(arrays: dict[str, Any], state: dict[str, Any]) -> None:
    for name in [n for n in arrays if n.startswith("e.")]:
        arrays[name] = arrays[f"g.{name[2:]}"]


@pytest.mark.parametrize("change", [_queue, _noise, _chance, _queue_chance, _moments, _average])
def test_a_state_without_one_of_its_parts_ends_elsewhere(
    bars: dict[str, Path], whole: Attempt, tmp_path: Path, change: Change
) -> None:
    left_at(tmp_path, bars, 5)
    folder = tmp_path / "checkpoints" / "000005"
    arrays, state = read_npz(folder / ARRAYS), json.loads((folder / STATE).read_text())
    change(arrays, state)
    write_npz(folder / ARRAYS, arrays)
    (folder / STATE).write_text(json.dumps({**state, "arrays": arrays_sha256(arrays)}))
    shutil.rmtree(tmp_path / "checkpoints" / "000004")
    again = go(tmp_path, bars, 2)
    assert again.tables["drift_training"][0]["resumed_at"] == 5
    assert again.bytes_of("model.npz") != whole.bytes_of("model.npz")


def test_a_state_that_is_not_this_trainings_is_passed_over(
    bars: dict[str, Path], whole: Attempt, tmp_path: Path
) -> None:
    left_at(tmp_path, bars, 5)
    newest = tmp_path / "checkpoints" / "000005"
    arrays = read_npz(newest / ARRAYS)
    write_npz(newest / ARRAYS, {**arrays, "g.first.bias": arrays["g.first.bias"] + 1})
    older = tmp_path / "checkpoints" / "000004"
    state = json.loads((older / STATE).read_text())
    (older / STATE).write_text(json.dumps({**state, "scheduler": {**state["scheduler"], "rate": 1.0}}))
    again = go(tmp_path, bars, 2)
    said = " ".join(again.logs)
    assert "does not match its digest" in said
    assert "of another scheduler" in said
    assert "it starts over" in said
    assert same(again, whole)
    left_at(tmp_path / "other", bars, 5, rate=2e-3)
    other = go(tmp_path / "other", bars, 2)
    assert "of another recipe" in " ".join(other.logs)
    assert same(other, whole)
