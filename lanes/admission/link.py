"""The first rungs: does the lane answer, is it the one that we know, does it let us in, does an agent run there.

One connection tells all four. The transport says at which of them it was refused; those below it held.
"""

from __future__ import annotations

from typing import Any

from core.states import Rung
from lanes.admission.words import LINK, Access, RungResult, Tools
from lanes.transport import CallTimeout, LinkDown, LinkRefused, RemoteError, Unreachable

# Words of the transport for what belongs to a rung of the ladder.
_RUNGS = {"agent": Rung.PYTHON, "owned": Rung.PYTHON, **{str(rung): rung for rung in LINK}}
_STALE_S = 10.0  # after a knock the old refusal may be told once more before the new try ends
_SURE = 2  # the network has said so often that nobody is there: believed
LEAST_PYTHON = (3, 9)


def climb(access: Access, tools: Tools) -> tuple[dict[Rung, RungResult], dict[str, Any]]:
    """Connect, and say how far it went. Returns the rungs, and the agent's hello (empty where there was none)."""
    try:
        hello = _greet(access, tools)
    except LinkRefused as refused:
        return _refused(access, refused), {}
    except CallTimeout as error:
        found = _held(access, below=Rung.PYTHON)
        found[Rung.PYTHON] = RungResult(
            False, f"the agent does not answer: {error}", _again(access, "look at the machine's load"), _link(access)
        )
        return found, {}
    except LinkDown as error:
        hint = _again(
            access, f"is it switched on, and does `ssh {access.config.host or access.name}` reach it from here?"
        )
        return {Rung.REACHABLE: RungResult(False, f"it cannot be reached: {error}", hint, _link(access))}, {}
    except RemoteError as error:
        found = _held(access, below=Rung.PYTHON)
        found[Rung.PYTHON] = RungResult(
            False, f"the agent fails on this machine ({error})", "report this: it is a bug of lab", _link(access)
        )
        return found, {}
    found = _held(access, below=Rung.PYTHON)
    found[Rung.PYTHON] = _python(access, hello)
    return found, hello


def _greet(access: Access, tools: Tools) -> dict[str, Any]:
    """The agent's hello, through a connection that may have to be made first."""
    tries, told = access.link().get("tries"), 0
    begun = tools.now()
    access.knock()
    while True:
        try:
            hello: dict[str, Any] = access.call("hello", timeout_s=60)
            return hello
        except CallTimeout:
            raise
        except LinkRefused:
            # What was refused before the knock says nothing: somebody may have mended it.
            if access.link().get("tries") != tries or tools.now() - begun > _STALE_S:
                raise
        except LinkDown as error:
            now = access.link().get("tries")
            if isinstance(error, Unreachable) and now != tries:
                tries, told = now, told + 1
                if told >= _SURE:
                    raise
                access.knock()
            if tools.now() - begun > tools.reach_s:
                raise
        tools.sleep(tools.poll_s)


def _refused(access: Access, refused: LinkRefused) -> dict[Rung, RungResult]:
    rung = _RUNGS.get(refused.rung, Rung.REACHABLE)
    evidence = {**_link(access), "cause": refused.cause}
    found = _held(access, below=rung)
    message, hint = refused.message, refused.hint
    if refused.cause == "disk-full":
        message = f"the disk of {access.name} is full, so not even the agent starts: {message}"
        hint = hint or f"free some space there, or name another place with `root:` of {access.name} in cluster.yaml"
    found[rung] = RungResult(False, message, hint, evidence)
    return found


def _held(access: Access, *, below: Rung) -> dict[Rung, RungResult]:
    """The rungs of the link below one that was reached: they hold, or it could not have been."""
    said = {
        Rung.REACHABLE: f"{access.link().get('address') or access.config.host or access.name} answers",
        Rung.TRUSTED: "its host key is the one that we know" if access.config.remote else "this machine",
        Rung.AUTHENTICATED: "it lets us in" if access.config.remote else "no login",
    }
    return {rung: RungResult(True, said[rung], evidence=_link(access)) for rung in LINK[: LINK.index(below)]}


def _python(access: Access, hello: dict[str, Any]) -> RungResult:
    names = ("python", "executable", "hostname", "platform", "boot_id", "version", "pid")
    evidence = {name: hello[name] for name in names if name in hello}
    version = tuple(int(w) for w in str(hello.get("python") or "0").split(".")[:2] if w.isdigit())
    if version < LEAST_PYTHON:
        return RungResult(
            False,
            f"Python {hello.get('python')} on {access.name} is too old for the agent",
            f"name one from {'.'.join(map(str, LEAST_PYTHON))} with `python:` in cluster.yaml",
            evidence,
        )
    return RungResult(
        True, f"the agent runs on {hello.get('hostname')} ({hello.get('platform')}, Python {hello.get('python')})",
        evidence=evidence,
    )  # fmt: skip


def _link(access: Access) -> dict[str, Any]:
    link = access.link()
    return {k: link[k] for k in ("address", "tries", "error", "fingerprint") if link.get(k)}


def _again(access: Access, what: str) -> str:
    return f"{what} Then: lab lane probe {access.name}"
