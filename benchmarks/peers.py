"""The peers of `benchmarks.dispatch`, each in a process of its own that stays warm and measures when it is told to.

python -m benchmarks.peers NAME     reads a number of cells per line, answers with the seconds they took

Every peer does the same: `cell(i)` for so many i, all results at hand in the end and checked. None of them writes
anything down; that is what they are compared with.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Run = Callable[[int], float]

SLOTS = 2
BATCH = 512


def cell(n: int) -> int:
    """What every cell computes: next to nothing, but of its parameter."""
    return 3 * n + 1


def check(results: list[Any], cells: int) -> None:
    assert len(results) == cells
    assert sum(results) == sum(3 * n + 1 for n in range(cells))


@contextlib.contextmanager
def ray_tasks() -> Iterator[Run]:
    """Bare Ray tasks, one a cell."""
    with _ray() as ray:
        task = ray.remote(num_cpus=1)(cell)

        def run(cells: int) -> float:
            began = time.perf_counter()
            results = ray.get([task.remote(n) for n in range(cells)])
            took = time.perf_counter() - began
            check(results, cells)
            return took

        run(200)
        yield run


@contextlib.contextmanager
def ray_call() -> Iterator[Run]:
    """One call of a warm Ray actor after the other; seconds for all of them."""
    with _ray() as ray:

        class Actor:
            def cell(self, n: int) -> int:
                return cell(n)

        actor = ray.remote(num_cpus=1)(Actor).remote()

        def run(cells: int) -> float:
            began = time.perf_counter()
            results = [ray.get(actor.cell.remote(n)) for n in range(cells)]
            took = time.perf_counter() - began
            check(results, cells)
            return took

        run(50)
        yield run


@contextlib.contextmanager
def ray_one_task() -> Iterator[Run]:
    """One bare Ray task after the other, on a worker that is warm; seconds for all of them."""
    with _ray() as ray:
        task = ray.remote(num_cpus=1)(cell)

        def run(cells: int) -> float:
            began = time.perf_counter()
            results = [ray.get(task.remote(n)) for n in range(cells)]
            took = time.perf_counter() - began
            check(results, cells)
            return took

        run(50)
        yield run


@contextlib.contextmanager
def ray_batched() -> Iterator[Run]:
    """Ray tasks of many cells each, as one would write it by hand for speed."""
    with _ray() as ray:

        def many(first: int, last: int) -> list[int]:
            return [cell(n) for n in range(first, last)]

        task = ray.remote(num_cpus=1)(many)

        def run(cells: int) -> float:
            began = time.perf_counter()
            parts = ray.get([task.remote(n, min(n + BATCH, cells)) for n in range(0, cells, BATCH)])
            results = [x for part in parts for x in part]
            took = time.perf_counter() - began
            check(results, cells)
            return took

        run(2 * BATCH)
        yield run


@contextlib.contextmanager
def dask() -> Iterator[Run]:
    """dask.distributed, one task a cell."""
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {"n_workers": SLOTS, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:

        def run(cells: int) -> float:
            began = time.perf_counter()
            results = client.gather(client.map(cell, range(cells), pure=False))
            took = time.perf_counter() - began
            check(results, cells)
            return took

        run(200)
        yield run


@contextlib.contextmanager
def hyperqueue() -> Iterator[Run]:
    """HyperQueue, one task a cell: each is the process `true`, for HyperQueue starts programs."""
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=SLOTS))
        client = cluster.client()

        def run(cells: int) -> float:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                job = Job(default_workdir=Path(folder))
                for _ in range(cells):
                    job.program(["true"], stdout=None, stderr=None)
                client.wait_for_jobs([client.submit(job)])
                return time.perf_counter() - began

        run(20)
        yield run


@contextlib.contextmanager
def _ray() -> Iterator[Any]:
    import ray

    # A folder of its own, and not the one of another Ray on this machine.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=SLOTS,
            include_dashboard=False,
            object_store_memory=200 << 20,
            _temp_dir=folder,
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
        try:
            yield ray
        finally:
            ray.shutdown()


PEERS = {
    "bare Ray tasks": ray_tasks,
    "Ray tasks of 512 cells": ray_batched,
    "Dask": dask,
    "HyperQueue (a process each)": hyperqueue,
    "a bare Ray task": ray_one_task,
    "a bare Ray actor call": ray_call,
}


class Peer:
    """A peer's process, seen from the benchmark. It is warm when this returns."""

    def __init__(self, name: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "RAY_DEDUP_LOGS": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.peers", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self._answer("ready")

    def run(self, cells: int) -> float:
        """Seconds that the peer takes for so many cells."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{cells}\n")
        self._process.stdin.flush()
        return float(self._answer("took"))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(f"{word} "):
                return line.split()[1]
        raise RuntimeError(f"the peer ended with {self._process.wait()}")


def main(name: str) -> None:
    with PEERS[name]() as run:
        print("ready now", flush=True)
        for line in sys.stdin:
            print(f"took {run(int(line))}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
