"""Names that are unique to a run, and what dead runs left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from pathlib import Path

from tests.netlab import cgroups
from tests.netlab.keeper import ip
from tests.netlab.setup import Net

_NET = Path("/sys/class/net")
_NETWORKS = 250
_numbers = itertools.count(1)


def tag() -> str:
    """Names everything of one lab, and tells whose it is: labnet.PID.START.NUMBER."""
    return f"{cgroups.PREFIX}.{os.getpid()}.{_started(os.getpid())}.{next(_numbers)}"


def claim_network(name: str) -> Net:
    """Make the bridge of a network that nobody has. Its name says which network it is, so making it is the claim."""
    taken = _routes()
    for index in range(_NETWORKS):
        mac = f"02:6c:61:62:{index:02x}:01"
        net = Net(index, mac)
        if f"198.18.{index}" in taken or (_NET / net.bridge).exists():
            continue
        made = subprocess.run(
            [
                "ip",
                "link",
                "add",
                net.bridge,
                "address",
                mac,
                "type",
                "bridge",
                "stp_state",
                "0",
                "mcast_snooping",
                "0",
            ],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            if "exists" in made.stderr:
                continue
            raise OSError(f"no bridge can be made: {made.stderr.strip()}")
        # The ends of dead lanes go some time after them; the network is ours now, and so is what is named after it.
        for device in _NET.glob(f"{net.prefix}l*"):
            with contextlib.suppress(OSError):
                ip(f"link del {device.name}")
        (_NET / net.bridge / "ifalias").write_text(name)
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{net.bridge}/disable_ipv6").write_text("1")
        ip(f"addr add {net.gateway}/24 dev {net.bridge}", f"link set {net.bridge} up")
        return net
    raise OSError(f"all {_NETWORKS} networks of 198.18.0.0/16 are taken")


def release_network(net: Net) -> None:
    with contextlib.suppress(OSError):
        ip(f"link del {net.bridge}")


def sweep() -> None:
    """Remove what labs left whose test process is gone."""
    cgroups.clear(folder for folder in cgroups.abandoned() if _dead(folder.name))
    for device in _NET.glob("labnet*"):
        alias = ""
        with contextlib.suppress(OSError):
            alias = (device / "ifalias").read_text().strip()
        # One without a name was made this very moment, or by somebody who was killed right then: leave it.
        if alias and _dead(alias):
            with contextlib.suppress(OSError):
                ip(f"link del {device.name}")
    for place in Path("/tmp").glob(f"{cgroups.PREFIX}.*.*.*"):
        if _dead(place.name):
            shutil.rmtree(place, ignore_errors=True)


def _dead(name: str) -> bool:
    """Whether the process that a name speaks of is gone."""
    words = name.split(".")
    if len(words) < 3 or not (words[1].isdigit() and words[2].isdigit()):
        return False
    return _started(int(words[1])) != int(words[2])


def _started(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])


def _routes() -> set[str]:
    """Networks that this machine reaches somehow: the first three numbers of each destination."""
    found = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        number = int(line.split()[1], 16)
        found.add(f"{number & 255}.{number >> 8 & 255}.{number >> 16 & 255}")
    return found
