"""Other people's programs that lab leans on, and the lanes: `lab doctor` runs each, it does not look for it.

That a file is there says little: a driver that does not answer, an ssh of another system or a broken git are found by
asking them for their version.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core import cluster
from core.home import Home
from core.states import LaneState

Verdict = Literal["ok", "warn", "fail"]

_TOOL_S = 20.0
_DRIVER = Path("/proc/driver/nvidia/version")
_SILENT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One finding. `hint` says what to do when it is not ok."""

    name: str
    verdict: Verdict
    said: str
    hint: str = ""


@dataclass(frozen=True)
class Ran:
    """How a program answered: `line` is the first of what it printed, or why it could not be asked."""

    ok: bool
    line: str


def run(argv: Sequence[str], *, within_s: float = _TOOL_S) -> Ran:
    """Run a program for what it says of itself. Nothing is raised."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, stdin=subprocess.DEVNULL, timeout=within_s, check=False, text=True,
            errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        return Ran(False, f"{argv[0]} is not there")
    except subprocess.TimeoutExpired:
        return Ran(False, f"{argv[0]} did not answer within {within_s:g} s")
    except OSError as error:
        return Ran(False, f"{argv[0]} cannot be run: {error.strerror}")
    said = [line.strip() for line in (done.stdout, done.stderr) for line in line.splitlines() if line.strip()]
    if done.returncode:
        # The last line of a traceback says what happened.
        last = (
            next((x.strip() for x in reversed(done.stderr.splitlines()) if x.strip()), "") or (said or ["nothing"])[0]
        )
        return Ran(False, f"{Path(argv[0]).name} ended with {done.returncode}: {last}")
    return Ran(True, said[0] if said else "")


def git(_home: Home) -> Check:
    """Snapshots of code ask it which files are tracked."""
    ran = run(["git", "--version"])
    if ran.ok:
        return Check("git", "ok", ran.line)
    return Check("git", "warn", ran.line, "without git a snapshot holds every file of its folder: install git")


def ssh(home: Home) -> Check:
    """Hosts are resolved as it would (`ssh -G`). Only remote lanes need it."""
    remote = [lane.name for lane in cluster.load(home.cluster_file).lanes if lane.remote]
    ran = run(["ssh", "-V"])
    if not ran.ok:
        if not remote:
            return Check("ssh", "ok", f"{ran.line}; no lane needs it")
        return Check("ssh", "fail", f"{ran.line}, and {', '.join(remote)} need it", "install the OpenSSH client")
    resolved = run(["ssh", "-G", "localhost"])
    if not resolved.ok:
        return Check(
            "ssh", "fail" if remote else "warn", resolved.line, "correct ~/.ssh/config: `ssh -G NAME` must work"
        )
    return Check("ssh", "ok", ran.line)


def gpu(_home: Home) -> Check:
    """A driver that is loaded must answer; no GPU is no fault."""
    ran = run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    if ran.ok and ran.line:
        return Check("gpu", "ok", ran.line)
    if shutil.which("nvidia-smi") is None and not _DRIVER.exists():
        return Check("gpu", "ok", "no NVIDIA GPU on this machine")
    return Check("gpu", "fail", ran.line or "nvidia-smi shows no GPU", "see to the driver: `nvidia-smi` must answer")


def installer(_home: Home) -> Check:
    """What environments of lanes are prepared with here."""
    uv = run(["uv", "--version"])
    if uv.ok:
        return Check("installer", "ok", uv.line)
    pip = run([sys.executable, "-m", "pip", "--version"], within_s=60)
    if pip.ok:
        return Check("installer", "ok", pip.line)
    said = f"neither uv nor pip answers ({pip.line})"
    return Check("installer", "warn", said, "`lab lane provision` needs one: install uv")


def lanes(home: Home) -> list[Check]:
    """Each remote lane as the controller last knew it. No lane is waited for."""
    from core.journal import Journal, query
    from core.live import read_lanes
    from lanes.start import controller_alive

    remote = [lane for lane in cluster.load(home.cluster_file).lanes if lane.remote]
    if not remote:
        return []
    known: dict[str, query.Lane] = {}
    admitted: dict[str, frozenset[str]] = {}
    if home.journal.exists():
        with Journal.open(home) as journal:
            known = {lane.name: lane for lane in query.lanes(journal.conn)}
            admitted = query.admitted(journal.conn)
    live = read_lanes(home) if controller_alive(home) else {}
    out = [_trusted_file(home)] if home.known_hosts.exists() else []
    for config in remote:
        lane = known.get(config.name)
        out.append(_lane(config.name, lane, live.get(config.name), admitted.get(config.name, frozenset())))
    return out


def _lane(name: str, lane: Any, live: dict[str, Any] | None, roles: frozenset[str]) -> Check:
    from core.live import silence

    title = f"lane {name}"
    has = f"admitted for {', '.join(sorted(roles))}" if roles else "admitted for nothing"
    if lane is not None and lane.state in (LaneState.DOWN, LaneState.QUARANTINED):
        return Check(title, "warn", f"{lane.state}: {lane.reason or 'no reason was given'}", f"lab lane admit {name}")
    link = (live or {}).get("link") or {}
    refused = link.get("refused")
    if refused:
        return Check(title, "fail", str(refused.get("message")), str(refused.get("hint") or f"lab lane probe {name}"))
    if silence(live or {}):
        return Check(title, "ok", f"{silence(live or {})}; {has}")
    if link:
        age = live.get("age_s") if live is not None else None
        since = f", last heard {age:.0f} s ago" if age is not None else ""
        return Check(
            title, "warn", f"out of reach{since}: {link.get('error') or 'no reason known'}", f"lab lane probe {name}"
        )
    if live is None:
        return Check(title, "ok", f"nobody has tried to reach it just now; {has}")
    if not roles:
        return Check(title, "warn", "it answers, and is not admitted", f"lab lane admit {name}")
    age = live.get("age_s")
    if age is not None and age > _SILENT_S:
        return Check(title, "warn", f"silent for {age:.0f} s; {has}", f"lab lane probe {name}")
    return Check(title, "ok", f"it answers; {has}")


def _trusted_file(home: Home) -> Check:
    mode = home.known_hosts.stat().st_mode & 0o777
    if mode & 0o022:
        text = f"{home.known_hosts} can be written by others (mode {mode:o})"
        return Check("host keys", "fail", text, f"chmod 600 {home.known_hosts}, and look at what is in it")
    return Check("host keys", "ok", str(home.known_hosts))
