"""One job of a learned arm: data and groups, training or going on with it, bundle, reconstruction of the test split."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from core.errors import BadInput, JobFailed
from core.failpoint import failpoint
from core.fsio import sha256_file, write_atomic
from core.kind import Context
from core.states import Cause
from jobs.dose.architecture import Architecture
from jobs.dose.controls import mean_object, physics_object
from jobs.dose.dataset import Dataset
from jobs.dose.guard import Verdict, golden_loss, guard
from jobs.dose.npz import read_npz, write_npz
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.samples import Samples
from jobs.dose.stitching import stitched
from jobs.dose.views_run import Groups
from jobs.dose_kinds.train import DATA, FIXED, GOLDEN, TABLE, TIME, VIEWS, DoseTrainParams

if TYPE_CHECKING:
    from jobs.dose.network import Network
    from jobs.dose.training import Training

_SHIMS = ("shim_tensorflow", "shim_torch")
BUNDLE, MANIFEST, RECONSTRUCTION = "model.npz", "model.json", "reconstruction.npz"


class NoNumber(JobFailed):
    """A loss or a weight is no number. Nothing of it was kept."""

    slug = "not-finite"
    cause: ClassVar[Cause] = Cause.NOT_FINITE


class WorseThanGolden(JobFailed):
    """The training ended with a loss above what its golden allows."""

    slug = "worse-than-golden"


def run(ctx: Context) -> None:
    """See the module.

    Raises:
        NoNumber, WorseThanGolden: see there. BadInput: the data, the groups or the golden cannot be used.
        JobFailed: this process has loaded another backend.
    """
    p: DoseTrainParams = ctx.params
    begun = time.monotonic()
    named = [RECONSTRUCTION, MANIFEST] if p.arm in FIXED else [BUNDLE, RECONSTRUCTION, MANIFEST]
    ctx.expect(rows={TABLE: 1, TIME: 1}, artifacts=named, last_step=p.recipe().steps if p.epochs else None)
    folder, views = ctx.input(DATA), ctx.input(VIEWS)
    train, test = (
        Samples.of(data, Groups.load(views / f"{split}_groups.npz", data.count))
        for split, data in ((s, Dataset.load(folder / f"{s}.npz")) for s in ("train", "test"))
    )
    condition = condition_of(p, train, views)
    golden = golden_loss(ctx.input(GOLDEN), condition) if ctx.has_input(GOLDEN) else None
    if p.arm in FIXED:
        _control(ctx, p, train, test, condition, begun)
        return
    _learn(ctx, p, train, test, condition, golden, begun)


def condition_of(p: DoseTrainParams, train: Samples, views: Path) -> dict[str, Any]:
    """What a training is of: only equal ones are held against each other."""
    photons = train.data.meta.get("photons")
    told = json.loads((views / "spacing.json").read_text()) if (views / "spacing.json").is_file() else []
    return {
        "arm": p.name,
        "photons": None if photons is None else float(photons),
        "view": next((str(row["view"]) for row in told if "view" in row), None),
        "gridsize": round(train.members.shape[1] ** 0.5),
        "seed": p.seed,
    }


def _learn(
    ctx: Context,
    p: DoseTrainParams,
    train: Samples,
    test: Samples,
    condition: dict[str, Any],
    golden: float | None,
    begun: float,
) -> None:
    if p.arm == "supervised" and train.data.patches is None:
        train.truths(np.zeros(1, np.int64))  # refuses, before Keras is loaded
    from jobs.dose.network import Network, load_backend, loaded
    from jobs.dose.training import NotFinite, Training

    load_backend(p.backend, threads=ctx.cores, seed=p.seed)
    architecture = _architecture(p, train.data)
    network = Network(architecture, train.data.probe_guess, pad=max(train.pad, test.pad), seed=p.seed)
    recipe = p.recipe()
    training = Training(network, train, recipe, identity=code_digest(), backend=p.backend)
    resumed = _resume(ctx, training)
    hooks = _Hooks(ctx, p)
    ctx.log(
        f"{p.name}: {recipe.steps} steps of {recipe.batch(train.members.shape[1])} groups of {train.members.shape[1]}, "
        f"{len(train)} groups to train on, {len(test)} to reconstruct, {p.backend}"
    )
    manifest: dict[str, Any] = {
        "condition": condition,
        "architecture": architecture.words(),
        "recipe": asdict(recipe),
        "epochs_planned": recipe.epochs,
        "data_sha256": train.digest(),
        "resumed_at": resumed,
    }
    loss: float | None = None
    try:
        if not training.run(hooks):
            ctx.leave()
        loss = training.final_loss()
    except NotFinite as error:
        manifest |= {
            "status": "failed",
            "error": str(error),
            "epochs_done": training.steps // recipe.steps_per_epoch,
            "final_loss": None,
            "backend": loaded(),
        }
        _write(ctx, manifest)
        # The manifest of an attempt that failed is handed to nobody: what the summary has to know is in the sentence.
        done = f"{manifest['epochs_done']} of {recipe.epochs} epochs were done"
        raise NoNumber(f"{error}; {done}", hint="the last checkpoint is good; try a lower rate") from None
    bundle = ctx.artifact(BUNDLE)
    write_bundle(bundle, network)
    verdict = guard(loss, golden, p.tolerance) if ctx.has_input(GOLDEN) else None
    facts = loaded()
    manifest |= {
        "status": "untrained" if recipe.epochs == 0 else "trained",
        "final_loss": loss,
        "epochs_done": training.steps // recipe.steps_per_epoch,
        "steps": training.steps,
        "bundle": BUNDLE,
        "bundle_sha256": sha256_file(bundle),
        "backend": facts,
        "guard": None if verdict is None else asdict(verdict),
    }
    reconstruct(network, test, {**condition, "bundle_sha256": manifest["bundle_sha256"]}, recipe.batch).save(
        ctx.artifact(RECONSTRUCTION)
    )
    _write(ctx, manifest)
    _row(ctx, manifest, time.monotonic() - begun)
    _judge(verdict)


def _judge(verdict: Verdict | None) -> None:
    if verdict is not None and not verdict.ok:
        raise WorseThanGolden(verdict.why, hint="look at the step rows; a person may give another golden")


def _architecture(p: DoseTrainParams, data: Dataset) -> Architecture:
    try:
        return Architecture(size=data.size, width=p.width)
    except ValueError as error:
        raise BadInput(str(error), hint="give other frames or another width") from None


def reconstruct(network: Network, test: Samples, meta: dict[str, Any], batch_of: Any) -> Reconstruction:
    """The object of a split by the network, from every frame that is in a group."""
    batch = batch_of(test.members.shape[1])
    run = network.shim.compiled(network.forward)
    patches, frames = [], []
    for which, diffraction, positions in test.shown(batch):
        tensors = [network.keras.ops.convert_to_tensor(t) for t in (diffraction, positions)]
        amplitude, phase = (network.shim.host(t).astype(np.float64) for t in run(*tensors))
        found = np.moveaxis(amplitude * np.exp(1j * phase), -1, 1)
        own = np.unique(which, return_index=True)[1]  # the last batch repeats its last group
        patches.append(found[own].reshape(-1, *found.shape[2:]))
        frames.append(test.members[which[own]].ravel())
    every, index = np.concatenate(patches), np.concatenate(frames)
    picture, origin, covered = stitched(every, test.data.x[index], test.data.y[index], test.data.probe_guess)
    return Reconstruction(picture, origin, covered, meta={**meta, "engine": "keras"})


def write_bundle(path: Path, network: Network) -> None:
    """Weights by name, and what network they are of; equal ones give equal bytes."""
    about = json.dumps({**network.architecture.words(), "pad": network.pad}, sort_keys=True)
    write_npz(path, {**network.weights(), "about": np.asarray(about)})


def read_bundle(path: Path) -> tuple[Architecture, int, dict[str, npt.NDArray[Any]]]:
    """(architecture, pad, weights) of a bundle, for either backend.

    Raises:
        BadInput: it is none.
    """
    arrays = read_npz(path)
    try:
        about = json.loads(str(arrays.pop("about")))
        pad = int(about.pop("pad"))
        return Architecture(**about), pad, arrays
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is no bundle of dose-train: {error}", hint="give its model.npz") from None


def code_digest() -> str:
    """SHA-256 of the modules that decide on what a step does."""
    here = Path(__file__).parent
    whole = hashlib.sha256()
    for name in ("architecture", "network", "network_oracle", "samples", "losses", "training", "recipe", *_SHIMS):
        whole.update((here / f"{name}.py").read_bytes())
    return whole.hexdigest()


def _control(
    ctx: Context, p: DoseTrainParams, train: Samples, test: Samples, condition: dict[str, Any], begun: float
) -> None:
    """An arm without a network, and what its manifest says."""
    told: dict[str, Any] = {}
    if p.arm == "mean":
        made, value = mean_object(train, test, condition)
        told = {"value": [value.real, value.imag]}
    else:
        made = physics_object(test, condition)
    made.save(ctx.artifact(RECONSTRUCTION))
    manifest = {
        "condition": condition,
        "status": "control",
        **told,
        "final_loss": None,
        "epochs_planned": 0,
        "epochs_done": 0,
        "steps": 0,
        "bundle_sha256": None,
        "backend": None,
        "resumed_at": None,
        "guard": None,
    }
    _write(ctx, manifest)
    _row(ctx, manifest, time.monotonic() - begun)


def _write(ctx: Context, manifest: dict[str, Any]) -> None:
    write_atomic(ctx.artifact(MANIFEST), (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def _row(ctx: Context, manifest: dict[str, Any], seconds: float) -> None:
    facts = manifest["backend"] or {}
    row = {
        **manifest["condition"],
        **{k: manifest[k] for k in ("status", "epochs_done", "steps", "final_loss", "bundle_sha256")},
        "backend": facts.get("backend"),
        "backend_version": facts.get("version"),
        "guard": None if manifest["guard"] is None else bool(manifest["guard"]["ok"]),
    }
    ctx.results(TABLE, [row])
    resumed = manifest["resumed_at"]
    done = {"steps": manifest["steps"] - (resumed or 0), "resumed_at": resumed, "seconds": seconds}
    ctx.results(TIME, [{"arm": row["arm"], "threads": ctx.cores, "process": os.getpid(), **done}])


def _resume(ctx: Context, training: Training) -> int | None:
    """The step of an earlier checkpoint that could be gone on from; None: from the first."""
    from jobs.dose.training import StateRefused

    for found in ctx.checkpoints():
        try:
            training.load(found.path)
        except StateRefused as error:
            ctx.log(f"lab: a checkpoint was passed over: step {found.step} of attempt {found.attempt}: {error}")
        else:
            ctx.log(f"going on from the checkpoint of step {training.steps} of {training.recipe.steps}")
            return training.steps
    if ctx.attempt > 1:
        ctx.log("lab: no earlier attempt left a checkpoint that it can go on from: it starts over")
    return None


class _Hooks:
    """Step rows and checkpoints."""

    def __init__(self, ctx: Context, p: DoseTrainParams) -> None:
        self.ctx, self.recipe = ctx, p.recipe()
        self.every = p.checkpoint_epochs * self.recipe.steps_per_epoch

    def stepped(self, step: int, loss: float) -> None:
        failpoint("dose.step")
        epoch = (step - 1) // self.recipe.steps_per_epoch
        self.ctx.metrics(step, epoch=epoch, loss=loss)
        self.ctx.progress(step, self.recipe.steps, f"epoch {epoch + 1}, loss {loss:.4g}")

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.recipe.steps

    def checkpoint(self, training: Training) -> None:
        if training.steps:
            with self.ctx.save_checkpoint(training.steps, keep=2) as folder:
                training.save(folder)

    def stopping(self) -> bool:
        return self.ctx.stopping
