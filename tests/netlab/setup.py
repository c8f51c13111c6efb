"""Making a lane's disk: accounts, sshd and its keys, programs, the movable clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.netlab import pythons

if TYPE_CHECKING:
    from tests.netlab.lane import Options

BIN = "/opt/lane/bin"
# Settings of the machine that programs need, and that say nothing of anybody.
_ETC = (
    "ca-certificates.conf",
    "debian_version",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "locale.alias",
    "localtime",
    "login.defs",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "protocols",
    "services",
    "timezone",
)


@dataclass(frozen=True)
class Net:
    """The network of one lab: 198.18.INDEX.0/24, out of the block that is kept for benchmarks and is on no real net."""

    index: int
    mac: str

    @property
    def bridge(self) -> str:
        return f"labnet{self.index}"

    @property
    def prefix(self) -> str:
        """Names of our devices begin so."""
        return f"ln{self.index}"

    @property
    def gateway(self) -> str:
        return self.address(-9)

    def address(self, lane: int) -> str:
        return f"198.18.{self.index}.{lane + 10}"

    def lane_mac(self, lane: int) -> str:
        return f"02:6c:61:62:{self.index:02x}:{lane + 10:02x}"


def make(name: str, number: int, net: Net, folder: Path, options: Options) -> dict[str, Any]:
    """Write the lane's disk into `folder`. Returns its settings for the keeper (tests/netlab/keeper.py, init.py)."""
    for part in ("home", "etc/ssh", "var/log", "var/tmp", "var/lib", "opt/bin", "root", "skel"):
        (folder / part).mkdir(parents=True)
    (folder / "home").chmod(0o700)
    python, needs = pythons.interpreter(options.python)
    _etc(folder / "etc", name, net.address(number), options.password)
    make_host_key(folder)
    write_sshd_config(folder, options)
    for program, text in options.programs.items():
        write_program(folder, program, text)
    for command in ("python", "python3") if python else ():
        # Not a link: through one, an interpreter does not find the environment that it belongs to.
        write_program(folder, command, f'#!/bin/sh\nexec {python} "$@"\n')
    start = folder / ("skel" if options.disk else "home")
    if options.bashrc:
        (start / ".bashrc").write_text(options.bashrc)
    if options.clock:
        _make_clock(folder)
    return {
        "name": name,
        "hostname": name,
        "address": net.address(number),
        "mac": net.lane_mac(number),
        "gateway": net.gateway,
        "gateway_mac": net.mac,
        "folder": str(folder),
        "quota": options.quota,
        "python": python,
        "sees": [*needs, *map(str, options.sees)],
        "hidden": [str(pythons.REPO), str(Path.home())],
        "disk": options.disk,
        "forgets": options.forgets,
        "sshd": shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"),
    }


def make_host_key(folder: Path) -> None:
    key = folder / "etc/ssh/ssh_host_ed25519_key"
    key.unlink(missing_ok=True)
    make_key(key)


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def fingerprint(folder: Path) -> str:
    key = folder / "etc/ssh/ssh_host_ed25519_key.pub"
    done = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def write_sshd_config(folder: Path, options: Options) -> None:
    """The first value of an option wins: what the lane asks for comes before what all have."""
    settings = {
        **options.sshd,
        "Port": 22,
        "AddressFamily": "inet",
        "HostKey": "/etc/ssh/ssh_host_ed25519_key",
        "PidFile": "none",
        "UsePAM": "no",
        "UseDNS": "no",
        "StrictModes": "no",
        "PrintMotd": "no",
        "LogLevel": "VERBOSE",
        "PermitRootLogin": "yes",
        "PubkeyAuthentication": "yes" if options.keys else "no",
        "AuthorizedKeysFile": "/etc/ssh/authorized_keys",
        "PasswordAuthentication": "yes" if options.password else "no",
        "KbdInteractiveAuthentication": "no",
        "MaxStartups": "100",
        "LoginGraceTime": "60",
        "SetEnv": f"PATH={BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "Subsystem": "sftp internal-sftp",
    } | options.sshd
    (folder / "etc/ssh/sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))


def write_program(folder: Path, name: str, text: str) -> None:
    file = folder / "opt/bin" / name
    file.write_text(text)
    file.chmod(0o755)


def set_clock(folder: Path, seconds: float) -> None:
    """Every program of the lane has this file in its memory: written in place, at once."""
    with open(folder / "etc/clock", "r+b") as f:
        f.write(struct.pack("q", int(seconds * 1e9)))


def _etc(etc: Path, name: str, address: str, password: str | None) -> None:
    for word in _ETC:
        source = Path("/etc") / word
        if source.exists():
            shutil.copy(source, etc / word)
    accounts = {"root": (0, "/root", "/bin/bash"), "sshd": (74, "/run/sshd", "/bin/false")}
    accounts["nobody"] = (65534, "/nonexistent", "/bin/false")
    (etc / "passwd").write_text("".join(f"{n}:x:{i}:{i}::{h}:{s}\n" for n, (i, h, s) in accounts.items()))
    (etc / "group").write_text("root:x:0:\ntty:x:5:\nsshd:x:74:\nnogroup:x:65534:\n")
    secret = _crypt(password) if password else "*"
    (etc / "shadow").write_text("".join(f"{n}:{secret if n == 'root' else '*'}:19000::::::\n" for n in accounts))
    (etc / "shadow").chmod(0o600)
    (etc / "hostname").write_text(name + "\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")


def _crypt(password: str) -> str:
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return bytes(library.crypt(password.encode(), b"$6$" + os.urandom(6).hex().encode() + b"$")).decode()


_CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static const volatile int64_t *shift;
__attribute__((constructor)) static void begin(void) {
    int fd = open("/etc/clock", O_RDONLY | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) shift = p;
    if (fd >= 0) close(fd);
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    long done = syscall(SYS_clock_gettime, clock, t);
    if (done == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)) {
        int64_t ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + *shift;
        t->tv_sec = ns / 1000000000;
        t->tv_nsec = ns % 1000000000;
    }
    return (int)done;
}
int gettimeofday(struct timeval *restrict v, void *restrict zone) {
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    v->tv_sec = t.tv_sec;
    v->tv_usec = t.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *where) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (where) *where = t.tv_sec;
    return t.tv_sec;
}
"""


def _make_clock(folder: Path) -> None:
    """A library that every program of the lane loads, which adds what /etc/clock holds to the time of day."""
    (folder / "etc/clock").write_bytes(struct.pack("q", 0))
    library = folder / "opt/clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library)]
    done = subprocess.run(command, input=_CLOCK, text=True, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"the movable clock cannot be compiled: {done.stderr}")
    (folder / "etc/ld.so.preload").write_text("/opt/lane/clock.so\n")
