"""One job of a drift training: data, encoder, going on where an earlier attempt ended, steps, checkpoints, the model.

A checkpoint holds the rows and the averages that are to be artifacts, so that whoever goes on from it leaves the same
files and rows as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from core.errors import BadInput, JobFailed
from core.failpoint import failpoint
from core.fsio import digest, sha256_file, write_atomic
from core.kind import Context
from core.states import Cause
from jobs.dose.npz import write_npz
from jobs.drift import train_state
from jobs.drift.digests import arrays_sha256, canonical, payload_sha256
from jobs.drift.generator import weights_of
from jobs.drift.train_files import CONFIG, ENCODER, MODEL
from jobs.drift.train_given import Encoder, Images, encoder, images
from jobs.drift.train_state import StateRefused, Told
from jobs.drift.training import NotFinite, StepRow, Training, settings
from jobs.drift_kinds.train import STEPS_TABLE, TRAINING_TABLE, DriftTrainParams
from kernels.devices import KernelRefused, torch_device

SCHEMA = "lab.drift-config/1"
_CODE = ("encoders", "generator", "train_given", "train_queue", "train_recipe", "training")
_KERNELS = ("field", "kernel", "schedule", "torch_field")


class NoNumber(JobFailed):
    """A loss, a gradient or a weight is no number. Nothing of it was kept."""

    slug = "not-finite"
    cause: ClassVar[Cause] = Cause.NOT_FINITE


class HostMemory(JobFailed):
    """The machine, or what this process may have of it, is too small."""

    slug = "host-memory"
    cause: ClassVar[Cause] = Cause.HOST_MEMORY


def run(ctx: Context) -> None:
    """Train to the last step and leave the model.

    Raises:
        NoNumber, HostMemory: see there. BadInput: the data or the extractor cannot be used, or there is no such device.
    """
    p: DriftTrainParams = ctx.params
    begun = time.monotonic()
    files = [MODEL, CONFIG, *p.models.values(), *([] if p.encoder == "raw" else [ENCODER])]
    ctx.expect(rows={STEPS_TABLE: len(p.row_at), TRAINING_TABLE: 1}, last_step=p.planned or None, artifacts=files)
    try:
        device = torch_device(p.device)
    except KernelRefused as error:
        raise BadInput(str(error), hint="ask for one, or leave device out") from None
    with _memory(), settings(p.threads, device):
        _run(ctx, p, begun)


def _run(ctx: Context, p: DriftTrainParams, begun: float) -> None:
    given = images(ctx, p)
    begin = _Begin.of(ctx, p, given)
    training, told = begin.training, begin.told
    hooks = _Hooks(ctx, p, told, begin.identity)
    ctx.log(
        f"{p.variant}: {p.planned} steps, {len(given.images)} images of {given.classes} classes, encoder {p.encoder}"
    )
    if begin.resumed_at is None and begin.encoder.error is not None:
        hooks.checkpoint(training)  # so that the autoencoder is trained once
    try:
        if not training.run(hooks):
            ctx.leave()
    except (NotFinite, StateRefused) as error:
        raise NoNumber(str(error), hint="the last checkpoint is good; try a lower rate or a smaller clip") from None
    if not p.planned:
        told.kept[0] = weights_of(training.average)
    _finish(ctx, p, begin, given, time.monotonic() - begun)


class _Begin:
    """How an attempt begins: with an earlier one's checkpoint, or with nothing.

    Attributes:
        resumed_at: the step that it goes on from; None: from the first.
    """

    def __init__(self, training: Training, told: Told, made: Encoder, identity: str, resumed_at: int | None) -> None:
        self.training, self.told, self.encoder = training, told, made
        self.identity, self.resumed_at = identity, resumed_at

    @classmethod
    def of(cls, ctx: Context, p: DriftTrainParams, given: Images) -> _Begin:
        identity = identity_of(p, given)
        for found in ctx.checkpoints():
            failpoint("drift.loading")
            training = _training(p, given)
            try:
                told = train_state.load(found.path, training, identity)
            except StateRefused as error:
                ctx.log(f"lab: a checkpoint was passed over: step {found.step} of attempt {found.attempt}: {error}")
                continue
            ctx.log(f"going on from the checkpoint of step {training.steps} of {p.planned}, of attempt {found.attempt}")
            made = encoder(ctx, p, given, told.encoder)
            if arrays_sha256(made.weights) != arrays_sha256(told.encoder):
                raise BadInput("the encoder is not that of the checkpoint", hint="run it as a new job")
            training.encode = made.encode
            return cls(training, told, made, identity, training.steps)
        if ctx.attempt > 1:
            ctx.log("lab: no earlier attempt left a checkpoint that it can go on from: it starts over")
        made = encoder(ctx, p, given, None)
        training = _training(p, given)
        training.encode = made.encode
        return cls(training, Told(encoder=made.weights, encoder_error=made.error), made, identity, None)


def identity_of(p: DriftTrainParams, given: Images) -> str:
    """SHA-256 of what a state belongs to."""
    return digest([p.recipe().words(), p.real, given.data_sha256, code_digest()])


def code_digest() -> str:
    """SHA-256 of the modules that decide on what a step does."""
    here = Path(__file__).parent
    kernels = here.parent.parent / "kernels" / "drifting"
    whole = hashlib.sha256()
    for path in (*(here / f"{name}.py" for name in _CODE), *(kernels / f"{name}.py" for name in _KERNELS)):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _training(p: DriftTrainParams, given: Images) -> Training:
    return Training(p.recipe(), given.images, given.labels, given.classes, None)


class _Hooks:
    """Step rows, checkpoints, and averages that are kept."""

    def __init__(self, ctx: Context, p: DriftTrainParams, told: Told, identity: str) -> None:
        self.ctx, self.p, self.told, self.identity = ctx, p, told, identity
        self.checkpoints, self.rows_at = frozenset(p.checkpoints), frozenset(p.row_at)

    def stepped(self, row: StepRow) -> None:
        failpoint("drift.step")
        p = self.p
        if row.step in self.rows_at:
            self.told.rows.append(row)
            self.ctx.metrics(
                row.step, loss=row.loss, loss_pixel=row.loss_pixel, rate=row.lr, drift=row.drift_norm,
                gradient_norm=row.gradient_norm,
            )  # fmt: skip
        self.ctx.progress(row.step, p.planned, f"drift {row.drift_norm:.4f}")

    def due(self, step: int) -> bool:
        return step in self.checkpoints

    def checkpoint(self, training: Training) -> None:
        if training.steps in self.p.models:
            self.told.kept[training.steps] = weights_of(training.average)
        with self.ctx.save_checkpoint(training.steps, keep=2) as folder:
            train_state.save(folder, training, self.told, self.identity)

    def stopping(self) -> bool:
        return self.ctx.stopping


def _finish(ctx: Context, p: DriftTrainParams, begin: _Begin, given: Images, seconds: float) -> None:
    training, told, made = begin.training, begin.told, begin.encoder
    final = weights_of(training.average)
    wrong = [name for name, value in final.items() if not np.isfinite(value).all()]
    if wrong:
        raise NoNumber(f"{wrong[0]} of the average is not finite", hint="try a lower rate")
    (ctx.artifacts / "models").mkdir(parents=True, exist_ok=True)
    write_npz(ctx.artifact(MODEL), final)
    for step, name in p.models.items():
        write_npz(ctx.artifact(name), told.kept[step])
    if made.weights:
        write_npz(ctx.artifact(ENCODER), made.weights)
    encoder_sha256 = arrays_sha256(made.weights) if made.weights else None
    config: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": p.recipe().words(),
        "real": p.real,
        "source": given.source,
        "architecture": training.architecture.words(),
        "data_sha256": given.data_sha256,
        "training_encoder": p.encoder,
        "training_encoder_sha256": encoder_sha256,
        "steps_done": training.steps,
        "models": {str(step): name for step, name in p.models.items()},
        "code_sha256": code_digest(),
        "torch": torch.__version__,
    }
    write_atomic(ctx.artifact(CONFIG), canonical(config))
    ctx.results(STEPS_TABLE, [_step_row(p, row) for row in told.rows])
    last = told.rows[-max(1, len(told.rows) // 10) :]
    row = {
        "variant": p.variant,
        "encoder": p.encoder,
        "seed": p.seed,
        "real": p.real,
        "steps_planned": p.planned,
        "steps_done": training.steps,
        "unconditional": p.unconditional,
        "scheduler": p.scheduler,
        "drift_norm": float(np.mean([r.drift_norm for r in last])) if last else None,
        "encoder_error": told.encoder_error,
        "model_sha256": sha256_file(ctx.artifact(MODEL)),
        "config_sha256": payload_sha256(config),
        "data_sha256": given.data_sha256,
        "training_encoder_sha256": encoder_sha256,
        "resumed_at": begin.resumed_at,
        "device": p.device,
        "threads": p.threads,
        "seconds": seconds,
    }
    ctx.results(TRAINING_TABLE, [row])


def _step_row(p: DriftTrainParams, row: StepRow) -> dict[str, Any]:
    return {
        "step": row.step,
        "loss": row.loss,
        "loss_pixel": row.loss_pixel,
        "lr": row.lr,
        "negatives_per_group": row.negatives,
        "alpha_mean": row.alpha_mean,
        "unconditional_weight_mean": row.weight_mean,
        "drift_norm": row.drift_norm,
        "gradient_norm": row.gradient_norm,
        "finite": row.finite,
        "variant": p.variant,
        "encoder": p.encoder,
        "seed": p.seed,
    }


@contextmanager
def _memory() -> Iterator[None]:
    """Running out of memory, as a failure with a cause of its own."""
    smaller = "train with fewer samples a group, or a smaller hidden"
    try:
        yield
    except MemoryError as error:
        raise HostMemory(f"the machine is out of memory: {error}", hint=smaller) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in ("can't allocate memory", "not enough memory")):
            raise
        raise HostMemory(f"the machine is out of memory: {str(error).splitlines()[0]}", hint=smaller) from error
