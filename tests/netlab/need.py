"""Whether lanes can be made on this machine, and if not, the precise reason."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

import pytest

from tests.netlab import cgroups, stale

_PROGRAMS = {"ip": "iproute2", "ss": "iproute2", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
_PROGRAMS |= {"sshd": "openssh-server", "unshare": "util-linux", "nsenter": "util-linux"}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@functools.cache
def missing() -> str:
    """Why no lane can be made here, in one sentence; empty when they can."""
    if sys.platform != "linux":
        return "lanes are made of Linux namespaces, and this is not Linux"
    if os.geteuid() != 0:
        return "lanes are made of namespaces and mounts, which needs root"
    for program, package in _PROGRAMS.items():
        if not shutil.which(program, path=_PATH):
            return f"{program} is missing (Debian's {package})"
    made = subprocess.run(["unshare", "-muinpf", "--kill-child", "true"], capture_output=True, text=True)
    if made.returncode != 0:
        return f"namespaces cannot be made here: {made.stderr.strip()}"
    try:
        net = stale.claim_network(stale.tag())
    except OSError as error:
        return f"no network for lanes can be made here: {error}"
    stale.release_network(net)
    return ""


@functools.cache
def missing_quota() -> str:
    return _no_group("no_cpu")


@functools.cache
def missing_freezer() -> str:
    return _no_group("no_freezer")


def require() -> None:
    """Skip the calling test, with the reason, when no lane can be made here."""
    if missing():
        pytest.skip(missing())


def require_quota() -> None:
    """Skip when lanes cannot be made unequal."""
    require()
    if missing_quota():
        pytest.skip(f"no processor quotas here: {missing_quota()}")


def require_freezer() -> None:
    """Skip when lanes cannot be put to sleep."""
    require()
    if missing_freezer():
        pytest.skip(f"lanes cannot be put to sleep here: {missing_freezer()}")


def _no_group(which: str) -> str:
    groups = cgroups.Cgroups(stale.tag())
    groups.remove()
    return str(getattr(groups, which))
