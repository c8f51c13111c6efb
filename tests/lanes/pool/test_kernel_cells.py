"""The real pooled kind in real workers."""

from __future__ import annotations

import json

from core.digests import Digests
from core.kindcode import look_at_kind
from core.spec import JobSpec
from jobs.kernel import Kernel
from tests.lanes.pool.toys import Bench, rows


def test_a_sweep_over_the_kernel(bench: Bench) -> None:
    snapshot = look_at_kind(Kernel(), Digests(None), entry="jobs.kernel:Kernel")
    snapshot.store(bench.home)
    toy = bench.spec(snapshot.ref, "jobs.kernel:Kernel")
    spec = JobSpec.model_validate({**toy, "kind": "kernel"}).model_dump(mode="json")
    assert bench.pool.can(spec) == ""
    grid = [
        {"backend": backend, "batch": 2, "height": 16, "width": 16, "dx": dx, "dtype": dtype}
        for backend in ("numpy", "torch")
        for dx in (0.0, 0.25, 1.5)
        for dtype in ("complex64", "float64")
    ]
    left, found, tries = bench.cells(*grid), [], 0
    while left:
        done = bench.wait(bench.start(spec, left))
        assert done.ends == [], "nothing failed, and nothing was read that was not declared"
        assert done.ok, "each batch does at least one cell"
        found += rows(done, "kernel")
        left = tuple(c for c in left if c.job in done.back)
        tries += 1
    assert tries < len(grid), "only the first torch cell waits for torch"
    told = [{"dx": 0.5, "dtype": "complex64", **json.loads(r["settings"])} for r in found]
    assert [(r["backend"], t["dx"], t["dtype"]) for r, t in zip(found, told, strict=True)] == [
        (g["backend"], g["dx"], g["dtype"]) for g in grid
    ]
    assert {r["verdict"] for r in found} == {"pass"}
    assert json.loads(bench.cells(grid[0])[0].params) == grid[0]
