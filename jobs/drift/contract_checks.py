"""Each thing that must agree in a drift package, as a check with what was expected and what was found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from jobs.drift.contract import SCHEMA, Extractor, preprocessing_of
from jobs.drift.digests import arrays_sha256
from jobs.drift.given import SPLITS, Data, Samples, Trained
from jobs.drift.leakage import shared
from jobs.drift_kinds.names import WAIVER

NOTHING = "none"


@dataclass(frozen=True)
class Check:
    """Attributes: of: the input it is about; passed: by these very values, never by a word that somebody wrote."""

    of: str
    check: str
    expected: str
    found: str
    passed: bool

    def sentence(self) -> str:
        return f"{self.of}: {self.check}: expected {self.expected}, found {self.found}"

    def row(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in ("of", "check", "expected", "found", "passed")}


def equal(of: str, check: str, expected: object, found: object) -> Check:
    """They must be the same: no number is like a truth value, and none is like its text."""
    return Check(of, check, _text(expected), _text(found), type(expected) is type(found) and expected == found)


def data_checks(data: Data) -> list[Check]:
    """Splits are what data.json says, and have no image in common, by content."""
    stated = _mapping(data.stated.get("splits"))
    checks = [
        equal("data", f"{name} digest", data.splits[name].sha256, _mapping(stated.get(name)).get("sha256"))
        for name in SPLITS
    ]
    for at, one in enumerate(SPLITS):
        for other in SPLITS[at + 1 :]:
            both = set(data.splits[one].digests) & set(data.splits[other].digests)
            checks.append(equal("data", f"images in {one} and {other}", 0, len(both)))
    return checks


def extractor_checks(extractor: Extractor, data: Data) -> list[Check]:
    """The contract's hash is that of its payload, and the payload is about these weights, this data, this reference."""
    payload, weights = extractor.contract.payload, extractor.weights
    rows, width = extractor.reference["features"].shape
    wanted: list[tuple[str, object, object]] = [
        ("contract hash", extractor.contract.sha256, extractor.contract.stated),
        ("contract schema", SCHEMA, payload.get("schema")),
        ("extractor digest", weights.sha256, payload.get("extractor_sha256")),
        ("architecture", weights.architecture(), payload.get("architecture")),
        ("preprocessing", preprocessing_of(data), payload.get("preprocessing")),
        ("feature dimension", weights.feature_dim, payload.get("feature_dim")),
        ("classes", data.classes, payload.get("classes")),
        ("data digest", data.sha256, payload.get("data_sha256")),
        ("reference digest", data.reference.sha256, payload.get("reference_sha256")),
        ("reference n", data.reference.n, payload.get("reference_n")),
        ("reference statistics digest", extractor.reference_sha256, payload.get("reference_features_sha256")),
        ("reference statistics shape", [data.reference.n, weights.feature_dim], [rows, width]),
    ]
    return [equal("extractor", *each) for each in wanted]


def sample_checks(samples: Samples, data: Data, least: int = 1) -> list[Check]:
    """Samples are as many as stated, each another, and the stated content."""
    images = samples.images
    return [
        equal("sample", "n", images.n, samples.stated.get("n")),
        equal("sample", "different images", images.n, images.unique),
        Check("sample", "enough images", f"at least {least}", str(images.unique), images.unique >= least),
        equal("sample", "content digest", images.sha256, samples.stated.get("content_sha256")),
        equal("sample", "shape", list(data.shape), list(images.images.shape[1:])),
        Check(
            "sample",
            "classes",
            f"below {data.classes}",
            str(int(images.labels.max())),
            int(images.labels.max()) < data.classes,
        ),
    ]


def lineage_checks(trained: Trained, samples: Samples, data: Data) -> list[Check]:
    """Samples come of this training, and that of this data."""
    model = str(samples.stated.get("train_sha256"))
    held = sorted(name for name, sha256 in trained.models.items() if sha256 == model)
    return [
        Check("train", "the samples' model", f"a file with {model}", ", ".join(held) or "none", bool(held)),
        equal("train", "the samples' configuration", trained.config_sha256, samples.stated.get("config_sha256")),
        equal("train", "data digest", data.sha256, trained.config.get("data_sha256")),
        equal(
            "train",
            "training encoder digest",
            arrays_sha256(trained.encoder) if trained.encoder else "none",
            trained.config.get("training_encoder_sha256") or "none",
        ),
    ]


