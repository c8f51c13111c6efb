"""Ways to falsify a package, each with what must be found. A forger may restate every digest that is not an input's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.drift.digests import arrays_sha256, images_sha256
from tests.jobs.drift.evaluated import Package, blobs, edit_arrays, edit_json, edit_rows, restate_contract

Forge = Callable[[Package], None]


@dataclass(frozen=True)
class Forgery:
    """Attributes: finds: beginnings of `OF: CHECK`, each of which must begin a failed check."""

    forge: Forge
    finds: tuple[str, ...]


ALL: dict[str, Forgery] = {}


def _forgery(*finds: str) -> Callable[[Forge], Forge]:
    def register(forge: Forge) -> Forge:
        ALL[forge.__name__] = Forgery(forge, finds)
        return forge

    return register


def _add(name: str, forge: Forge, *finds: str) -> None:
    ALL[name] = Forgery(forge, finds)


def evaluation(p: Package) -> Path:
    return p.folder("eval") / "evaluation.json"


def flip(path: Path, part: float) -> None:
    """One bit of a file, at this part of it."""
    whole = bytearray(path.read_bytes())
    whole[int(len(whole) * part)] ^= 1
    path.write_bytes(whole)


# Files.

for _of, _files in {
    "data": ("data.npz", "data.json"),
    "extractor": ("extractor.npz", "contract.json", "reference.npz"),
    "train": ("model.npz", "config.json"),
    "sample": ("samples.npz", "samples.json"),
    "eval": ("evaluation.json", "features.npz"),
    "nn": ("nn.npz", "nn.json"),
}.items():
    for _file in _files:

        def _delete(p: Package, of: str = _of, file: str = _file) -> None:
            (p.folder(of) / file).unlink()

        def _empty(p: Package, of: str = _of, file: str = _file) -> None:
            (p.folder(of) / file).write_bytes(b"")

        def _hollow(p: Package, of: str = _of, file: str = _file) -> None:
            (p.folder(of) / file).unlink()
            (p.folder(of) / file).mkdir()

        _add(f"no_{_file}", _delete, f"{_of}: file {_file}")
        _add(f"empty_{_file}", _empty, f"{_of}: file {_file}")
        _add(f"folder_{_file}", _hollow, f"{_of}: file {_file}")
        if _file.endswith(".npz") and _file != "model.npz":

            def _flip(p: Package, of: str = _of, file: str = _file) -> None:
                flip(p.folder(of) / file, 0.4)

            _add(f"flipped_{_file}", _flip, f"{_of}: it can be audited")


@_forgery("train: the model that samples name")
def flipped_model(p: Package) -> None:
    flip(p.folder("train") / "model.npz", 0.5)


@_forgery("eval: it can be audited")
def nan_in_a_document(p: Package) -> None:
    edit_rows(evaluation(p), lambda row: row.update(value=float("nan")))


@_forgery("eval: it can be audited")
def a_name_twice_in_a_document(p: Package) -> None:
    evaluation(p).write_text('{"rows": [], ' + evaluation(p).read_text()[1:])


@_forgery("eval: it can be audited")
def no_rows(p: Package) -> None:
    edit_json(evaluation(p), rows=[])


@_forgery("nn: it can be audited")
def rows_of_words(p: Package) -> None:
    edit_json(p.folder("nn") / "nn.json", rows=["passed"])


# Data.


@_forgery("data: train content", "data: images of train that are in reference", "extractor: contract: data_sha256")
def reference_in_train(p: Package) -> None:
    images = np.load(p.folder("data") / "data.npz")["reference_images"][:3]
    edit_arrays(p.folder("data") / "data.npz", train_images=lambda a: np.concatenate([images, a[3:]]))


@_forgery("data: images of train that are in reference", "extractor: contract: data_sha256", "train: data")
def reference_in_train_with_its_digest_restated(p: Package) -> None:
    reference_in_train(p)
    path = p.folder("data") / "data.json"
    told = json.loads(path.read_text())["splits"]
    told["train"]["sha256"] = images_sha256(np.load(p.folder("data") / "data.npz")["train_images"])
    edit_json(path, splits=told)


@_forgery("data: images of train that are in held", "data: held content")
def held_in_train(p: Package) -> None:
    images = np.load(p.folder("data") / "data.npz")["train_images"][:1]
    edit_arrays(p.folder("data") / "data.npz", held_images=lambda a: np.concatenate([images, a[1:]]))


@_forgery("data: images of reference that are in held", "data: reference content")
def held_in_reference(p: Package) -> None:
    images = np.load(p.folder("data") / "data.npz")["held_images"][:1]
    edit_arrays(p.folder("data") / "data.npz", reference_images=lambda a: np.concatenate([images, a[1:]]))


@_forgery(
    *(f"data: {s} ids that stand twice" for s in ("train", "reference", "held")),
    *(
        f"data: ids of {a} that are in {b}"
        for a, b in (("train", "reference"), ("train", "held"), ("reference", "held"))
    ),
)
def ids_that_are_all_one(p: Package) -> None:
    changed = {f"{s}_ids": lambda a: np.zeros_like(a) for s in ("train", "reference", "held")}
    edit_arrays(p.folder("data") / "data.npz", **changed)


@_forgery("data: range of train", "data: range of reference", "data: range of held")
def pixels_out_of_range(p: Package) -> None:
    changed = {f"{s}_images": lambda a: a * 2 for s in ("train", "reference", "held")}
    edit_arrays(p.folder("data") / "data.npz", **changed)


@_forgery("data: classes", "sample: labels", "extractor: contract: classes")
def fewer_classes_than_labels(p: Package) -> None:
    edit_json(p.folder("data") / "data.json", classes=["one", "two"])


@_forgery("data: it can be audited", "extractor: it can be audited", "sample: it can be audited")
def no_classes(p: Package) -> None:
    edit_json(p.folder("data") / "data.json", classes=True)


# The extractor and its contract.


@_forgery("extractor: contract hash")
def a_contract_with_a_fake_hash(p: Package) -> None:
    edit_json(p.folder("extractor") / "contract.json", sha256="0" * 64)


@_forgery("eval: fid: contract", "eval: is_mean: contract", "eval: accuracy: contract", "eval: is_floor: contract")
def a_contract_changed_afterwards(p: Package) -> None:
    restate_contract(p, seed=99)


@_forgery("eval: is_mean: value", "eval: is_mean: std", "eval: is_floor: value", "eval: is_floor: std")
def other_splits(p: Package) -> None:
    metrics = json.loads((p.folder("extractor") / "contract.json").read_text())["payload"]["metrics"]
    restate_contract(p, metrics={**metrics, "inception_score": {**metrics["inception_score"], "splits": 2}})


@_forgery("eval: it can be audited")
def no_splits(p: Package) -> None:
    restate_contract(p, metrics={})


@_forgery("eval: metrics")
def a_proxy_that_says_it_is_one(p: Package) -> None:
    restate_contract(p, profile="proxy")


for _name, _value in {
    "schema": "lab.eval-contract/0",
    "extractor_sha256": "0" * 64,
    "data_sha256": "0" * 64,
    "reference_sha256": "0" * 64,
    "reference_n": 59,
    "reference_features_sha256": "0" * 64,
    "feature_dim": 25,
    "classes": 5,
    "preprocessing": {"range": [0, 1], "side": 8, "channels": 1},
}.items():

    def _restate(p: Package, name: str = _name, value: Any = _value) -> None:
        restate_contract(p, **{name: value})

    _add(f"contract_{_name}", _restate, f"extractor: contract: {_name}")


@_forgery("eval: fid: reference", "eval: fid_floor: reference")
def a_reference_that_rows_do_not_cite(p: Package) -> None:
    restate_contract(p, reference_sha256="0" * 64)


@_forgery("extractor: features of the reference split", "eval: fid: contract")
def reference_features_moved_towards_the_samples(p: Package) -> None:
    path = p.folder("extractor") / "reference.npz"
    edit_arrays(path, features=lambda a: a + 0.01)
    restate_contract(p, reference_features_sha256=arrays_sha256(dict(np.load(path))))


@_forgery("extractor: probabilities of the reference split")
def reference_probabilities_changed(p: Package) -> None:
    edit_arrays(p.folder("extractor") / "reference.npz", probabilities=lambda a: a[::-1])


@_forgery("extractor: labels of the reference split")
def reference_labels_changed(p: Package) -> None:
    edit_arrays(p.folder("extractor") / "reference.npz", labels=lambda a: (a + 1) % 4)


@_forgery("extractor: features of the reference split")
def half_of_the_reference_features(p: Package) -> None:
    edit_arrays(p.folder("extractor") / "reference.npz", features=lambda a: a[::2])


@_forgery(
    "extractor: contract: extractor_sha256", "eval: features of the samples", "eval: probabilities of the samples"
)
def other_weights(p: Package) -> None:
    edit_arrays(p.folder("extractor") / "extractor.npz", conv0_weight=lambda a: a * np.float32(1.01))


@_forgery("extractor: it can be audited")
def weights_that_are_used_by_nothing(p: Package) -> None:
    edit_arrays(p.folder("extractor") / "extractor.npz", more=np.zeros(3, np.float32))


# Samples and where they come from.


@_forgery("sample: n")
def a_count_that_was_inflated(p: Package) -> None:
    edit_json(p.folder("sample") / "samples.json", n=4800)


@_forgery("sample: images that stand twice", "sample: content")
def samples_that_stand_twice(p: Package) -> None:
    path = p.folder("sample") / "samples.npz"
    edit_arrays(path, images=lambda a: np.concatenate([a[:24], a[:24]]))


@_forgery("sample: images that stand twice", "eval: fid: n_unique", "eval: accuracy: n_unique")
def samples_that_stand_twice_with_their_digest_restated(p: Package) -> None:
    samples_that_stand_twice(p)
    images = np.load(p.folder("sample") / "samples.npz")["images"]
    edit_json(p.folder("sample") / "samples.json", content_sha256=images_sha256(images))


@_forgery("sample: ids that stand twice")
def ids_of_samples_that_stand_twice(p: Package) -> None:
    edit_arrays(p.folder("sample") / "samples.npz", ids=lambda a: np.concatenate([a[:24], a[:24]]))


@_forgery("sample: content", "eval: fid: samples", "eval: is_mean: samples", "nn: samples: samples")
def one_pixel_of_a_sample(p: Package) -> None:
    def change(images: Any) -> Any:
        images[3, 2, 2, 0] = -images[3, 2, 2, 0]
        return images

    edit_arrays(p.folder("sample") / "samples.npz", images=change)


@_forgery(
    "eval: fid: value", "eval: fid: n", "eval: is_mean: n", "eval: accuracy: n", "sample: content", "eval: fid: samples"
)
def other_samples(p: Package) -> None:
    images, labels = blobs(40, 44)
    p.write_samples(images, labels, content_sha256="0" * 64)


@_forgery("eval: accuracy: value")
def labels_of_samples(p: Package) -> None:
    edit_arrays(p.folder("sample") / "samples.npz", labels=lambda a: (a + 1) % 4)


@_forgery("sample: range of samples")
def samples_out_of_range(p: Package) -> None:
    edit_arrays(p.folder("sample") / "samples.npz", images=lambda a: a * 3)


@_forgery("sample: shape")
def samples_of_another_shape(p: Package) -> None:
    edit_arrays(p.folder("sample") / "samples.npz", images=lambda a: a[:, :6, :6])


@_forgery("sample: it can be audited", "eval: it can be audited", "nn: it can be audited")
def samples_that_are_not_numbers(p: Package) -> None:
    edit_arrays(p.folder("sample") / "samples.npz", images=lambda a: a * np.float32("nan"))


def _everything_again(p: Package) -> None:
    p.evaluate()
    p.nearest()


@_forgery("sample: pixels, drawn again from the model")
def samples_that_were_retouched_and_all_restated(p: Package) -> None:
    with np.load(p.folder("sample") / "samples.npz") as file:
        images, labels = file["images"], file["labels"]
    images[3, 2, 2] = np.clip(images[3, 2, 2] - 0.01, -1, 1)
    p.write_samples(images, labels)
    _everything_again(p)


@_forgery("sample: labels, drawn again")
def labels_that_were_retouched_and_all_restated(p: Package) -> None:
    with np.load(p.folder("sample") / "samples.npz") as file:
        images, labels = file["images"], file["labels"]
    p.write_samples(images, (labels + 1) % 4)
    _everything_again(p)


for _name, _value in (("alpha", 2.0), ("seed", 8)):

    def _drawn_otherwise(p: Package, name: str = _name, value: Any = _value) -> None:
        edit_json(p.folder("sample") / "samples.json", **{name: value})
        _everything_again(p)

    _add(f"samples_of_another_{_name}", _drawn_otherwise, "sample: pixels, drawn again from the model")


@_forgery("train: it can be audited")
def another_architecture(p: Package) -> None:
    config = json.loads((p.folder("train") / "config.json").read_text())
    edit_json(p.folder("train") / "config.json", architecture={**config["architecture"], "hidden": 32})


@_forgery("train: it can be audited")
def an_alpha_that_is_a_word(p: Package) -> None:
    edit_json(p.folder("sample") / "samples.json", alpha="1.5")


@_forgery("train: the model that samples name")
def samples_of_another_model(p: Package) -> None:
    edit_json(p.folder("sample") / "samples.json", train_sha256="0" * 64)


@_forgery("train: the model that samples name")
def samples_of_no_model(p: Package) -> None:
    edit_json(p.folder("sample") / "samples.json", train_sha256=None)


@_forgery("train: configuration")
def a_configuration_changed_afterwards(p: Package) -> None:
    edit_json(p.folder("train") / "config.json", steps_done=160000)


@_forgery("train: data")
def trained_on_other_data(p: Package) -> None:
    edit_json(p.folder("train") / "config.json", data_sha256="0" * 64)


@_forgery("train: training encoder")
def another_training_encoder(p: Package) -> None:
    edit_arrays(p.folder("train") / "encoder.npz", layer0=lambda a: a + np.float32(1))


@_forgery("train: training encoder")
def no_training_encoder(p: Package) -> None:
    (p.folder("train") / "encoder.npz").unlink()


@_forgery("eval: fid: leakage", "eval: fid: waiver", "eval: accuracy_floor: waiver")
def the_extractor_as_training_encoder(p: Package) -> None:
    weights = dict(np.load(p.folder("extractor") / "extractor.npz"))
    p.write_train({f"renamed_{name}": value for name, value in weights.items()})


@_forgery("eval: fid: leakage", "eval: fid: waiver")
def one_layer_of_the_extractor_in_the_training_encoder(p: Package) -> None:
    weights = dict(np.load(p.folder("extractor") / "extractor.npz"))
    p.write_train({"layer0": np.ones(9, np.float32), "layer1": weights["conv1_weight"].reshape(-1).astype(np.float64)})


# The evaluation.

_OWN = ("fid", "is_mean", "accuracy")
_FLOOR = ("fid_floor", "is_floor", "accuracy_floor")
_EVERY = (*_OWN, *_FLOOR)


@_forgery(*(f"eval: {m}: n" for m in _EVERY), *(f"eval: {m}: n_unique" for m in _EVERY))
def one_sample(p: Package) -> None:
    edit_rows(evaluation(p), lambda row: row.update(n=1, n_unique=1))


@_forgery(*(f"eval: {m}: n" for m in _EVERY))
def true_for_a_count(p: Package) -> None:
    edit_rows(evaluation(p), lambda row: row.update(n=True))


@_forgery(*(f"eval: {m}: value" for m in _EVERY))
def values_that_are_a_little_better(p: Package) -> None:
    edit_rows(evaluation(p), lambda row: row.update(value=row["value"] + 1e-6))


@_forgery(*(f"eval: {m}: value" for m in _EVERY))
def values_that_are_words(p: Package) -> None:
    edit_rows(evaluation(p), lambda row: row.update(value=str(row["value"])))


@_forgery(*(f"eval: {m}: std" for m in _EVERY))
def spreads(p: Package) -> None:
    edit_rows(evaluation(p), lambda row: row.update(std=0.0))


for _name, _value, _among in (
    ("contract", "0" * 64, _EVERY),
    ("reference", "0" * 64, _EVERY),
    ("extractor", "0" * 64, _EVERY),
    ("samples", "0" * 64, _EVERY),
    ("n_reference", 50000, _EVERY),
    ("profile", "paper", _EVERY),
    ("device_class", "", _EVERY),
    ("leakage", "shared", _EVERY),
    ("control", "none", _EVERY),
    ("alpha", 3.0, _EVERY),
    ("seed", 8, _OWN),
    ("train", "0" * 64, _OWN),
):

    def _change(p: Package, name: str = _name, value: Any = _value) -> None:
        edit_rows(evaluation(p), lambda row: row.update({name: value}))

    _add(f"rows_{_name}", _change, *(f"eval: {m}: {_name}" for m in _among))


@_forgery("eval: statistics content", "eval: features of the samples", "eval: probabilities of the samples")
def other_features(p: Package) -> None:
    edit_arrays(p.folder("eval") / "features.npz", features=lambda a: a + 0.1, probabilities=lambda a: a[::-1])


@_forgery("eval: features of the samples")
def other_features_with_their_digest_restated(p: Package) -> None:
    path = p.folder("eval") / "features.npz"
    edit_arrays(path, features=lambda a: a + 0.1)
    edit_json(evaluation(p), features_sha256=arrays_sha256(dict(np.load(path))))


@_forgery("eval: held-out images of the floor")
def a_floor_of_chosen_images(p: Package) -> None:
    edit_json(evaluation(p), floor_ids=["156"])


@_forgery("eval: metrics")
def a_metric_that_was_dropped(p: Package) -> None:
    rows = json.loads(evaluation(p).read_text())["rows"]
    edit_json(evaluation(p), rows=[row for row in rows if row["metric"] != "fid_floor"])


@_forgery("eval: metrics")
def a_metric_twice(p: Package) -> None:
    rows = json.loads(evaluation(p).read_text())["rows"]
    edit_json(evaluation(p), rows=[*rows, rows[0]])


@_forgery("eval: fid: control")
def an_untrained_control_passed_off_as_trained(p: Package) -> None:
    edit_json(p.folder("train") / "config.json", recipe={"variant": "untrained"})


# Nearest neighbours.


def nearest(p: Package) -> Path:
    return p.folder("nn") / "nn.json"


for _which in ("samples", "held"):

    def _cosines(p: Package, which: str = _which) -> None:
        edit_arrays(p.folder("nn") / "nn.npz", **{f"{which}_cosine": lambda a: a - 0.01})

    def _chosen(p: Package, which: str = _which) -> None:
        edit_arrays(p.folder("nn") / "nn.npz", **{f"{which}_index": lambda a: a[::-1]})

    def _labels(p: Package, which: str = _which) -> None:
        changed = {f"{which}_label": lambda a: (a + 1) % 4, f"{which}_nearest_label": lambda a: (a + 1) % 4}
        edit_arrays(p.folder("nn") / "nn.npz", **changed)

    def _farther(p: Package, which: str = _which) -> None:
        edit_arrays(p.folder("nn") / "nn.npz", **{f"{which}_nearest": lambda a: np.roll(a, 1)})

    _add(f"{_which}_cosines", _cosines, f"nn: {_which}: cosines")
    _add(f"{_which}_chosen", _chosen, f"nn: {_which}_index")
    _add(f"{_which}_labels", _labels, f"nn: {_which}_label", f"nn: {_which}_nearest_label")
    _add(f"{_which}_farther", _farther, f"nn: {_which}: what is called nearest")
    for _name, _value in (
        ("mean", 0.1),
        ("median", 0.1),
        ("p95", 0.1),
        ("label_match", 0.2),
        ("against", "reference"),
        ("n_against", 5),
        ("copies", 7),
        ("seed", 3),
        ("samples", "0" * 64),
        ("train", "0" * 64),
    ):

        def _row(p: Package, which: str = _which, name: str = _name, value: Any = _value) -> None:
            edit_rows(nearest(p), lambda row: row.update({name: value}), lambda row: row["which"] == which)

        _add(f"{_which}_{_name}", _row, f"nn: {_which}: {_name}")


@_forgery("nn: held: n")
def a_baseline_of_another_size(p: Package) -> None:
    edit_rows(nearest(p), lambda row: row.update(n=10), lambda row: row["which"] == "held")


@_forgery("nn: samples: n", "nn: held: n")
def one_neighbour(p: Package) -> None:
    edit_rows(nearest(p), lambda row: row.update(n=1))


@_forgery("nn: it can be audited")
def more_samples_than_there_are(p: Package) -> None:
    edit_arrays(p.folder("nn") / "nn.npz", samples_index=lambda a: np.concatenate([a, a]))


@_forgery("nn: it can be audited")
def a_seed_that_is_a_word(p: Package) -> None:
    edit_json(nearest(p), seed="5")


@_forgery("nn: samples_index", "nn: held_index", "nn: samples: p95")
def a_subset_of_another_seed(p: Package) -> None:
    p.write_generated(70)
    p.nearest(n=40)
    edit_json(nearest(p), seed=5)
    edit_rows(nearest(p), lambda row: row.update(seed=5))


@_forgery("nn: sets")
def no_baseline(p: Package) -> None:
    rows = json.loads(nearest(p).read_text())["rows"]
    edit_json(nearest(p), rows=[row for row in rows if row["which"] == "samples"])
