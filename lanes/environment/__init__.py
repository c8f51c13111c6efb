"""A lane's Python environment: made from a lock, of wheels that are sent over or that the lane gets from its index.

answer = provision(access, {"lock": None, "wheels": None, "plan": False})

What is where: `target` says what an interpreter of a lane takes, `lock` and `ours` which versions belong into it,
`wheels` and `rebuild` where their wheels come from, `making` has it all done. On the lane itself: lanes/agent/envs.py.
"""

from __future__ import annotations

from typing import Any


def provision(access: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Make the environment of a lane, or with `plan` say what would be sent (see `making.provision`)."""
    from lanes.environment.making import provision as work

    return work(access, data)
