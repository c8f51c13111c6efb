"""Claims of a home: what they stand on is collected here, judged by core.claims, and shown by `lab claim`.

    pinned(home, conn)             jobs whose files retention must leave alone
    evaluate(home, conn, name)     a claim with its evidence and the label that it has now
    sentence(evaluated)            its statement, the label beside every number

Modules are loaded when they are used: `lab status` must not wait for numpy.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Evaluated": "lab.claims.evaluation",
    "evaluate": "lab.claims.evaluation",
    "pinned": "lab.claims.pins",
    "sentence": "lab.claims.render",
}
__all__ = ["Evaluated", "evaluate", "pinned", "sentence"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(name)
