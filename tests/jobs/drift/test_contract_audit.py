"""The contract audit: it passes what belongs together, and names each thing that does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import JobFailed
from jobs.dose.npz import read_npz
from jobs.drift.contract_audit import check_package
from jobs.drift.contract_checks import failed
from jobs.drift_kinds.contract import ContractParams
from tests.jobs.drift.evaluated import Package, blobs, edit_arrays, edit_json, edit_rows, honest, restate_contract

Spoil = Callable[[Package], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return honest(tmp_path_factory.mktemp("good") / "package")


def wrong(package: Package, **params: Any) -> set[str]:
    checks = check_package(ContractParams(**params), lambda name: package.inputs.get(name))
    return {f"{check.of}: {check.check}" for check in failed(checks)}


def rows_say(**changed: Any) -> Spoil:
    return lambda p: edit_rows(p.folder("eval") / "evaluation.json", lambda row: row.update(changed))


def nearest_say(of: str, **changed: Any) -> Spoil:
    return lambda p: edit_rows(p.folder("nn") / "nn.json", lambda r: r.update(changed), lambda r: r["which"] == of)


def config_says(**changed: Any) -> Spoil:
    return lambda p: edit_json(p.folder("train") / "config.json", **changed)


def samples_say(**changed: Any) -> Spoil:
    return lambda p: edit_json(p.folder("sample") / "samples.json", **changed)


def without(name: str, file: str) -> Spoil:
    return lambda p: (p.folder(name) / file).unlink()


def _twice(p: Package) -> None:
    edit_arrays(p.folder("sample") / "samples.npz", images=lambda a: np.concatenate([a[:24], a[:24]]))


def _overlap(one: str, other: str) -> Spoil:
    def spoil(p: Package) -> None:
        image = read_npz(p.folder("data") / "data.npz")[f"{one}_images"][0]

        def change(images: Any) -> Any:
            images[0] = image
            return images

        edit_arrays(p.folder("data") / "data.npz", **{f"{other}_images": change})

    return spoil


def _shared(p: Package) -> None:
    p.write_train(read_npz(p.folder("extractor") / "extractor.npz"))


def _only_samples(p: Package) -> None:
    path = p.folder("eval") / "evaluation.json"
    edit_json(path, rows=[row for row in json.loads(path.read_text())["rows"] if row["control"] != "held"])


SPOILT: list[tuple[Spoil, str]] = [
    (_overlap("train", "reference"), "data: images in train and reference"),
    (_overlap("train", "held"), "data: images in train and held"),
    (_overlap("reference", "held"), "data: images in reference and held"),
    (_overlap("held", "train"), "data: train digest"),
    (_overlap("train", "held"), "data: held digest"),
    (_overlap("train", "reference"), "data: reference digest"),
    (lambda p: edit_json(p.folder("extractor") / "contract.json", sha256="0"), "extractor: contract hash"),
    (lambda p: restate_contract(p, schema="x"), "extractor: contract schema"),
    (lambda p: restate_contract(p, extractor_sha256="0"), "extractor: extractor digest"),
    (lambda p: restate_contract(p, architecture={}), "extractor: architecture"),
    (lambda p: restate_contract(p, preprocessing={}), "extractor: preprocessing"),
    (lambda p: restate_contract(p, feature_dim=1), "extractor: feature dimension"),
    (lambda p: restate_contract(p, classes=1), "extractor: classes"),
    (lambda p: restate_contract(p, data_sha256="0"), "extractor: data digest"),
    (lambda p: restate_contract(p, reference_sha256="0"), "extractor: reference digest"),
    (lambda p: restate_contract(p, reference_n=1), "extractor: reference n"),
    (lambda p: restate_contract(p, reference_features_sha256=""), "extractor: reference statistics digest"),
    (
        lambda p: edit_arrays(p.folder("extractor") / "reference.npz", features=lambda a: a[1:]),
        "extractor: reference statistics shape",
    ),
    (samples_say(n=4800), "sample: n"),
    (_twice, "sample: different images"),
    (samples_say(content_sha256="0"), "sample: content digest"),
    (lambda p: p.write_samples(blobs(9, 4)[0][:, :6], blobs(9, 4)[1]), "sample: shape"),
    (lambda p: edit_json(p.folder("data") / "data.json", classes=4.0), "data: it can be read"),
    (lambda p: p.write_samples(blobs(9, 4)[0], blobs(9, 4)[1] + 7), "sample: classes"),
    (samples_say(train_sha256="0"), "train: the samples' model"),
    (config_says(steps_done=1), "train: the samples' configuration"),
    (config_says(data_sha256="0"), "train: data digest"),
    (config_says(training_encoder_sha256="0"), "train: training encoder digest"),
    (_shared, "train: no weights shared with the extractor"),
    (_shared, "eval: leakage of each row"),
    (_only_samples, "eval: rows"),
    (
        lambda p: edit_json(p.folder("eval") / "evaluation.json", features_sha256="0"),
        "eval: statistics digest",
    ),
    (lambda p: p.write_samples(*blobs(9, 4)), "eval: rows of features"),
    (rows_say(contract="0" * 64), "eval: contract of each row"),
    (rows_say(reference="0" * 64), "eval: reference of each row"),
    (rows_say(extractor="0" * 64), "eval: extractor of each row"),
    (rows_say(n_reference=1), "eval: n_reference of each row"),
    (rows_say(samples="0" * 64), "eval: samples of each row"),
    (rows_say(n=1), "eval: n of each row"),
    (rows_say(n=True), "eval: n of each row"),
    (rows_say(n_unique=1), "eval: n_unique of each row"),
    (rows_say(alpha=2.0), "eval: alpha of each row"),
    (rows_say(seed=1), "eval: seed of each row"),
    (without("eval", "features.npz"), "eval: it can be read"),
    (without("extractor", "reference.npz"), "extractor: it can be read"),
    (without("sample", "samples.npz"), "sample: it can be read"),
    (without("nn", "nn.json"), "nn: it can be read"),
    (without("train", "config.json"), "train: it can be read"),
    (nearest_say("held", which="other"), "nn: rows"),
    (nearest_say("samples", samples="0"), "nn: samples digest"),
    (nearest_say("held", samples="0"), "nn: held digest"),
    (nearest_say("samples", train="0"), "nn: train digest, samples"),
    (nearest_say("held", train="0"), "nn: train digest, held"),
    (nearest_say("samples", n_against=5), "nn: n_against, samples"),
    (nearest_say("held", n_against=5), "nn: n_against, held"),
    (nearest_say("held", n=5), "nn: n of the baseline"),
]


@pytest.mark.parametrize(("spoil", "check"), SPOILT, ids=[f"{i}-{check}" for i, (_, check) in enumerate(SPOILT)])
def test_what_does_not_agree_is_named(good: Package, tmp_path: Path, spoil: Spoil, check: str) -> None:
    package = good.copy(tmp_path / "p")
    spoil(package)
    assert check in wrong(package)


def test_every_check_can_fail(good: Package) -> None:
    every = check_package(ContractParams(), lambda name: good.inputs.get(name))
    assert failed(every) == []
    assert {f"{each.of}: {each.check}" for each in every} - {check for _, check in SPOILT} == {"sample: enough images"}
    assert wrong(good, least_n=49) == {"sample: enough images"}
    assert wrong(good, contract="0" * 64) == {"extractor: the contract that was asked for"}


def test_what_is_not_given_fails_unless_it_is_not_required(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    for name in ("train", "sample", "eval", "nn"):
        package.folder(name).rename(package.root / f"no-{name}")
    assert wrong(package) == {f"{name}: there is one" for name in ("train", "sample", "eval", "nn")}
    assert wrong(package, require=[]) == set()


def test_the_job_lists_its_checks_and_fails_with_them(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    context = package.contract()
    assert all(row["passed"] for row in context.tables["drift_contract"])
    rows_say(n=1)(package)
    with pytest.raises(JobFailed, match="eval: n of each row: expected 48, found 1"):
        package.contract()
    said = json.loads((package.root / "contract.job" / "artifacts" / "contract_audit.json").read_text())
    assert [row["check"] for row in said["checks"] if not row["passed"]] == ["n of each row"]


def test_a_waived_encoder_is_for_the_claims_to_judge(good: Package, tmp_path: Path) -> None:
    package = good.copy(tmp_path / "p")
    _shared(package)
    package.write_generated(48)
    package.evaluate(allow_shared_encoder=True)
    assert wrong(package) == set()
    rows_say(waiver="")(package)
    assert wrong(package) == {"train: no weights shared with the extractor"}
