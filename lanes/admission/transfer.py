"""The rung of the transfer: what the head sends arrives, and hashes equal over there.

A file of random bytes, so that no answer could be there already, and the very code that the ladder's jobs run from.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from typing import Any

from core.errors import LabError
from core.journal import query
from lanes.admission.jobs import reading
from lanes.admission.words import Access, RungResult, Tools
from lanes.carrier.errors import NotSendable
from lanes.transport import LinkDown, LinkRefused, RemoteError

NONCE_BYTES = 600 << 10  # more than two chunks
CHUNK = 256 << 10
_TRIES = 5  # what is cut, or arrives damaged, is sent again so often
_KIND = "inputs"


class _Different(Exception):
    """What arrived is not what was sent. args: one sentence."""


def climb(access: Access, tools: Tools, job_id: int) -> RungResult:
    """Send both, have both hashed on the lane.

    Args:
        job_id: the job whose code is sent.
    """
    evidence: dict[str, Any] = {}
    again = f"lab lane admit {access.name}"
    try:
        begun = tools.now()
        digest = _nonce(access, tools, os.urandom(NONCE_BYTES))
        evidence |= {"nonce": digest, "bytes": NONCE_BYTES, "seconds": round(tools.now() - begun, 3)}
        evidence |= _code(access, tools, job_id)
    except _Different as error:
        return RungResult(False, str(error), f"distrust that disk or network; then: {again}", evidence)
    except RemoteError as error:
        if error.type == "StoreFull":
            hint = f"free some space there, or name another `root:` for {access.name}; then: {again}"
            return RungResult(False, f"the disk of {access.name} is full: {error.message}", hint, evidence)
        return RungResult(False, f"{access.name} cannot keep what is sent: {error.message}", again, evidence)
    except (LinkDown, LinkRefused) as error:
        return RungResult(False, f"the connection went during the transfer: {error}", again, evidence)
    except NotSendable as error:
        full = error.cause == "disk-full"
        hint = f"free some space there, or name another `root:` for {access.name}" if full else "see what changed here"
        return RungResult(False, f"the code cannot be sent: {error.reason}", f"{hint}; then: {again}", evidence)
    except (OSError, LabError) as error:
        return RungResult(False, f"the code cannot be sent: {error}", again, evidence)
    files = f", code {str(evidence['code'])[:12]} too"
    return RungResult(True, f"{NONCE_BYTES >> 10} KiB arrived and hash equal{files}", evidence=evidence)


def _nonce(access: Access, tools: Tools, data: bytes) -> str:
    """Send `data` as an input, have it hashed there from the disk, and remove it. Returns its digest."""
    name = hashlib.sha256(data).hexdigest()
    try:
        for _ in range(_TRIES):
            if _sent(access, tools, name, data):
                break
        else:
            raise _Different(f"{len(data):,} bytes were sent {_TRIES} times and did not arrive whole")
        _verify(access, tools, _KIND, name, "a file of random bytes")
    finally:
        try:
            access.call("drop", _KIND, name, timeout_s=60)
        except (LinkDown, LinkRefused, RemoteError):
            pass  # the store forgets what nobody uses by itself
    return name


def _sent(access: Access, tools: Tools, name: str, data: bytes) -> bool:
    """One go at sending; False: begin again."""
    try:
        state = _repeat(tools, lambda: access.call("begin", _KIND, name, len(data), name, False, timeout_s=60))
        while state["state"] == "ready" and int(state["offset"]) < len(data):
            at = int(state["offset"])
            piece = data[at : at + CHUNK]
            state = access.call("put_chunk", _KIND, name, at, piece, zlib.crc32(piece), timeout_s=120)
            if state["state"] == "ready" and int(state["offset"]) <= at:
                return False  # it arrived damaged
        if state["state"] == "look":
            return False
        state = _repeat(tools, lambda: access.call("finish", _KIND, name, timeout_s=60))
    except LinkDown:
        tools.sleep(tools.poll_s)
        return False
    return bool(state["state"] == "there")


def _code(access: Access, tools: Tools, job_id: int) -> dict[str, Any]:
    with reading(access.home) as conn:
        spec = query.spec_of(conn, query.job(conn, job_id).spec)
    store = str(spec["kind_code"]["store"])
    access.carrier("send_code", [store])
    _verify(access, tools, "code", store, "the code")
    return {"code": store}


def _verify(access: Access, tools: Tools, kind: str, name: str, what: str) -> None:
    said = _repeat(tools, lambda: access.call("verify", kind, name, timeout_s=60))
    if not said["equal"]:
        raise _Different(f"{what} arrived on {access.name} and hashes otherwise there: {said['why']}")


def _repeat(tools: Tools, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A call that answers "working" while what it does takes its time."""
    end = tools.now() + tools.look_s
    while True:
        said = call()
        if said["state"] != "working":
            return said
        if tools.now() > end:
            raise LinkDown(f"the lane's store is still at work after {tools.look_s:g} s")
        tools.sleep(tools.poll_s)
