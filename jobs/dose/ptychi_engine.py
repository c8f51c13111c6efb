"""The engine `ptychi`, from our side: it runs under an interpreter that the user names and never in this process.

It sets torch's global defaults, needs a torchvision and brings packages of its own, so it is given an environment:

    python3 -m venv ptychi-env
    ptychi-env/bin/pip install torch
    ptychi-env/bin/pip install --no-deps ptychi
    ptychi-env/bin/pip install numpy scipy pandas scikit-learn scikit-image pydantic h5py tqdm matplotlib

Positions are given around a whole pixel near their middle, and the origin is a half-integer, as it needs for an even
N: its patch at p begins at round(p) + origin - (N-1)/2. The object has two pixels around it more than ours, for its
rounding of halves differs; they are taken off again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BadInput, JobFailed
from jobs.dose.engines import Found, Request, amplitude_error, checked
from jobs.dose.npz import read_npz, write_npz
from kernels.diffraction.lsqml import covered

PROCESS = Path(__file__).with_name("ptychi_process.py")
EDGE = 2
INSTALL = (
    "install it in an environment of its own (see jobs/dose/ptychi_engine.py) and name it: python=/PATH/bin/python"
)


def check_interpreter(python: Path | None) -> Path:
    """The interpreter that has ptychi.

    Raises:
        BadInput: none is named, there is none, or it has no ptychi.
    """
    found = python or Path(sys.executable)
    if not found.is_file():
        raise BadInput(f"there is no interpreter {found}", hint=INSTALL)
    code = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ('ptychi', 'torch', 'numpy'))))"
    asked = subprocess.run([str(found), "-c", code], capture_output=True, check=False, env=_environment(1))
    if asked.returncode:
        raise BadInput(f"{found} has no ptychi", hint=INSTALL)
    return found


def run_ptychi(
    request: Request, python: Path | None, on_epoch: Callable[[int, float | None], None] | None = None
) -> Found:
    """Reconstruct with ptychi's LSQML, set to what our own does.

    Raises:
        BadInput: no interpreter with ptychi.
        JobFailed: it failed; the end of what it said is in the message.
    """
    interpreter = check_interpreter(python)
    frame, n = request.frame, request.amplitude.shape[-1]
    middle = [int(np.rint(np.median(v))) for v in (request.y, request.x)]
    power = float(np.mean(np.sum(request.amplitude.astype(np.float64) ** 2, axis=(1, 2))))
    scale = np.sqrt(power / np.sum(np.abs(request.probe.astype(np.complex128)) ** 2))
    shape = tuple(side + 2 * EDGE for side in frame.shape)
    start = np.ones(shape, np.complex64)
    if request.start is not None:
        start[EDGE:-EDGE, EDGE:-EDGE] = request.start
    settings = asdict(request.settings) | {
        "epochs": request.epochs,
        "threads": request.threads,
        "device": request.device.split(":")[0],
        "keep": list(request.keep),
    }
    with tempfile.TemporaryDirectory(prefix="ptychi-") as folder:
        source, target, said = (Path(folder) / name for name in ("in.npz", "out.npz", "said.txt"))
        write_npz(
            source,
            {
                # Its transforms are not unitary.
                "intensity": (request.amplitude.astype(np.float64) ** 2 * n**2).astype(np.float32),
                "y": (request.y - middle[0]).astype(np.float64),
                "x": (request.x - middle[1]).astype(np.float64),
                "origin_y": np.asarray(middle[0] - frame.origin[0] + EDGE - 0.5),
                "origin_x": np.asarray(middle[1] - frame.origin[1] + EDGE - 0.5),
                "probe": (request.probe * scale).astype(np.complex64),
                "object": start,
                "settings": np.asarray(json.dumps(settings)),
            },
        )
        seconds, cpu = _epochs(
            [str(interpreter), str(PROCESS), str(source), str(target)], said, request.threads, on_epoch
        )
        found = read_npz(target)
    inside = (slice(EDGE, -EDGE), slice(EDGE, -EDGE))
    object_, probe = checked(found["object"][inside], "object"), checked(found["probe"], "probe")
    return Found(
        np.ascontiguousarray(object_),
        frame.origin,
        covered(frame, probe),
        probe,
        amplitude_error(request, object_, probe),
        (),
        seconds,
        cpu,
        {epoch: kept[inside] for epoch, kept in zip(sorted(request.keep), found["kept"], strict=True)},
        {"engine": "ptychi", "n": n} | json.loads(str(found["words"])),
    )


def _epochs(
    argv: list[str], said: Path, threads: int, on_epoch: Callable[[int, float | None], None] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    seconds: list[float] = []
    cpu: list[float] = []
    with said.open("w") as errors:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment(threads)
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                row = _row(line)
                if row is not None:
                    seconds.append(float(row["seconds"]))
                    cpu.append(float(row["cpu"]))
                    if on_epoch is not None:
                        on_epoch(int(row["epoch"]), None)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code:
        tail = " | ".join(said.read_text(errors="replace").strip().splitlines()[-3:])
        raise JobFailed(f"ptychi ended with {code}: {tail}", hint="run it with engine=lean, or repair its environment")
    return tuple(seconds), tuple(cpu)


def _row(line: str) -> dict[str, Any] | None:
    """An epoch's line, among whatever a library prints."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"epoch", "seconds", "cpu"} <= row.keys() else None


def _environment(threads: int) -> dict[str, str]:
    taken = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    return kept | {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "Agg"}
