"""Checks of the numbers: every row of an evaluation and of the nearest neighbours, made again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.audit import numbers
from jobs.audit.ledger import Ledger, Unauditable
from jobs.audit.network import forward
from jobs.audit.package import Data, Drawn, Judge, Pictures, agree, in_common
from jobs.audit.reading import Arrays, array, arrays, document, weights_digest

WAIVER = "allow_shared_encoder"
Row = Mapping[str, Any]


def check_evaluation(
    ledger: Ledger, folder: Path, data: Data, judge: Judge, drawn: Drawn, config: Row | None, encoder: Arrays | None
) -> dict[str, float]:
    """Rows are those that must be, each about this package, with numbers that come out again.

    Args:
        config, encoder: of the training; None: none was given.

    Returns:
        what the audit found, by metric.

    Raises:
        Unauditable: a file is missing.
    """
    said, kept = document(folder / "evaluation.json"), arrays(folder / "features.npz")
    rows = _rows(said)
    own, held = drawn.pictures, data.splits["held"]
    features, probabilities = forward(judge.weights, own.images)
    ledger.same("eval", "statistics content", weights_digest(kept), said.get("features_sha256"))
    for name, value in (("features", features), ("probabilities", probabilities)):
        agree(ledger, "eval", f"{name} of the samples", value, kept)
    floor = _floor(held, min(len(own.names), len(held.names)))
    ledger.same("eval", "held-out images of the floor", [held.names[i] for i in floor], said.get("floor_ids"))
    held_features, held_probabilities = forward(judge.weights, held.images[floor])
    real = Pictures(held.images[floor], held.labels[floor], [held.names[i] for i in floor])
    made = {
        **_measure(judge, own, features, probabilities, "fid", "is_mean", "accuracy"),
        **_measure(judge, real, held_features, held_probabilities, "fid_floor", "is_floor", "accuracy_floor"),
    }
    parts = {name: real if name.endswith("_floor") else own for name in made}
    if len(own.names) > len(held.names):
        few = _floor(own, len(held.names))
        made["fid_matched"] = (numbers.distance(features[few], judge.features), None)
        parts["fid_matched"] = Pictures(own.images[few], own.labels[few], [own.names[i] for i in few])
    ledger.same("eval", "metrics", sorted(made), sorted(str(row.get("metric")) for row in rows))
    leaks = None if encoder is None else in_common(judge.weights, encoder)
    for row in rows:
        name = str(row.get("metric"))
        if name in made:
            _check_numbers(ledger, row, name, made[name], parts[name])
            _check_words(ledger, row, name, judge, drawn, len(data.splits["reference"].names), config)
            _check_leak(ledger, row, name, leaks)
    return {name: value for name, (value, _) in made.items()}


def check_nearest(ledger: Ledger, folder: Path, data: Data, drawn: Drawn) -> dict[str, dict[str, float]]:
    """Both subsets are drawn again, and every cosine.

    Returns:
        what the audit found, by set.

    Raises:
        Unauditable: a file is missing, or it names no subset.
    """
    said, kept = document(folder / "nn.json"), arrays(folder / "nn.npz")
    rows = {str(row.get("which")): row for row in _rows(said)}
    ledger.same("nn", "sets", ["held", "samples"], sorted(str(row.get("which")) for row in _rows(said)))
    train, held, own = data.splits["train"], data.splits["held"], drawn.pictures
    mean = train.images.astype(np.float64).mean(axis=0)
    others = (train.images.astype(np.float64) - mean).reshape(len(train.names), -1)
    seed, n = said.get("seed"), len(array(kept, "samples_index", "iu", None))
    one, two = numbers.tally(own.labels.tolist()), numbers.tally(held.labels.tolist())
    both = {label: min(count, two[label]) for label, count in one.items() if label in two}
    if type(seed) is not int or n > sum(both.values()):
        raise Unauditable(f"no {n} of {sum(both.values())} can be drawn with the seed {seed!r}")
    wanted = numbers.shares(both, n)
    known, found = set(train.digests), {}
    for which, pictures in (("samples", own), ("held", held)):
        at = numbers.chosen(pictures.names, pictures.labels.tolist(), wanted, which, seed)
        part = Pictures(pictures.images[at], pictures.labels[at], [pictures.names[i] for i in at])
        _same_integers(ledger, kept, f"{which}_index", np.asarray(at))
        _same_integers(ledger, kept, f"{which}_label", part.labels)
        close, labels = _check_cosines(ledger, kept, which, part, mean, others, train.labels)
        numbers_of = {
            "mean": math.fsum(close) / n,
            "median": numbers.percentile(close, 0.5),
            "p95": numbers.percentile(close, 0.95),
            "label_match": sum(a == b for a, b in zip(labels, part.labels.tolist(), strict=True)) / n,
        }
        row = rows.get(which, {})
        for name, value in numbers_of.items():
            ledger.near("nn", f"{which}: {name}", value, row.get(name))
        for name, fixed in (
            ("against", "train"),
            ("n", n),
            ("n_against", len(train.names)),
            ("seed", seed),
            ("copies", sum(digest in known for digest in part.digests)),
            ("samples", pictures.content),
            ("train", train.content),
        ):
            ledger.same("nn", f"{which}: {name}", fixed, row.get(name))
        found[which] = {**numbers_of, "n": float(n)}
    return found


def _check_cosines(
    ledger: Ledger,
    kept: Arrays,
    which: str,
    part: Pictures,
    mean: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
) -> tuple[list[float], list[int]]:
    """Greatest cosines, made again, and labels of what the evidence calls nearest, where it is so close."""
    n = len(part.names)
    nearest = array(kept, f"{which}_nearest", "iu", n)
    if int(nearest.min()) < 0 or int(nearest.max()) >= len(others):
        raise Unauditable(f"{which}_nearest points outside the train split")
    rows = (part.images.astype(np.float64) - mean).reshape(n, -1)
    greatest, short = [], 0.0
    for row, at in zip(rows, nearest.tolist(), strict=True):
        every = numbers.cosines(row, others)
        greatest.append(float(every.max()))
        short = max(short, greatest[-1] - float(every[at]))
    ledger.holds(
        "nn", f"{which}: what is called nearest is", f"within {ledger.tolerance:g}", short, short <= ledger.tolerance
    )
    agree_cosines = np.asarray(greatest)
    stood = array(kept, f"{which}_cosine", "f", n)
    furthest = float(np.abs(stood - agree_cosines).max())
    ledger.holds("nn", f"{which}: cosines", f"within {ledger.tolerance:g}", furthest, furthest <= ledger.tolerance)
    _same_integers(ledger, kept, f"{which}_nearest_label", labels[nearest])
    return greatest, [int(label) for label in labels[nearest]]


def _check_numbers(ledger: Ledger, row: Row, name: str, made: tuple[float, float | None], part: Pictures) -> None:
    value, spread = made
    ledger.near("eval", f"{name}: value", value, row.get("value"))
    if spread is None:
        ledger.same("eval", f"{name}: std", None, row.get("std"))
    else:
        ledger.near("eval", f"{name}: std", spread, row.get("std"))
    ledger.same("eval", f"{name}: n", len(part.names), row.get("n"))
    ledger.same("eval", f"{name}: n_unique", part.different, row.get("n_unique"))
    ledger.same("eval", f"{name}: samples", part.content, row.get("samples"))


def _check_words(
    ledger: Ledger, row: Row, name: str, judge: Judge, drawn: Drawn, reference_n: int, config: Row | None
) -> None:
    for word, value in (
        ("n_reference", reference_n),
        ("contract", judge.contract),
        ("reference", judge.payload.get("reference_sha256")),
        ("extractor", judge.digest),
        ("profile", judge.payload.get("profile")),
    ):
        ledger.same("eval", f"{name}: {word}", value, row.get(word))
    device = row.get("device_class")
    ledger.holds("eval", f"{name}: device_class", "cpu, or cuda and its name", device, _device(device))
    if name.endswith("_floor"):
        ledger.same("eval", f"{name}: control", "held", row.get("control"))
        ledger.same("eval", f"{name}: alpha", None, row.get("alpha"))
        return
    alpha = drawn.stated.get("alpha")
    if isinstance(alpha, (int, float)) and not isinstance(alpha, bool):
        ledger.near("eval", f"{name}: alpha", float(alpha), row.get("alpha"))
    else:
        ledger.same("eval", f"{name}: alpha", None, row.get("alpha"))
    ledger.same("eval", f"{name}: seed", drawn.stated.get("seed"), row.get("seed"))
    ledger.same("eval", f"{name}: train", drawn.stated.get("train_sha256"), row.get("train"))
    control = row.get("control")
    if config is None:
        ledger.holds("eval", f"{name}: control", "none, or untrained", control, control in ("", "untrained"))
    else:
        ledger.same("eval", f"{name}: control", "untrained" if _untrained(config) else "", control)


def _untrained(config: Row) -> bool:
    """Does a training's configuration say that nothing was trained?"""
    recipe = config.get("recipe")
    named = recipe.get("variant") if isinstance(recipe, dict) else None
    return named == "untrained" or config.get("steps_done") == 0