def leakage_check(trained: Trained, extractor: Extractor) -> Check:
    """The evaluation's encoder is not the training's."""
    found = shared(extractor.weights.arrays(), trained.encoder)
    return Check("train", "no weights shared with the extractor", NOTHING, found or NOTHING, not found)


def leakage_checks(trained: Trained, extractor: Extractor, document: Mapping[str, Any] | None) -> list[Check]:
    """The same where there is an evaluation: shared weights pass where each of its rows says so and is waived.

    That caps every claim, and is not for an audit of a contract to judge.
    """
    check = leakage_check(trained, extractor)
    rows = document.get("rows") if document is not None else None
    found = [_mapping(row) for row in rows] if isinstance(rows, list) else []
    if document is None:
        return [check]
    told = _each("eval", "leakage", "none" if check.passed else "shared", found)
    if check.passed:
        return [check, told]
    waived = bool(found) and all(row.get("waiver") == WAIVER for row in found)
    return [replace(check, expected=f"{NOTHING}, or waived" if waived else NOTHING, passed=waived), told]


def evaluation_checks(
    document: Mapping[str, Any], features: Mapping[str, npt.NDArray[Any]], extractor: Extractor, samples: Samples
) -> list[Check]:
    """Every row of an evaluation is about these samples, this contract and this reference."""
    rows = document.get("rows")
    found = [_mapping(row) for row in rows] if isinstance(rows, list) else []
    own = [row for row in found if row.get("control") != "held"]
    checks = [
        Check(
            "eval",
            "rows",
            "of samples and of held-out images",
            f"{len(own)}, {len(found) - len(own)}",
            0 < len(own) < len(found),
        ),
        equal("eval", "statistics digest", arrays_sha256(features), document.get("features_sha256")),
        equal("eval", "rows of features", samples.images.n, len(features.get("features", ()))),
    ]
    wanted: tuple[tuple[str, object, Iterable[Mapping[str, Any]]], ...] = (
        ("contract", extractor.contract.sha256, found),
        ("reference", extractor.contract.payload.get("reference_sha256"), found),
        ("extractor", extractor.weights.sha256, found),
        ("n_reference", len(extractor.reference["features"]), found),
        ("samples", samples.images.sha256, [row for row in own if row.get("metric") != "fid_matched"]),
        ("n", samples.images.n, [row for row in own if row.get("metric") != "fid_matched"]),
        ("n_unique", samples.images.unique, [row for row in own if row.get("metric") != "fid_matched"]),
        ("alpha", samples.alpha, own),
        ("seed", samples.seed, own),
    )
    for name, value, among in wanted:
        other = [row.get(name) for row in among if not (type(row.get(name)) is type(value) and row.get(name) == value)]
        checks.append(
            Check("eval", f"{name} of each row", _text(value), _text(other[0] if other else value), not other)
        )
    return checks


def nearest_checks(document: Mapping[str, Any], data: Data, samples: Samples) -> list[Check]:
    """The audit of nearest neighbours is of these samples, against all of the train split, with an equal baseline."""
    rows = document.get("rows")
    found = {str(_mapping(row).get("which")): _mapping(row) for row in rows} if isinstance(rows, list) else {}
    one, other = found.get("samples", {}), found.get("held", {})
    return [
        equal("nn", "rows", ["held", "samples"], sorted(found)),
        equal("nn", "samples digest", samples.images.sha256, one.get("samples")),
        equal("nn", "held digest", data.held.sha256, other.get("samples")),
        *(equal("nn", f"train digest, {w}", data.train.sha256, found.get(w, {}).get("train")) for w in sorted(found)),
        *(equal("nn", f"n_against, {w}", data.train.n, found.get(w, {}).get("n_against")) for w in sorted(found)),
        equal("nn", "n of the baseline", one.get("n"), other.get("n")),
    ]


def _each(of: str, name: str, value: object, rows: Iterable[Mapping[str, Any]]) -> Check:
    """Every row says the same."""
    other = [row.get(name) for row in rows if not (type(row.get(name)) is type(value) and row.get(name) == value)]
    return Check(of, f"{name} of each row", _text(value), _text(other[0] if other else value), not other)


def failed(checks: Iterable[Check]) -> list[Check]:
    """Those that did not pass."""
    return [check for check in checks if not check.passed]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """A number as JSON has it, so that 1 and 1.0 and "1" can be told apart in a row."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=repr)
