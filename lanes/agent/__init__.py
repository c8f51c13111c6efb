"""The lane agent and the supervisor of one attempt: what a lane needs, and nothing more.

Standard library only, Python 3.9. These modules and a few of `core` are all that is carried to a lane; they run under
`python -I -S`, where no package of anybody's can be imported by accident.
"""

from __future__ import annotations

import os
from typing import Tuple

AGENT_VERSION = 1

# What must lie on a lane for the agent and its runners to work, relative to the code root.
SHIPPED: Tuple[str, ...] = (
    *(f"core/{name}.py" for name in ("__init__", "fsio", "rundir", "declared", "marks", "opens", "audit")),
    "lanes/__init__.py",
    "lanes/agent",
    *(f"lanes/pool/{name}.py" for name in ("__init__", "words", "post")),
)

FAILPOINTS = "LAB_FAILPOINTS"


def failpoint(name: str) -> None:
    """A place at which a test can have this process killed; nothing unless the environment asks for it."""
    if FAILPOINTS in os.environ:
        from core.failpoint import failpoint as hit

        hit(name)
