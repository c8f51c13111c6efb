"""The part of the `ptychi` engine that runs under the user's own interpreter: NPZ in, NPZ and JSON out.

    PYTHON ptychi_process.py IN.npz OUT.npz

It imports numpy, torch and ptychi, and nothing of this project. Every epoch is a line of JSON on the output:
{"epoch": 1, "seconds": 0.1, "cpu": 0.1}. IN holds `intensity` (n, N, N; frequency 0 at [N/2, N/2]), `y`, `x` (n,),
`origin_y`, `origin_x` (the object's pixel, a half-integer for an even N, of the position 0), `probe` (N, N),
`object` (H, W), `settings` (JSON). OUT holds `object`, `probe`, `kept` (k, H, W; objects after the epochs in `keep`)
and `words` (JSON: versions).

ptychi imports `torchvision.transforms.GaussianBlur` for a function that makes random images, which nothing here calls.
The wheel that pip takes for torchvision belongs to a CUDA build of torch and fails beside a CPU-only one, so where it
cannot be imported a module of that name with a class that refuses to be used stands in its place.
"""

import importlib
import importlib.metadata
import json
import logging
import sys
import time
import types
from typing import Any


def main(source: str, target: str) -> int:
    began = time.perf_counter()
    _torchvision()
    import numpy as np
    import torch

    api: Any = importlib.import_module("ptychi.api")
    task_of: Any = importlib.import_module("ptychi.api.task").PtychographyTask
    logging.disable(logging.WARNING)
    with np.load(source, allow_pickle=False) as file:
        given = {name: file[name] for name in file.files}
    asked = json.loads(str(given["settings"]))
    torch.set_num_threads(asked["threads"])

    options = api.LSQMLOptions()
    options.data_options.data = given["intensity"]
    options.object_options.initial_guess = given["object"][None]
    options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    options.object_options.position_origin_coords = [float(given["origin_y"]), float(given["origin_x"])]
    options.object_options.optimizer = api.Optimizers.SGD
    options.object_options.step_size = 1
    options.object_options.optimizable = True
    options.object_options.optimal_step_size_scaler = asked["relaxation"]
    options.object_options.remove_object_probe_ambiguity.enabled = False
    options.probe_options.initial_guess = given["probe"][None, None]
    options.probe_options.optimizer = api.Optimizers.SGD
    options.probe_options.step_size = 1
    options.probe_options.optimizable = asked["refine_probe"]
    options.probe_options.optimal_step_size_scaler = asked["relaxation"]
    options.probe_options.orthogonalize_incoherent_modes.enabled = False
    options.probe_position_options.position_x_px = given["x"]
    options.probe_position_options.position_y_px = given["y"]
    options.probe_position_options.optimizable = False
    reconstructor = options.reconstructor_options
    reconstructor.default_device = api.Devices.GPU if asked["device"] == "cuda" else api.Devices.CPU
    reconstructor.batch_size = asked["batch"]
    reconstructor.num_epochs = asked["epochs"]
    reconstructor.random_seed = asked["seed"]
    reconstructor.noise_model = api.NoiseModels.GAUSSIAN
    reconstructor.preconditioning_damping_factor = asked["object_damping"]
    reconstructor.rescale_probe_intensity_in_first_epoch = False
    reconstructor.momentum_acceleration_gain = 0.0

    task = task_of(options)
    ready = time.perf_counter() - began
    kept = []
    for epoch in range(1, asked["epochs"] + 1):
        start, used = time.perf_counter(), time.process_time()
        task.run(1)
        row = {"epoch": epoch, "seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
        print(json.dumps(row), flush=True)
        if epoch in asked["keep"]:
            kept.append(task.get_data_to_cpu("object", as_numpy=True)[0])
    found = task.get_data_to_cpu("object", as_numpy=True)[0]
    probe = task.get_data_to_cpu("probe", as_numpy=True)[0, 0]
    words = {"version": _version(), "torch": torch.__version__, "seconds_to_start": ready}
    np.savez(
        target,
        object=found.astype(np.complex64),
        probe=probe.astype(np.complex64),
        kept=np.asarray(kept, np.complex64).reshape(len(kept), *found.shape),
        words=np.asarray(json.dumps(words)),
    )
    return 0


def _torchvision() -> None:
    try:
        importlib.import_module("torchvision.transforms")
        return
    except (ImportError, RuntimeError):
        pass
    # One that does not fit this torch leaves half a module behind.
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]

    class GaussianBlur:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("GaussianBlur is not there: this torchvision could not be imported beside torch")

    package: Any = types.ModuleType("torchvision")
    transforms: Any = types.ModuleType("torchvision.transforms")
    transforms.GaussianBlur, package.transforms = GaussianBlur, transforms
    sys.modules.update({"torchvision": package, "torchvision.transforms": transforms})


def _version() -> str:
    return importlib.metadata.version("ptychi")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
