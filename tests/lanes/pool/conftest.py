"""One Ray session for all tests of the pool, as small as the controller's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.home import Home
from core.spec import CodeRef
from tests.lanes.pool.toys import Bench

_RAY = {
    "RAY_enable_worker_prestart": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@pytest.fixture(scope="package")
def bench() -> Iterator[Bench]:
    import ray

    patch = pytest.MonkeyPatch()
    folder = Path(tempfile.mkdtemp(prefix="lab-pool-"))
    home = Home(folder / "home")
    home.create()
    home.create_runtime()
    for name, value in {**_RAY, "A_SECRET_OF_THE_CONTROLLER": "yes"}.items():
        patch.setenv(name, value)
    ray.init(
        num_cpus=1,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=80 << 20,
        _temp_dir=str(home.runtime / "ray"),
        log_to_driver=False,
        logging_level="critical",
        configure_logging=False,
    )
    (folder / "user").mkdir()
    patch.syspath_prepend(str(folder / "user"))
    found = Bench(home, folder / "user")
    try:
        yield found
    finally:
        found.pool.close()
        left = os.listdir(home.runtime / "pool") if (home.runtime / "pool").exists() else []
        ray.shutdown()
        patch.undo()
        shutil.rmtree(home.runtime, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        assert left == [], "a worker's folder was left"


@pytest.fixture(scope="package")
def toy(bench: Bench) -> CodeRef:
    return bench.snapshot()
