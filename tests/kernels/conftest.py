"""What TensorFlow makes of the cases of the translation kernel: one process for all of them, for each costs seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tensorflow_answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By `MODE.CASE`, as tensorflow_side.py names them; TensorFlow and torch never meet."""
    from tests.kernels import test_translation, test_translation_groups

    folder = tmp_path_factory.mktemp("tensorflow")
    np.savez(folder / "in.npz", **test_translation.CASES, **test_translation_groups.CASES)
    script = Path(__file__).with_name("tensorflow_side.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-P", str(script), folder / "in.npz", folder / "out.npz"], env=env, check=True)
    with np.load(folder / "out.npz") as data:
        return {name: data[name] for name in data.files}
