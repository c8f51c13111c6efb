"""Samples for the page of a drift study: the upper part of each preview that drift-sample drew, large enough to see."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from jobs.drift.summary_gather import Told
from jobs.drift.summary_words import Picture

ROWS = 16  # of a preview, see `jobs.drift.sample.preview`
MOST, LEAST = 8, 4  # rows of these that are shown: as many as make it a square, where there are few classes
_WIDE = 640  # px at least: sharp on a screen of twice the pixels


def pictures(told: Iterable[Told], template: str, folder: Path) -> tuple[Picture, ...]:
    """One of each variant or alpha: of the first seed that has any; written into `folder`.

    Args:
        template: ablation (variants) or package (alphas, and the untrained control).
    """
    first: dict[str, Told] = {}
    for node in told:
        if node.picture is not None and node.words.checkpoint is None:
            of_variant = template == "ablation" or node.words.control
            first.setdefault(node.words.variant if of_variant else f"alpha {node.words.alpha:g}", node)
    out = []
    for number, (name, node) in enumerate(first.items()):
        assert node.picture is not None
        path = folder / f"picture-{number}.png"
        cut(node.picture, path)
        out.append(Picture(name, node.words.node, node.words.seed, path))
    return tuple(out)


def cut(source: Path, path: Path) -> None:
    """The first rows of a preview, each pixel as a square."""
    from PIL import Image

    with Image.open(source) as image:
        row = image.height // ROWS  # px
        rows = min(MOST, max(LEAST, round(image.width / max(1, row))))
        part = image.crop((0, 0, image.width, max(1, rows * row)))
    times = math.ceil(_WIDE / part.width)
    part.resize((part.width * times, part.height * times), Image.Resampling.NEAREST).save(path, "PNG", optimize=True)
