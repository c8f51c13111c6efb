"""What `drift-sample` does: noise through the average of a training's weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.errors import BadInput
from core.fsio import sha256_file, write_atomic
from core.kind import Context
from jobs.dose.npz import read_npz, write_npz
from jobs.drift.digests import image_digests, set_digest
from jobs.drift.generator import Architecture, Generator, take_weights
from jobs.drift.train_files import CONFIG, MODEL
from jobs.drift_kinds.sample import DOCUMENT, PREVIEW, SAMPLES, TABLE, TRAIN, DriftSampleParams

SCHEMA = "lab.drift-samples/1"
_BATCH = 250  # images at a time: the same always, since other products may have other last bits
_SHOWN = 16  # rows of the preview
_ENLARGED = 4

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """A generator and where it comes from.

    Attributes:
        file: of its weights, below the training's artifacts. step: of the training.
    """

    generator: Generator
    config: dict[str, Any]
    config_sha256: str
    file: str
    file_sha256: str
    step: int


def run(ctx: Context) -> None:
    """Draw the images and say what they are.

    Raises:
        BadInput: the training's files cannot be used, it has no such checkpoint, or was not trained at such an alpha.
    """
    p: DriftSampleParams = ctx.params
    ctx.expect(rows={TABLE: p.n}, artifacts=[SAMPLES, DOCUMENT, PREVIEW])
    trained = read(ctx.input(TRAIN), p.checkpoint)
    greatest = float(trained.config["recipe"]["alpha_greatest"])
    if p.alpha > greatest:
        raise BadInput(
            f"alpha={p.alpha:g} is above {greatest:g}, the greatest that was trained", hint="give a smaller alpha"
        )
    images, labels = draw(trained.generator, p.n, alpha=p.alpha, seed=p.seed)
    if not np.isfinite(images).all():
        raise BadInput(f"{trained.file} makes images that are not finite", hint="train it again")
    ids = [f"S{number:06d}" for number in range(p.n)]
    digests = image_digests(images)
    write_npz(ctx.artifact(SAMPLES), {"images": images, "labels": labels, "ids": np.array(ids)})
    document = {
        "schema": SCHEMA,
        "train_sha256": trained.file_sha256,
        "model": trained.file,
        "step": trained.step,
        "config_sha256": trained.config_sha256,
        "data_sha256": trained.config["data_sha256"],
        "alpha": p.alpha,
        "n": p.n,
        "seed": p.seed,
        "content_sha256": set_digest(digests),
    }
    write_atomic(ctx.artifact(DOCUMENT), (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
    preview(ctx.artifact(PREVIEW), images, labels, trained.generator.architecture.classes)
    ctx.results(
        TABLE,
        [
            {
                "sample_id": name,
                "label": int(label),
                "alpha": p.alpha,
                "seed": p.seed,
                "step": trained.step,
                "digest": digest,
            }
            for name, label, digest in zip(ids, labels, digests, strict=True)
        ],
    )
    ctx.log(f"{p.n} samples of {trained.file} (step {trained.step}) at alpha {p.alpha:g}")


def read(folder: Path, checkpoint: int | None) -> Trained:
    """A trained generator out of the artifacts of a drift-train job.

    Raises:
        BadInput: a file is missing or damaged, or there is no such checkpoint.
    """
    hint = "give the artifacts of a drift-train job"
    try:
        text = (folder / CONFIG).read_bytes()
        config = json.loads(text)
        architecture = Architecture(**config["architecture"])
        models = {int(step): str(name) for step, name in config["models"].items()}
        done = int(config["steps_done"])
        float(config["recipe"]["alpha_greatest"]), str(config["data_sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder} holds no training: {type(error).__name__}: {error}", hint=hint) from None
    if checkpoint is not None and checkpoint not in models:
        there = ", ".join(map(str, sorted(models)))
        raise BadInput(
            f"the training left no model of step {checkpoint}; there are: {there}",
            hint="give one of these, or train with a greater last_checkpoints",
        )
    file = MODEL if checkpoint is None else models[checkpoint]
    path = folder / file
    generator = Generator(architecture)
    try:
        take_weights(generator, read_npz(path))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path} is not of {folder / CONFIG}: {error}", hint=hint) from None
    return Trained(
        generator.eval(),
        config,
        sha256_file(folder / CONFIG),
        file,
        sha256_file(path),
        done if checkpoint is None else checkpoint,
    )


def draw(generator: Generator, count: int, *, alpha: float, seed: int) -> tuple[Images, Labels]:
    """(images (n, H, W, C), labels (n,)): the classes in turn. The first n of more are the same images."""
    a = generator.architecture
    labels = np.arange(count, dtype=np.int64) % a.classes
    chance = np.random.default_rng([seed, 6])
    found = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for start in range(0, count, _BATCH):
            # A whole batch always: then an image does not depend on how many are asked for.
            noise = torch.from_numpy(chance.standard_normal((_BATCH, a.noise), dtype=np.float32))
            own = torch.arange(start, start + _BATCH) % a.classes
            with torch.no_grad():
                images = generator(noise, own, torch.full((_BATCH,), alpha))
            found.append(images.numpy()[: count - start])
    finally:
        torch.set_num_threads(before)
    return np.ascontiguousarray(np.concatenate(found), np.float32), labels


def preview(path: Path, images: Images, labels: Labels, classes: int) -> None:
    """The first images of each class, a column each, enlarged."""
    from PIL import Image

    shown = min(classes, 20)
    height, width, channels = images.shape[1:]
    columns = [images[labels == c][:_SHOWN] for c in range(shown)]
    sheet = np.full((_SHOWN * (height + 1), shown * (width + 1), channels), -1.0, np.float32)
    for c, column in enumerate(columns):
        for r, image in enumerate(column):
            sheet[r * (height + 1) :, c * (width + 1) :][:height, :width] = image
    pixels = np.clip(np.rint((sheet + 1) * 127.5), 0, 255).astype(np.uint8)
    large = np.repeat(np.repeat(pixels, _ENLARGED, 0), _ENLARGED, 1)
    picture = Image.fromarray(large[..., 0]) if channels == 1 else Image.fromarray(large)
    picture.save(path, "PNG")
