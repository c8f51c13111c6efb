"""Why an input is not there: the words of the job that should have made it, as the lane was told them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.kind import Context


def why_absent(ctx: Context, name: str) -> str:
    """How the maker of the input ended, e.g. "dose/pinn_... failed: the loss of step 7 is nan"; empty: nobody said."""
    for item in ctx.raw.get("absent") or ():
        if item.get("name") == name:
            return str((item.get("made") or {}).get("why") or "")
    return ""
