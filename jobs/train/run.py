"""One training job: data, going on where an earlier attempt ended, steps, checkpoints, candidates, the bundle.

A checkpoint is written before the candidate of the same step is measured, and holds all candidates before it. So
whoever goes on from it knows all but that one, which is then measured first: wherever an attempt is killed, nothing is
missing and nothing is there twice. For the same reason it leaves in the middle of a measurement when it is asked to.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from core.errors import BadInput, JobFailed
from core.failpoint import failpoint
from core.fsio import digest
from core.kind import Context
from core.states import Cause
from jobs.train import alike, bundle, given, show, state
from jobs.train.data.pairs import Pairs
from jobs.train.evaluate import Evaluation, Quality, choose
from jobs.train.loop import NotFinite, StepRow, train
from jobs.train.measured import Measured
from jobs.train.model import Model
from jobs.train.state import Identity, Mode, StateRefused
from jobs.train_kind import START, TrainParams
from kernels.postfilter.quantised import quantise

# What is said by the allocator of a CPU; torch has no class for it.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


class NoNumber(JobFailed):
    """A loss, a gradient or a weight is no number. Nothing of it was kept."""

    slug = "not-finite"
    cause: ClassVar[Cause] = Cause.NOT_FINITE


class HostMemory(JobFailed):
    """The machine, or what this process may have of it, is too small."""

    slug = "host-memory"
    cause: ClassVar[Cause] = Cause.HOST_MEMORY


class DeviceMemory(JobFailed):
    """The GPU is too small, or others are on it."""

    slug = "device-memory"
    cause: ClassVar[Cause] = Cause.DEVICE_MEMORY


def run(ctx: Context) -> None:
    """Train to the last epoch and leave the bundle.

    Raises:
        NoNumber, HostMemory, DeviceMemory: see there. BadInput: the frames or the start cannot be used.
        JobFailed: the encoder is missing, or the GPU. DiskFull: the encoded frames find no space.
    """
    with _memory():
        _run(ctx)


def _run(ctx: Context) -> None:
    p: TrainParams = ctx.params
    begun = time.monotonic()
    recipe = p.recipe()
    ctx.expect(
        rows={"candidates": len(p.candidates) + 2, "training": 1},
        last_step=recipe.steps,
        artifacts=[f"bundle/{bundle.FILE}", f"bundle/{bundle.MANIFEST}", *show.names(p)],
    )
    device = given.device(ctx, p)
    training, held, clip = given.data(ctx, p)
    with training, held:
        fixed = ", ".join(sorted(set(held.sources)))
        ctx.log(
            f"{recipe.name}: {recipe.steps} steps on {len(training)} pairs of {len(set(training.sources))} sources "
            f"({training.encoded_bytes} bytes encoded), measured on {len(held)} pairs of {fixed}"
        )
        objective, networks = given.objective(ctx, p, training, device)
        identity = Identity(
            recipe=digest([recipe.digest(), p.objective, p.device, networks]),
            data=digest([training.digest, held.digest]),
            code=given.code_digest(),
        )
        evaluation = Evaluation(
            held,
            range(len(held)),
            objective,
            both=recipe.sal_both_frames,
            device=device,
            threads=ctx.cores,
            between=lambda: _leave_if_stopping(ctx),
        )
        begin = _begin(ctx, p, Model(recipe, device), identity)
        hooks = _Hooks(ctx, p, evaluation, identity, networks, begin.measured, begin.model.steps)
        hooks.measure_others()
        hooks.measure_if_due(begin.model)
        try:
            done = train(begin.model, training, objective, hooks, threads=ctx.cores)
        except (NotFinite, StateRefused) as error:
            raise NoNumber(
                str(error), hint="the last checkpoint is good; try a lower rate or a smaller clip from there (start=)"
            ) from None
        if not done:
            ctx.leave()
        rows = _finish(ctx, p, begin, hooks, identity, training, held, time.monotonic() - begun)
        show.show(ctx, p, recipe.name, hooks.measured, rows, held, clip)


@dataclass(frozen=True)
class _Begin:
    """How this attempt begins.

    Attributes:
        resumed_at: the step that it goes on from; None: it begins with nothing of an earlier attempt's.
    """

    model: Model
    measured: Measured
    resumed_at: int | None


def _begin(ctx: Context, p: TrainParams, model: Model, identity: Identity) -> _Begin:
    """From an earlier attempt's checkpoint; else from the start that was named; else from the first step."""
    for found in ctx.checkpoints():
        failpoint("train.loading")
        try:
            measured = Measured.load(found.path)
            step = state.load(found.path, model, identity)
        except StateRefused as error:
            ctx.log(f"lab: a checkpoint was passed over: step {found.step} of attempt {found.attempt}: {error}")
        else:
            ctx.log(f"going on from the checkpoint of step {step} of {model.recipe.steps}, of attempt {found.attempt}")
            return _Begin(model, measured, step)
    if ctx.attempt > 1:
        ctx.log("lab: no earlier attempt left a checkpoint that it can go on from: it starts over")
    if p.start is None:
        return _Begin(model, Measured(), None)
    folder, mode = ctx.input(START), Mode(p.mode)
    try:
        measured = Measured.load(folder) if mode is Mode.EXACT else Measured()
        step = state.load(folder, model, identity, mode)
    except StateRefused as error:
        raise BadInput(
            f"start={p.start} cannot be gone on from: {error}", hint="give mode=model-only, or name another checkpoint"
        ) from None
    ctx.log(f"started from {p.start} ({mode}), at step {step} of {model.recipe.steps}")
    return _Begin(model, measured, step if mode is Mode.EXACT else None)


