"""The Ray actor in which pooled cells run. Everything it does comes from the snapshot; it only makes room for it.

Ray starts it and ends it; batches and answers go over a socket, which takes a tenth of the time of a call of Ray's.

Ray starts it with the controller's own code on the path, and with the controller's working folder in front. Before
anything of the kind is imported, all of that is put away, and the environment is made what an attempt's would be:
libraries read the number of their threads once, when they are loaded.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

# What stays of the environment in which Ray starts workers. The marker of our session is among Ray's.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "USER", "LOGNAME", "SHELL", "TZ", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("RAY_", "LAB_FAILPOINTS")


class PoolWorker:
    """A warm process for the cells of one crew.

    Args:
        setup: folder, kind_path, entry, env (the whole of it but Ray's), protocol, socket, token,
            spare (where run directories are made ahead).
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._loop: Any = None
        self._refused = ""
        try:
            self._loop = _load(setup)
        except BaseException as error:
            traceback.print_exc()
            last = traceback.format_exception_only(error)[-1].strip()
            said = str(error) if hasattr(error, "hint") else last
            self._refused = f"the kind {setup['entry']} cannot be loaded in a worker: {said}"

    def serve(self) -> None:
        """Run batches until the pool is gone."""
        # Imported now: what was there before the kind was loaded is not the snapshot's.
        wire = importlib.import_module("lanes.pool.wire")
        caller = wire.Caller(self._setup["socket"], self._setup["token"])
        if self._loop is None:
            caller.send({"refused": self._refused})
            caller.receive()  # until it is heard
            return
        self._loop.prepare()
        while (order := caller.receive()) is not None:
            caller.send(self._loop.run(order))
            self._loop.prepare()


def _load(setup: Mapping[str, Any]) -> Any:
    set_environment(setup["env"])
    kind_path = str(setup["kind_path"])
    set_path(kind_path)
    forget(os.listdir(kind_path))
    words = importlib.import_module("lanes.pool.words")
    # Looked at before anything else of it is used: what another version wants to be told we do not know.
    if setup["protocol"] != getattr(words, "PROTOCOL", None):
        raise RuntimeError(
            f"the snapshot is of another version of lab ({getattr(words, 'PROTOCOL', None)}, not {setup['protocol']})"
        )
    loop = importlib.import_module("lanes.pool.loop")
    for module in (words, loop):
        place = os.path.realpath(str(module.__file__))
        if not place.startswith(os.path.realpath(kind_path) + os.sep):
            raise RuntimeError(f"{module.__name__} comes from {place} and not from the snapshot {kind_path}")
    page = words.Words(os.path.join(setup["folder"], "words"))
    procs = importlib.import_module("lanes.agent.procs")
    page.view[words.TICKS] = procs.start_ticks(os.getpid()) or 0
    page.view[words.PID] = os.getpid()
    os.umask(0o022)
    # Whoever looks at the stack (inspect, warnings) reads the sources in it, and this one is at its foot.
    return loop.Loop({**setup, "extra": [*setup["extra"], os.path.abspath(__file__)]}, page)


def set_environment(env: Mapping[str, str]) -> None:
    """Make the environment `env` and what Ray needs; nothing else of the controller's is passed on."""
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
    os.environ.update(env)


def set_path(kind_path: str) -> None:
    """The snapshot first, then what this interpreter has by itself: no working folder, no script's, no PYTHONPATH."""
    base = os.path.join(sys.base_prefix, "lib")
    start = next((i for i, p in enumerate(sys.path) if p.startswith(base)), 0)
    # Ray's own copies of small packages it may still import late: last, where they hide nothing.
    rays = [p for p in sys.path[:start] if p.endswith(os.path.join("ray", "thirdparty_files"))]
    sys.path[:] = [kind_path, *sys.path[start:], *rays]


def forget(names: list[str]) -> None:
    """Unload every package that the snapshot holds, so that it is imported from there."""
    tops = {name.removesuffix(".py") for name in names} | {"core", "kernels", "jobs", "lanes", "lab"}
    for name in [m for m in sys.modules if m.split(".", 1)[0] in tops]:
        del sys.modules[name]
    importlib.invalidate_caches()
