"""The climb: rung after rung, each told to the controller as soon as it is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.rungs import STEPS
from core.states import Rung
from lanes.admission import device, environment, jobs, link, outlives, transfer
from lanes.admission.jobs import Ended
from lanes.admission.look import LookFailed, look
from lanes.admission.words import (
    LINK,
    Access,
    Place,
    RungResult,
    Tools,
    attainable,
    needed,
    refusal,
    title,
)
from lanes.transport import LinkDown, LinkRefused, RemoteError


class Ladder:
    """One climb of one lane."""

    def __init__(self, access: Access, tools: Tools) -> None:
        self.access = access
        self.tools = tools
        self.results: dict[Place, RungResult] = {}
        self.hello: dict[str, Any] = {}
        self.machine: dict[str, Any] = {}
        self._unfinished: set[int] = set()

    # What can be climbed without a job.

    def ground(self) -> bool:
        """Connect and look. The link's rungs stand on one another; what is seen through it is all told at once."""
        found, self.hello = link.climb(self.access, self.tools)
        for rung in LINK:
            if rung in found:
                self._tell((rung, ""), found[rung])
        if not self.hello or not all(r.ok for r in found.values()):
            return False
        self._tell((Rung.ENVIRONMENT, ""), self._guarded(self._environment))
        self._tell((Rung.DEVICE, ""), self._guarded(self._device))
        self._tell((Rung.DISK, ""), self._guarded(self._disk))
        return self.first_failure is None

    def _environment(self) -> RungResult:
        return environment.climb(self.access, self.tools, self.hello)

    def _device(self) -> RungResult:
        self.machine = look(self.access, self.tools, "machine")
        return device.device(self.access.config, self.machine, wall=self.tools.wall())

    def _disk(self) -> RungResult:
        return device.disk(self.access.config, look(self.access, self.tools, "disk"))

    # The whole ladder.

    def climb(self, roles: Sequence[str], ids: Mapping[str, int], data: Mapping[str, Any]) -> None:
        """Every rung that `roles` need, until none of them can be reached any more."""
        self._unfinished = set(ids.values())
        if not self.ground():
            return
        wanted = needed(roles)
        self._tell((Rung.TRANSFER, ""), self._guarded(lambda: transfer.climb(self.access, self.tools, ids["smoke"])))
        if not attainable(roles, self._failed):
            return
        self.access.say("admitting", True)
        try:
            for name, place in STEPS.items():
                if place not in wanted or not attainable(roles, self._failed):
                    continue
                self._tell(place, self._guarded(lambda n=name: self._step(n, ids, data)))  # type: ignore[misc]
            if attainable(roles, self._failed):
                self._tell((Rung.RETURNS, ""), self._guarded(lambda: self._returns(ids, data)))
        finally:
            self.access.say("admitting", False)

    def _step(self, name: str, ids: Mapping[str, int], data: Mapping[str, Any]) -> RungResult:
        if name not in ids:
            return RungResult(False, "no job was submitted for it", f"lab lane admit {self.access.name}")
        if name == "outlives":
            pace = float(data.get("pace_s") or 1.0)
            return outlives.outlives(self.access, self.tools, ids[name], pace_s=pace)
        ended = self._wait(ids[name])
        if not isinstance(ended, Ended):
            return ended
        hostname = str(self.hello.get("hostname") or "")
        if name == "parity":
            return jobs.parity(self.access, ended, hostname)
        if name == "cells":
            return jobs.cells(self.access, ended)
        what = f"the {title(STEPS[name])}"
        return jobs.smoke(self.access, ended, what=what, checkpoint=name == "train", hostname=hostname)

    def _returns(self, ids: Mapping[str, int], data: Mapping[str, Any]) -> RungResult:
        ended = self._wait(ids["outlives"])
        if not isinstance(ended, Ended):
            return ended
        asked = data.get("echo") or {}
        if not asked:
            return outlives.returns(self.access, ended, None, "")
        return outlives.returns(
            self.access, ended, echo(str(asked["nonce"]), int(asked["kib"]) << 10), str(asked["name"])
        )

    def _wait(self, job_id: int) -> Ended | RungResult:
        ended = jobs.wait(self.access, self.tools, job_id)
        if isinstance(ended, Ended):
            self._unfinished.discard(job_id)
        return ended

    def _guarded(self, work: Callable[[], RungResult]) -> RungResult:
        """A rung that cannot be climbed because the lane goes away is a rung that does not hold."""
        again = f"then: lab lane probe {self.access.name}"
        try:
            return work()
        except LookFailed as error:
            return RungResult(False, str(error), again)
        except LinkDown as error:
            return RungResult(False, f"the connection went: {error}", again)
        except LinkRefused as error:
            return RungResult(False, error.message, error.hint, {"cause": error.cause})
        except RemoteError as error:
            return RungResult(False, f"the agent there failed: {error}", "report this: it is a bug of lab")

    # What comes of it.

    def give_up(self, ids: Mapping[str, int]) -> None:
        """Cancel the jobs that nobody waits for any more."""
        bad = self.first_failure
        left = sorted(self._unfinished)
        if left:
            why = f"{title(bad[0])} did not hold" if bad else "the climb ended"
            self.access.say("cancel", [left, f"{self.access.name} is not admitted: {why}"])

    def verdict(self, roles: Sequence[str]) -> dict[str, Any]:
        """Grant what was earned, take back what was not, and say so."""
        told: dict[str, dict[str, Any]] = {}
        unreachable = (Rung.REACHABLE, "") in self._failed
        for role in roles:
            why = refusal(role, self.results)
            told[role] = {"ok": not why, "reason": why}
            if not (why and unreachable):  # that a lane is out of reach takes nothing from it
                self.access.say("admitted", {"role": role, "ok": not why, "reason": why})
        good = [r for r in roles if told[r]["ok"]]
        bad = [r for r in roles if not told[r]["ok"]]
        first = self.first_failure
        name = self.access.name
        if not bad:
            return self.answer(True, f"{name} is admitted for {', '.join(good)}", "", roles=told)
        reason, hint = (f"{title(first[0])}: {first[1].message}", first[1].hint) if first else ("", "")
        text = f"{name} is not admitted for {', '.join(bad)}: {reason}"
        if good:
            text = f"{name} is admitted for {', '.join(good)}, and not for {', '.join(bad)}: {reason}"
        return self.answer(False, text, hint, roles=told)

    def answer(self, ok: bool, message: str, hint: str, **more: Any) -> dict[str, Any]:
        packages = self.results.get((Rung.ENVIRONMENT, ""))
        seen = packages.evidence if packages is not None else {}
        data = {
            "rungs": [rung_data(place, result) for place, result in self.results.items()],
            "machine": self.machine or self.hello,
            "python": seen.get("python"),
            "versions": seen.get("versions") or {},
            **more,
        }
        return {"ok": ok, "message": message, "hint": hint, "data": data}

    @property
    def first_failure(self) -> tuple[Place, RungResult] | None:
        return next(((place, r) for place, r in self.results.items() if not r.ok), None)

    @property
    def _failed(self) -> list[Place]:
        return [place for place, r in self.results.items() if not r.ok]

    def _tell(self, place: Place, result: RungResult) -> None:
        self.results[place] = result
        self.access.say("rung", rung_data(place, result))


def rung_data(place: Place, result: RungResult) -> dict[str, Any]:
    """A rung as the journal keeps it."""
    return {
        "role": place[1],
        "rung": str(place[0]),
        "ok": result.ok,
        "message": result.message,
        "hint": result.hint,
        "evidence": dict(result.evidence),
    }


def echo(nonce: str, size: int) -> bytes:
    """The bytes that the background attempt must bring back: what kind `smoke` makes of `nonce`, made here again."""
    out = bytearray()
    count = 0
    while len(out) < size:
        out += hashlib.sha256(f"{nonce}:{count}".encode()).digest()
        count += 1
    return bytes(out[:size])