class _Hooks:
    """Step rows, checkpoints and candidates."""

    def __init__(
        self,
        ctx: Context,
        p: TrainParams,
        evaluation: Evaluation,
        identity: Identity,
        networks: str | None,
        measured: Measured,
        step: int,
    ) -> None:
        self.ctx, self.p, self.evaluation, self.identity, self.measured = ctx, p, evaluation, identity, measured
        self.networks = networks  # their digest, where the objective asks any
        self.recipe = p.recipe()
        per_epoch = self.recipe.steps_per_epoch
        self.candidates_at = frozenset(epoch * per_epoch for epoch in p.candidates)
        self.every = p.checkpoint_epochs * per_epoch
        self.saved = time.monotonic()
        self.kept = (step, len(measured.candidates))  # what the newest checkpoint holds

    def rows(self, rows: Sequence[StepRow]) -> None:
        for row in rows:
            self.ctx.metrics(
                row.step,
                epoch=row.epoch,
                training_value=row.value,
                **row.terms,
                rate=row.rate,
                gradient_norm=row.gradient_norm,
                ema_distance=row.ema_distance,
                seconds=row.seconds,
                pairs=" ".join(map(str, row.pairs)),
            )
        self.measured.went(rows)
        last = rows[-1]
        self.ctx.progress(last.step, self.recipe.steps, f"epoch {last.epoch + 1}, {self.quantity} {last.value:.4g}")

    @property
    def quantity(self) -> str:
        return self.evaluation.objective.quantity

    def due(self, step: int) -> bool:
        if step % self.every == 0 or step in self.candidates_at or step == self.recipe.steps:
            return True
        return time.monotonic() - self.saved >= self.p.checkpoint_seconds

    def checkpoint(self, model: Model) -> None:
        epoch, place = self.recipe.where(model.steps)
        holds = (model.steps, len(self.measured.candidates))
        if holds != self.kept:
            about: dict[str, Any] = {"epoch": epoch, "place": place, "branch": self.recipe.name}
            with self.ctx.save_checkpoint(model.steps, keep=self.p.keep_checkpoints, **about) as folder:
                state.save(folder, model, self.identity)
                self.measured.save(folder)
            self.saved, self.kept = time.monotonic(), holds
        self.measure_if_due(model)

    def stopping(self) -> bool:
        return self.ctx.stopping

    def measure_others(self) -> None:
        """What every candidate must better: the frames as decoded, and a plain unsharp mask of them."""
        if self.measured.decoded is None or self.measured.unsharp is None:
            self.measured.decoded, self.measured.unsharp = self.evaluation.decoded(), self.evaluation.unsharp()

    def measure_if_due(self, model: Model) -> None:
        """The candidate of this step, if one is planned and was not measured."""
        if model.steps not in self.candidates_at or any(c.step == model.steps for c in self.measured.candidates):
            return
        averaged = model.averaged()
        epoch = model.steps // self.recipe.steps_per_epoch
        found = self.evaluation.candidate(averaged, step=model.steps, epoch=epoch)
        self.measured.add(found, quantise(averaged))
        quality = found.quality
        self.ctx.metrics(
            model.steps, epoch=epoch - 1, evaluation_value=quality.value, psnr=quality.psnr, **_ssim(quality)
        )
        assert self.measured.decoded is not None
        self.ctx.log(
            f"epoch {epoch}: {self.quantity} {quality.value:.6g} on the fixed pairs, PSNR {quality.psnr:.3f} dB "
            f"({quality.psnr - self.measured.decoded.psnr:+.3f} against the decoded frames)"
        )


