"""Runs in a process of its own (TensorFlow and torch never meet): `train_side.py BACKEND FOLDER`; prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from core.fsio import sha256_file
from jobs.dose import network_oracle
from jobs.dose.architecture import Architecture
from jobs.dose.learned import BUNDLE, MANIFEST, NoNumber, WorseThanGolden, read_bundle
from jobs.dose.network import Network
from jobs.dose.reconstruction import Reconstruction
from jobs.dose_kinds.train import DoseTrain
from tests.jobs.context import Left, Recorder

SHORT: dict[str, Any] = {"epochs": 3, "frames_per_step": 8, "frames_per_epoch": 16, "width": 4, "checkpoint_epochs": 1}


class Kept(Recorder):
    """Keeps checkpoints, and asks to stop after some steps."""

    stop_at = 0

    def __init__(self, params: dict[str, Any], root: Path, inputs: dict[str, Path]) -> None:
        kind = DoseTrain()
        super().__init__(kind, kind.Params(**params), root, cores=1, inputs=inputs)
        self.root, self.found, self.losses = root, list[Any](), list[float]()

    def metrics(self, step: int, **values: Any) -> None:
        self.losses.append(values["loss"])
        self.stopping = step == self.stop_at

    def save_checkpoint(self, step: int, *, keep: int | None = None, **meta: Any) -> Any:
        folder = self.root / f"step{step}"
        folder.mkdir(exist_ok=True)
        self.found.insert(0, SimpleNamespace(path=folder, step=step, attempt=1))
        return Given(folder)

    def checkpoints(self) -> Iterator[Any]:
        return iter(self.found)


class Given:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, *_: object) -> None: ...


def main(backend: str, root: Path) -> dict[str, Any]:
    inputs = {"data": root / "data", "views": root / "views"}
    pinn = {**SHORT, "backend": backend, "seed": 7}

    def ran(name: str, params: dict[str, Any], **more: Path) -> Kept:
        ctx = Kept(params, root / f"{backend}_{name}", {**inputs, **more})
        ctx.run()
        return ctx

    def weights(ctx: Kept) -> str:
        return sha256_file(ctx.artifacts / BUNDLE)

    whole = ran("whole", pinn)
    told = json.loads((whole.artifacts / MANIFEST).read_text())
    row = whole.tables["dose_training"][0]
    out: dict[str, Any] = {"told": told, "losses": whole.losses, "row": row, "whole": weights(whole)}
    # Stopped in the middle, and gone on with: the state is all that passes over.
    half = Kept(pinn, root / f"{backend}_half", inputs)
    half.stop_at = 3
    try:
        half.run()
    except Left:
        out["left_at"] = half.found[0].step
    rest = Kept(pinn, root / f"{backend}_rest", inputs)
    rest.found = list(half.found)
    rest.run()
    out["resumed"], out["resumed_at"] = weights(rest), json.loads((rest.artifacts / MANIFEST).read_text())["resumed_at"]
    # The same state is nothing to another training, and another seed gives other weights.
    foreign = Kept({**pinn, "seed": 8}, root / f"{backend}_foreign", inputs)
    foreign.found = list(half.found)
    foreign.run()
    out["other"] = weights(foreign)
    out["foreign"] = [line for line in foreign.logs if "passed over" in line]

    none = {**pinn, "epochs": 0}
    out["untrained"] = untrained = json.loads((ran("untrained", none).artifacts / MANIFEST).read_text())
    # Over all groups: the loss of a step is that of the two groups that it happened to take.
    out["supervised"] = []
    for epochs in (0, 12):
        ctx = ran(f"supervised_{epochs}", {**pinn, "arm": "supervised", "epochs": epochs})
        out["supervised"].append(ctx.tables["dose_training"][0]["final_loss"])

    golden = root / f"{backend}_golden.json"
    for name, loss in (("met", untrained["final_loss"]), ("missed", untrained["final_loss"] - 10)):
        golden.write_text(json.dumps({**untrained, "final_loss": loss}))
        try:
            ran(name, none, golden=golden)
            out[name] = None
        except WorseThanGolden as error:
            out[name] = str(error)
    try:
        ran("diverges", {**pinn, "rate": 1e30, "clip": 1e30, "epochs": 30})
    except NoNumber as error:
        out["diverges"] = str(error)
        out["failed"] = json.loads((root / f"{backend}_diverges" / "artifacts" / MANIFEST).read_text())

    found = Reconstruction.load(whole.artifacts / "reconstruction.npz")
    out["covered"], out["origin"] = float(found.covered.mean()), found.origin
    out["error"], out["spoiled"] = forward_errors(whole.artifacts / BUNDLE)
    return out


def forward_errors(bundle: Path) -> tuple[float, float]:
    """Of a bundle's network against the oracle, relative; then with one weight that is another."""
    architecture, pad, weights = read_bundle(bundle)
    pad = max(pad, 4)
    assert architecture == Architecture(16, 4)
    rng = np.random.default_rng(0)
    probe = (rng.normal(size=(16, 16)) + 1j * rng.normal(size=(16, 16))).astype(np.complex64)
    diffraction = np.abs(rng.normal(size=(3, 4, 16, 16))).astype(np.float32)
    positions = rng.uniform(-pad / 2, pad / 2, (3, 4, 2))
    positions = (positions - positions.mean(axis=1, keepdims=True)).astype(np.float32)
    right = network_oracle.patches(architecture, weights, probe, diffraction, positions, pad)
    network = Network(architecture, probe, pad=pad)
    given = np.ascontiguousarray(np.moveaxis(diffraction, 1, -1)), np.moveaxis(positions, 1, -1)[:, None].copy()
    run = network.shim.compiled(network.object_patches)
    found = []
    for bias in (0.0, 1e-3):
        network.take({**weights, "phase_head.bias": weights["phase_head.bias"] + np.float32(bias)})
        parts = run(*(network.keras.ops.convert_to_tensor(v) for v in given))
        re, im = (np.moveaxis(network.shim.host(part), -1, 1) for part in parts)
        found.append(float(np.abs(re + 1j * im - right).max() / np.abs(right).max()))
    return found[0], found[1]


if __name__ == "__main__":
    found = main(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps({**found, "epsilon": sys.modules["keras"].config.epsilon()}))
