"""Where images come from: the digits in scikit-learn's wheel, a folder of the user's, or noise (for controls)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BadInput
from core.fsio import sha256_file
from jobs.drift.dataset import Images, Labels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
NOISE_SIDE, NOISE_CLASSES = 8, 10


@dataclass(frozen=True)
class Source:
    """Images before they are split.

    Attributes:
        images: (n, H, W, C) in [-1, 1]. labels: (n,). classes: their names. about: what data.json says of it.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]
    about: dict[str, Any]


def digits() -> Source:
    """The 1797 handwritten digits of 8×8 pixels (Alpaydin and Kaynak, 1998) that lie in scikit-learn's wheel."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (np.asarray(found.images, np.float32) / 8 - 1)[..., None]
    return Source(
        np.ascontiguousarray(images, np.float32),
        np.asarray(found.target, np.int64),
        tuple(str(n) for n in range(10)),
        {"name": "digits", "words": "handwritten digits, 8×8, of scikit-learn"},
    )


def noise(count: int, seed: int) -> Source:
    """Uniform noise with labels that mean nothing. There is nothing to learn in it."""
    rng = np.random.default_rng([seed, 3])
    images = rng.uniform(-1, 1, (count, NOISE_SIDE, NOISE_SIDE, 1)).astype(np.float32)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % NOISE_CLASSES)
    return Source(
        images, labels, tuple(str(n) for n in range(NOISE_CLASSES)), {"name": "noise", "words": "uniform noise"}
    )


def listed(folder: Path) -> dict[str, list[Path]]:
    """Class name to its images, both sorted by name. Hidden files and files that are no images are passed over.

    Raises:
        BadInput: it is no folder, or holds no class with an image.
    """
    if not folder.is_dir():
        raise BadInput(
            f"source={folder} is no folder", hint="give a folder with one subfolder of images for each class"
        )
    found: dict[str, list[Path]] = {}
    for each in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in each.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if files:
            found[each.name] = files
    if not found:
        raise BadInput(
            f"source={folder} has no subfolder with images in it",
            hint=f"give one subfolder for each class, with files of {', '.join(SUFFIXES[:4])}, ...",
        )
    return found


def folder_of(folder: Path, *, side: int | None, colour: bool) -> Source:
    """A user's images: the class is the subfolder's name, the id the place in the list of all files.

    Args:
        side: px, to which all are brought. None: as they are, and all must be alike.
        colour: three channels; else one, the luma.

    Raises:
        BadInput: a file cannot be read as an image, or sizes differ.
    """
    from PIL import Image, UnidentifiedImageError

    found = listed(folder)
    images, labels, names = [], [], []
    for number, files in enumerate(found.values()):
        for path in files:
            try:
                with Image.open(path) as opened:
                    picture = opened.convert("RGB" if colour else "L")
            except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
                raise BadInput(f"{path} cannot be read as an image: {error}", hint="mend it or take it out") from None
            if side is not None and picture.size != (side, side):
                picture = picture.resize((side, side), Image.Resampling.BOX)
            values = np.asarray(picture, np.float32) / 127.5 - 1
            images.append(values if colour else values[..., None])
            labels.append(number)
            names.append(path)
            if images[-1].shape != images[0].shape:
                raise BadInput(
                    f"{path} is of {picture.size[0]}×{picture.size[1]} px and {names[0].name} of "
                    f"{images[0].shape[1]}×{images[0].shape[0]}",
                    hint="give side=N, to which all are brought",
                )
    files_told = [[str(p.relative_to(folder)), sha256_file(p)] for p in names]
    return Source(
        np.stack(images).astype(np.float32),
        np.asarray(labels, np.int64),
        tuple(found),
        {"name": "folder", "words": f"images of {folder.name}", "files": files_told},
    )