def _leave_if_stopping(ctx: Context) -> None:
    """Between two pairs that are measured."""
    failpoint("train.measuring")
    if ctx.stopping:
        ctx.leave()


def _finish(
    ctx: Context,
    p: TrainParams,
    begin: _Begin,
    hooks: _Hooks,
    identity: Identity,
    training: Pairs,
    held: Pairs,
    seconds: float,
) -> list[dict[str, Any]]:
    """Choose, write the bundle, and say it in the tables. Returns the rows of the candidates."""
    model, measured, recipe = begin.model, hooks.measured, hooks.recipe
    try:
        chosen = choose(measured.candidates)
    except ValueError as error:
        raise NoNumber(str(error), hint="look at the step rows, and try a lower rate") from None
    assert measured.best is not None
    assert measured.decoded is not None
    assert measured.unsharp is not None
    digests = {
        "recipe": identity.recipe,
        "code": identity.code,
        "data": training.digest,
        "evaluation": held.digest,
        "weights": model.weights().digest(),
        "average": model.averaged().digest(),
    }
    shipped = bundle.write(
        ctx.artifact(f"bundle/{bundle.FILE}").parent,
        measured.best,
        chosen,
        branch=recipe.name,
        quantity=hooks.quantity,
        decoded=measured.decoded,
        unsharp=measured.unsharp,
        digests=digests,
        encoded_bytes=training.encoded_bytes,
    )
    rows = [_other(hooks, "decoded", measured.decoded), _other(hooks, "unsharp", measured.unsharp)]
    for c in measured.candidates:
        own = {"epoch": c.epoch, "step": c.step, "bytes": c.size, "weights_sha256": c.digest, "chosen": c is chosen}
        rows.append({**_other(hooks, "average-int8", c.quality), **own})
    ctx.results("candidates", rows)
    row = {
        "branch": recipe.name,
        "quantity": hooks.quantity,
        "epochs": recipe.epochs,
        "steps": model.steps,
        "resumed_at": begin.resumed_at,
        "mode": "fresh" if p.start is None else p.mode,
        "weights_sha256": digests["weights"],
        "average_sha256": digests["average"],
        "shipped_sha256": shipped.sha256,
        "bundle_bytes": shipped.size,
        "chosen_epoch": chosen.epoch,
        "recipe_sha256": identity.recipe,
        "data_sha256": training.digest,
        "evaluation_sha256": held.digest,
        "value_sha256": alike.value_digest(p, hooks.networks, held.digest),
        "settings_sha256": alike.settings_digest(p, hooks.networks, identity.data, identity.code),
        "code_sha256": identity.code,
        "encoded_bytes": training.encoded_bytes,
        "evaluation_encoded_bytes": held.encoded_bytes,
        "device": p.device,
        "threads": ctx.cores,
        "torch": torch.__version__,
        "seconds": seconds,
    }
    ctx.results("training", [row])
    return rows


def _other(hooks: _Hooks, weights: str, quality: Quality) -> dict[str, Any]:
    return {
        "branch": hooks.recipe.name,
        "weights": weights,
        "epoch": None,
        "step": None,
        "quantity": hooks.quantity,
        "evaluation_value": quality.value,
        "evaluation_terms": json.dumps(dict(quality.terms)),
        "psnr": quality.psnr,
        "ms_ssim": _ssim(quality).get("ms_ssim"),
        "bytes": None,
        "weights_sha256": None,
        "chosen": False,
    }


def _ssim(quality: Quality) -> Mapping[str, float]:
    return {"ms_ssim": quality.ms_ssim} if math.isfinite(quality.ms_ssim) else {}


@contextmanager
def _memory() -> Iterator[None]:
    """Running out of memory, as a failure with a cause of its own."""
    smaller = "train on smaller frames, or with a smaller h"
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemory(f"the GPU is out of memory: {_first_line(error)}", hint=smaller) from error
    except MemoryError as error:
        raise HostMemory(f"the machine is out of memory: {_first_line(error)}", hint=smaller) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise HostMemory(f"the machine is out of memory: {_first_line(error)}", hint=smaller) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
