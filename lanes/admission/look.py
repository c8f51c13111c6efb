"""Close looks at a lane through its agent: begun there, asked for until they are done."""

from __future__ import annotations

from typing import Any

from lanes.admission.words import Access, Tools
from lanes.transport import LinkDown


class LookFailed(Exception):
    """The lane could not be looked at. args: one sentence."""


def look(access: Access, tools: Tools, what: str, **asked: Any) -> dict[str, Any]:
    """The answer of `Probes.begin_look(what, ...)` on the lane.

    Raises:
        LookFailed: it failed there, the connection went for too long, or it took too long.
        RemoteError: the agent there knows no such look.
    """
    end = tools.now() + tools.look_s
    name: str | None = None
    while True:
        try:
            if name is None:
                name = str(access.call("begin_look", what, timeout_s=60, **asked))
            said = access.call("look", name, timeout_s=60)
            if not said["known"]:
                name = None  # the agent there is another one by now
            elif said["done"]:
                if said["found"] is None:
                    raise LookFailed(f"looking at its {what} failed ({said['error']})")
                found: dict[str, Any] = said["found"]
                return found
        except LinkDown as error:
            if tools.now() > end:
                raise LookFailed(f"the connection went while its {what} was looked at: {error}") from error
        if tools.now() > end:
            raise LookFailed(f"looking at its {what} took more than {tools.look_s:g} s")
        tools.sleep(tools.poll_s)
