"""What a lane reaches its agent through. All transports speak the agent's own methods: call(name, *arguments)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol


class LinkDown(Exception):
    """The lane cannot be reached just now. The transport goes on trying by itself; whether a call that was under way
    had its effect is not known (every method of the agent may be repeated).

    Args:
        message: one sentence.
    """

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else "the link is down"

    def __str__(self) -> str:
        return self.message


class Unreachable(LinkDown):
    """The network said so (no route, refused, a name that nobody knows): waiting shows nothing more."""


class CallTimeout(LinkDown):
    """The link is up, and the answer did not come within the call's own limit."""


class LinkRefused(Exception):
    """The lane cannot be reached until a person does something. Tried again at a slow pace, or when knocked at.

    Args:
        rung: the first rung of admission that does not hold: "trusted", "authenticated", "python", "agent", "owned".
        cause: one word for programs ("host-key-changed", "old-python", ...).
        message: one sentence: what was found. Never holds a secret.
        hint: what to do.
    """

    # All arguments are kept in `args`: an exception crosses processes by pickle, which calls the class with them.
    def __init__(self, rung: str, cause: str, message: str, hint: str = "") -> None:
        super().__init__(rung, cause, message, hint)
        self.rung = rung
        self.cause = cause
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, str]:
        return {"rung": self.rung, "cause": self.cause, "message": self.message, "hint": self.hint}


class RemoteError(Exception):
    """A method of the agent raised on the lane: its class's name and its text."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class Transport(Protocol):
    """The way to one lane. Safe to use from several threads at once."""

    def call(self, method: str, *args: Any, timeout_s: float | None = None, bulk: bool = False, **named: Any) -> Any:
        """Call `method` of the lane's agent and return its (JSON-like, or bytes) answer.

        Args:
            timeout_s: give up after this long; None: when the answer comes or the link goes.
            bulk: large and patient (an upload): anything that is not goes before it.

        Raises:
            LinkDown: not reachable now. CallTimeout (one of those): no answer within `timeout_s`.
            LinkRefused: not reachable until a person acts.
            RemoteError: the method itself raised.
        """
        ...

    def link(self) -> dict[str, Any]:
        """State of the link, without touching it:

        {"up": bool, "age_s": seconds since something was heard or None, "error": text, "tries": since it was last up,
         "refused": None | {"rung", "cause", "message", "hint"}, "address": "user@host:port"}, and of a lane with a host
        key its "fingerprint"
        """
        ...

    def knock(self) -> None:
        """Try to connect now, whatever the pace of retries says. Returns at once."""
        ...

    def drop(self, for_s: float = 0.0) -> None:
        """Close the connection now. A later call connects again, but none within `for_s` (or until `knock`)."""
        ...

    def close(self) -> None:
        """Close the connection for good."""
        ...


class LocalTransport:
    """This machine: the agent lives inside the lane actor, there is no link that could go."""

    def __init__(self, root: Path, *, home_hash: str, socket_path: Path) -> None:
        from lanes.agent.agent import Agent

        self._agent = Agent(root, home_hash=home_hash, socket_path=socket_path)

    def call(self, method: str, *args: Any, timeout_s: float | None = None, bulk: bool = False, **named: Any) -> Any:
        """As of any transport, but the agent's own errors are raised as they are, and nothing is cut short."""
        if method.startswith("_"):
            raise AttributeError(method)
        return getattr(self._agent, method)(*args, **named)

    def link(self) -> dict[str, Any]:
        return {"up": True, "age_s": 0.0, "error": "", "refused": None, "address": "local", "tries": 0}

    def knock(self) -> None:
        """Nothing to knock at."""

    def drop(self, for_s: float = 0.0) -> None:
        """There is no connection."""

    def close(self) -> None:
        self._agent.close()
