"""What Ray runs on a joined lane: a process for one warm worker, and nothing of ours in it.

The lane need not have lab installed, so this class travels by value: it may refer to the standard library only. The
code that it runs is the kind's snapshot, which lies on the lane; batches come and go by the lane's own files.
"""

from __future__ import annotations


class FarWorker:
    """One warm worker whose process Ray owns."""

    def serve(self, folder: str) -> None:
        """Be the worker in `folder` (see lanes.pool.post) until there is nothing more to do for it."""
        import importlib
        import json
        import os
        import sys
        from pathlib import Path

        with open(os.path.join(folder, "setup.json"), "rb") as f:
            setup = json.load(f)
        # Nothing that this machine's Ray was started with reaches the cells.
        for name in list(os.environ):
            if not name.startswith(("RAY_", "LAB_FAILPOINTS")):
                del os.environ[name]
        os.environ.update(setup["env"])
        kind_path = str(setup["kind_path"])
        base = os.path.join(sys.base_prefix, "lib")
        start = next((i for i, p in enumerate(sys.path) if p.startswith(base)), 0)
        # Ray's own copies of small packages it may still import late: last, where they hide nothing.
        rays = [p for p in sys.path[:start] if p.endswith(os.path.join("ray", "thirdparty_files"))]
        sys.path[:] = [kind_path, *sys.path[start:], *rays]
        tops = {n[:-3] if n.endswith(".py") else n for n in os.listdir(kind_path)}
        tops |= {"core", "kernels", "jobs", "lanes", "lab"}
        for name in [m for m in sys.modules if m.split(".", 1)[0] in tops]:
            del sys.modules[name]
        importlib.invalidate_caches()
        importlib.import_module("lanes.pool.afar").serve(Path(folder))
