"""What `drift-data` does: read a source, split it so that no content stands on two sides, and write it down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import BadInput
from core.kind import Context
from jobs.drift import sources
from jobs.drift.dataset import ARRAYS, DOCUMENT, SCHEMA, SPLITS, Dataset, Split
from jobs.drift.digests import image_digests, set_digest
from jobs.drift.sources import Source
from jobs.drift_kinds.data import DIGITS, NOISE, SOURCE, TABLE, DriftDataParams

LEAST_OF_CLASS = 2  # in the train split


def run(ctx: Context) -> None:
    """See the module.

    Raises:
        BadInput: the source cannot be used, or is too small for the splits.
    """
    p: DriftDataParams = ctx.params
    ctx.expect(rows={TABLE: len(SPLITS)}, artifacts=[ARRAYS, DOCUMENT])
    source = source_of(p, ctx.input(SOURCE) if p.is_folder else None)
    made = split(source, reference=p.reference, held=p.held, seed=p.seed)
    made.save(ctx.artifact(ARRAYS), ctx.artifact(DOCUMENT))
    rows = [
        {
            "split": name,
            "n": len(part.images),
            "classes": len(set(part.labels.tolist())),
            "height": part.images.shape[1],
            "width": part.images.shape[2],
            "channels": part.images.shape[3],
            "source": source.about["name"],
            "seed": p.seed,
            "sha256": made.document["splits"][name]["sha256"],
        }
        for name, part in made.splits.items()
    ]
    ctx.results(TABLE, rows)
    sizes = ", ".join(f"{row['n']} {row['split']}" for row in rows)
    ctx.log(f"{source.about['words']}: {sizes}; {made.document['duplicates']} duplicates kept on one side")


def source_of(p: DriftDataParams, folder: Path | None) -> Source:
    """The images that these parameters mean. `folder`: where the user's lies now."""
    if p.source == DIGITS:
        return sources.digits()
    if p.source == NOISE:
        return sources.noise(p.count, p.seed)
    assert folder is not None
    return sources.folder_of(folder, side=p.side, colour=p.colour)


def split(source: Source, *, reference: int, held: int, seed: int) -> Dataset:
    """`reference` and `held` images by chance, the rest to train on; images of equal content stay together.

    Raises:
        BadInput: there are too few images, or too few of a class are left to train on.
    """
    digests = image_digests(source.images)
    groups: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        groups.setdefault(digest, []).append(row)
    rows: dict[str, list[int]] = {name: [] for name in SPLITS}
    wanted = {"reference": reference, "held": held}
    order = np.random.default_rng([seed, 4]).permutation(len(groups))
    each = list(groups.values())
    for number in order:
        group = each[number]
        into = next((n for n, count in wanted.items() if len(rows[n]) + len(group) <= count), "train")
        rows[into] += group
    for name, count in wanted.items():
        if len(rows[name]) != count:
            raise BadInput(
                f"of {len(digests)} images ({len(groups)} different ones) {name} cannot have {count}",
                hint="give a smaller reference and held, or more images",
            )
    parts = {name: _part(source, np.array(sorted(found), np.int64)) for name, found in rows.items()}
    _enough(parts["train"], source.classes)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "source": source.about,
        "seed": seed,
        "classes": list(source.classes),
        "shape": list(source.images.shape[1:]),
        "duplicates": len(digests) - len(groups),
        "splits": {
            name: {
                "n": len(part.images),
                "sha256": set_digest(digests[row] for row in part.ids),
                "of_class": _counts(part, len(source.classes)),
            }
            for name, part in parts.items()
        },
    }
    return Dataset(parts, document)


def _part(source: Source, rows: npt.NDArray[np.int64]) -> Split:
    return Split(source.images[rows], source.labels[rows], rows)


def _counts(part: Split, classes: int) -> list[int]:
    return [int(n) for n in np.bincount(part.labels, minlength=classes)]


def _enough(train: Split, classes: tuple[str, ...]) -> None:
    counts: Mapping[str, int] = dict(zip(classes, _counts(train, len(classes)), strict=True))
    few = {name: n for name, n in counts.items() if n < LEAST_OF_CLASS}
    if few:
        name, n = next(iter(few.items()))
        raise BadInput(
            f"class {name} has {n} images left to train on, of {LEAST_OF_CLASS} that it needs at least",
            hint="give a smaller reference and held, or more images of it",
        )