def _check_leak(ledger: Ledger, row: Row, name: str, leaks: list[str] | None) -> None:
    """Weights of the training encoder in the extractor pass only where the row says so, and that it was waived."""
    if leaks is None:
        said = row.get("leakage")
        ledger.holds("eval", f"{name}: leakage", "no training was given to compare", said, isinstance(said, str))
        return
    ledger.same("eval", f"{name}: leakage", "shared" if leaks else "none", row.get("leakage"))
    if leaks:
        what = f"a waiver, for {', '.join(leaks)} of the training encoder is in the extractor"
        ledger.holds("eval", f"{name}: waiver", what, row.get("waiver"), row.get("waiver") == WAIVER)


def _measure(
    judge: Judge,
    pictures: Pictures,
    features: npt.NDArray[np.float64],
    probabilities: npt.NDArray[np.float64],
    fid: str,
    score: str,
    right: str,
) -> dict[str, tuple[float, float | None]]:
    """(value, spread) by metric, under the contract."""
    metrics = judge.payload.get("metrics")
    words = metrics.get("inception_score") if isinstance(metrics, dict) else None
    splits = words.get("splits") if isinstance(words, dict) else None
    order = words.get("order") if isinstance(words, dict) else None
    if type(splits) is not int or not 1 <= splits <= len(features) or order != ["inception", 0]:
        raise Unauditable(f"the contract's inception score is {words!r}")
    by_lot = numbers.lots(pictures.names, "inception", 0)
    out: dict[str, tuple[float, float | None]] = {
        fid: (numbers.distance(features, judge.features), None),
        score: numbers.score(probabilities[by_lot], splits),
    }
    if judge.payload.get("profile") == "cached":
        out[right] = (numbers.share_right(probabilities, pictures.labels), None)
    return out


def _floor(pictures: Pictures, n: int) -> list[int]:
    labels = pictures.labels.tolist()
    return numbers.chosen(pictures.names, labels, numbers.shares(numbers.tally(labels), n), "floor", 0)


def _same_integers(ledger: Ledger, kept: Arrays, name: str, made: npt.NDArray[Any]) -> None:
    there = array(kept, name, "iu", len(made))
    ledger.same("nn", f"{name}: places that differ", 0, int((there.astype(np.int64) != made.astype(np.int64)).sum()))


def _rows(said: Row) -> list[Row]:
    rows = said.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise Unauditable("the document has no rows")
    return rows


def _device(said: object) -> bool:
    return isinstance(said, str) and (said == "cpu" or (said.startswith("cuda ") and len(said) > 5))
