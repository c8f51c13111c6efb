"""`lab`: a job runner for small research labs whose numbers can be believed.

from lab import Lab

lab = Lab()
job = lab.submit("parity", sizes=[1, 4])
job.wait().results()
sweep = lab.sweep("parity", grid={"seed": range(100)})
sweep.wait().results()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.api import Job, Jobs, Lab, Sweep

__all__ = ["Job", "Jobs", "Lab", "Sweep"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the command line imports this package on every start.
    if name in __all__:
        from lab import api

        return getattr(api, name)
    raise AttributeError(f"module 'lab' has no attribute {name!r}")
