"""Data sets that lie on a lane already: named by their path there, hashed there, never sent."""

from __future__ import annotations

from typing import Any, Protocol

from lanes.transport import RemoteError


class Access(Protocol):
    """What a handler of an ask is given (lanes.asks)."""

    @property
    def name(self) -> str: ...

    def call(self, method: str, *args: Any, timeout_s: float = 60, **named: Any) -> Any: ...


def data(access: Access, asked: dict[str, Any]) -> dict[str, Any]:
    """Hash `asked["path"]` on the lane.

    Returns:
        an answer whose data is {"path", "sha256", "size", "tree", "signature"}; the digest is the one that the same
        bytes would have on the head.
    """
    path = str(asked.get("path") or "")
    try:
        while True:
            found = access.call("hash_lane_path", path)
            if found["state"] == "done":
                break
    except RemoteError as error:
        missing = error.type in ("FileNotFoundError", "NotADirectoryError")
        what = "is not there" if missing else f"cannot be hashed: {error.message}"
        hint = "name an absolute path on the lane of a file or folder that its user may read"
        return {"ok": False, "message": f"{path} on lane {access.name} {what}", "hint": hint, "data": {}}
    names = ("path", "sha256", "size", "tree", "signature")
    message = f"{path} on lane {access.name}: {int(found['size']):,} bytes, {str(found['sha256'])[:12]}"
    return {"ok": True, "message": message, "hint": "", "data": {name: found[name] for name in names}}
