"""The shipped bundle: the int8 file of the chosen candidate and a manifest of what it is. No clock, no path, no name of
a machine is in either, so equal trainings give equal bytes, and equal weights an equal int8 file.

    weights.int8     `kernels.postfilter.quantised`
    manifest.json    branch, epoch, digests, what was measured, sizes
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.fsio import write_atomic
from jobs.train.evaluate import Candidate, Quality
from kernels.postfilter import quantised
from kernels.postfilter.quantised import Quantised

FORMAT = 1
FILE, MANIFEST = "weights.int8", "manifest.json"


class BundleRefused(ValueError):
    """A folder holds no whole, unchanged bundle; the message says what is wrong."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        about: the manifest.
        sha256, size: of the int8 file.
    """

    shipped: Quantised
    about: Mapping[str, Any]
    sha256: str
    size: int


def write(
    folder: Path,
    shipped: Quantised,
    candidate: Candidate,
    *,
    branch: str,
    quantity: str,
    decoded: Quality,
    unsharp: Quality,
    digests: Mapping[str, str],
    encoded_bytes: int,
) -> Bundle:
    """Write the bundle of a candidate into a folder that exists, and read it back.

    Args:
        shipped: the candidate's weights.
        digests: by name, of whatever the training followed from.
        encoded_bytes: of the training's encoded frames.

    Raises:
        BundleRefused: the weights are not the candidate's.
    """
    if shipped.weights().digest() != candidate.digest:
        raise BundleRefused(f"the weights to be shipped are not those that were measured at step {candidate.step}")
    quantised.write(folder / FILE, shipped)
    data = (folder / FILE).read_bytes()
    about = {
        "format": FORMAT,
        "branch": branch,
        "h": shipped.h,
        "epoch": candidate.epoch,
        "step": candidate.step,
        "file": FILE,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "weights_sha256": candidate.digest,
        "digests": dict(digests),
        "encoded_bytes": encoded_bytes,
        "quantity": quantity,
        "evaluation": {
            "shipped": quality_said(candidate.quality),
            "decoded": quality_said(decoded),
            "unsharp": quality_said(unsharp),
        },
    }
    write_atomic(folder / MANIFEST, json.dumps(about, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return read(folder)


def read(folder: Path) -> Bundle:
    """A bundle, every byte of its weights verified.

    Raises:
        BundleRefused: a file is missing or changed, or they do not belong together.
    """
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        data = (folder / FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise BundleRefused(f"{folder} is no bundle: {error}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BundleRefused(f"{folder / MANIFEST} is not of format {FORMAT}")
    sha256 = hashlib.sha256(data).hexdigest()
    if about.get("sha256") != sha256 or about.get("bytes") != len(data):
        raise BundleRefused(f"{folder / FILE} is not the file that {MANIFEST} tells of: one of them was changed")
    try:
        shipped = quantised.decode(data, str(folder / FILE))
    except quantised.FileRefused as error:
        raise BundleRefused(str(error)) from None
    if about.get("h") != shipped.h or about.get("weights_sha256") != shipped.weights().digest():
        raise BundleRefused(f"{folder / MANIFEST} tells of other weights than {FILE} holds")
    return Bundle(shipped, about, sha256, len(data))


def quality_said(quality: Quality) -> dict[str, Any]:
    """As JSON can hold it: null for what is no finite number."""
    return {
        "value": _known(quality.value),
        "terms": {name: _known(value) for name, value in quality.terms.items()},
        "psnr": _known(quality.psnr),
        "ms_ssim": _known(quality.ms_ssim),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
