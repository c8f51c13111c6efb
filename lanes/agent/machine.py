"""A machine looked at closely, for admission: GPUs and who uses them, heat, power, disk, interpreters, packages.

Every function here may take seconds and asks other programs; what cannot be read is absent from the answer, never
guessed. Nothing is installed, and nothing is written but one small file that is removed again (`try_disk`).
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from core.fsio import no_space
from lanes.agent import procs

TOOL_S = 30.0  # nvidia-smi on a machine with a sleeping driver takes its time
_GPU_FIELDS = (
    ("index", "index"),
    ("name", "name"),
    ("uuid", "uuid"),
    ("memory.total", "memory_mb"),
    ("memory.used", "memory_used_mb"),
    ("utilization.gpu", "busy"),
    ("temperature.gpu", "temperature"),
    ("power.draw", "power_w"),
    ("power.limit", "power_limit_w"),
    ("driver_version", "driver"),
)
_TEXTS = ("name", "uuid", "driver", "throttle")
# Newer drivers say "event" where older ones said "throttle".
_THROTTLE = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# Bits of the throttle reasons that mean: slower than it could be. (Idle and a clock that was asked for are no harm.)
_SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
# Runs in the lane's interpreter, which may be any Python 3: versions by metadata, and a real import where asked.
_ASK_PACKAGES = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
asked = json.loads(sys.argv[1])
found = {"python": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable, "prefix": sys.prefix}
versions = {}
try:
    from importlib import metadata
    for name in asked["names"]:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
except ImportError:
    pass
broken = {}
for name in asked["imports"]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        broken[name] = "%s: %s" % (type(error).__name__, error)
found.update(versions=versions, broken=broken)
print("\\n" + asked["mark"] + json.dumps(found))
"""
_MARK = "lab-packages:"


def gpus() -> List[Dict[str, Any]]:
    """Every GPU that nvidia-smi shows: what it is, how busy and hot, and the programs that compute on it.

    Each has "index", "name", "uuid", "memory_mb" and, where the driver says so, "memory_used_mb", "busy" (percent),
    "temperature" (Celsius), "power_w", "power_limit_w", "driver", "slowed" (why it runs slower than it could) and
    "programs": [{"pid", "name", "memory_mb", "ours"}].
    """
    fields = [f for f, _ in _GPU_FIELDS]
    names = [n for _, n in _GPU_FIELDS]
    for throttle in (*_THROTTLE, None):
        asked = [*fields, throttle] if throttle else fields
        text = output(["nvidia-smi", "--query-gpu=" + ",".join(asked), "--format=csv,noheader,nounits"])
        if text is not None:
            found = gpu_lines(text, [*names, "throttle"] if throttle else names)
            break
    else:
        return []
    text = output(
        ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    )
    users = app_lines(text or "")
    for gpu in found:
        gpu["programs"] = [{**user, "ours": _ours(user["pid"])} for uuid, user in users if uuid == gpu.get("uuid")]
    return found


def gpu_lines(text: str, names: Sequence[str]) -> List[Dict[str, Any]]:
    """One dictionary a GPU; what nvidia-smi calls [N/A] is absent."""
    out = []
    for line in text.splitlines():
        words = [w.strip() for w in line.split(",")]
        if len(words) != len(names) or not words[0].isdigit():
            continue
        gpu: Dict[str, Any] = {}
        for name, word in zip(names, words):
            if name in _TEXTS:
                gpu[name] = word
            else:
                with contextlib.suppress(ValueError):
                    number = float(word)
                    gpu[name] = int(number) if number == int(number) else number
        gpu["slowed"] = slowed(str(gpu.pop("throttle", "")))
        out.append(gpu)
    return out


def slowed(word: str) -> List[str]:
    """What the driver's bit mask says is slowing a GPU down; empty when nothing is, or when it does not say."""
    try:
        mask = int(word, 16)
    except ValueError:
        return []
    return [why for bit, why in _SLOWED.items() if mask & bit]


def app_lines(text: str) -> List[Tuple[str, Dict[str, Any]]]:
    """(GPU's uuid, program) of each line of nvidia-smi's list of computing programs."""
    out = []
    for line in text.splitlines():
        uuid, _, rest = line.partition(",")
        pid, _, rest = rest.partition(",")
        name, _, memory = rest.rpartition(",")
        if pid.strip().isdigit():
            user: Dict[str, Any] = {"pid": int(pid), "name": name.strip()}
            if memory.strip().isdigit():
                user["memory_mb"] = int(memory)
            out.append((uuid.strip(), user))
    return out


def _ours(pid: int) -> bool:
    """Is this program part of an attempt of a lab?"""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as f:
        return any(word.startswith(f"{procs.MARKER}=lab:".encode()) for word in f.read().split(b"\0"))
    return False


def heat() -> List[Dict[str, Any]]:
    """Temperatures of the machine's zones in Celsius (Linux)."""
    out = []
    for zone in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        with contextlib.suppress(OSError, ValueError):
            degrees = int(Path(zone, "temp").read_text()) / 1000
            if -40 < degrees < 150:
                out.append({"zone": Path(zone, "type").read_text().strip(), "celsius": round(degrees, 1)})
    return out


def power() -> Dict[str, Any]:
    """{"battery": has it one, "mains": is it plugged in, "percent": of charge}; what cannot be read is absent."""
    if sys.platform == "darwin":
        return battery_of_mac(output(["/usr/bin/pmset", "-g", "batt"]) or "")
    return power_supplies(Path("/sys/class/power_supply"))


def power_supplies(folder: Path) -> Dict[str, Any]:
    """The same, from the files that Linux keeps."""
    found: Dict[str, Any] = {}
    with contextlib.suppress(OSError):
        for supply in sorted(folder.iterdir()):
            kind = _word(supply / "type")
            if kind == "Mains" or (kind == "USB" and "mains" not in found):
                found["mains"] = bool(found.get("mains")) or _word(supply / "online") == "1"
            # A mouse has a battery too; the machine's own is of scope System.
            if kind == "Battery" and _word(supply / "scope") != "Device":
                found["battery"] = True
                with contextlib.suppress(ValueError):
                    found["percent"] = int(_word(supply / "capacity"))
                if _word(supply / "status") == "Discharging":
                    found["mains"] = False
    return found


def battery_of_mac(text: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    if "AC Power" in text or "Battery Power" in text:
        found["mains"] = "'AC Power'" in text
    percent = re.search(r"(\d+)%", text)
    if percent:
        found.update(battery=True, percent=int(percent.group(1)))
    return found


def memory_free_mb() -> Optional[int]:
    """Main memory that a new program could have; None where the machine does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) >> 10
    return None


def disk(root: Path) -> Dict[str, Any]:
    """{"free", "total": bytes, "files_free": how many can still be made, "path"} of the disk below `root`."""
    info = os.statvfs(root)
    found: Dict[str, Any] = {
        "path": str(root),
        "free": info.f_bavail * info.f_frsize,
        "total": info.f_blocks * info.f_frsize,
    }
    if info.f_files:
        found["files_free"] = info.f_favail
    return found


def try_disk(root: Path, size: int) -> Dict[str, Any]:
    """Write `size` bytes below `root`, sync them, read them back, and remove them: a disk that says that it has room
    may be read-only, or beyond its owner's quota. {"ok", "seconds", "error", "full"}"""
    place = root / (".probe-%d-%s" % (os.getpid(), os.urandom(4).hex()))
    data = os.urandom(min(size, 1 << 20)) or b"x"
    begun = time.monotonic()
    try:
        with open(place, "xb") as f:
            left = size
            while left > 0:
                left -= f.write(data[: min(left, len(data))])
            f.flush()
            os.fsync(f.fileno())
        with open(place, "rb") as f:
            if f.read(len(data)) != data[:size]:
                return {"ok": False, "full": False, "error": "what was written is not what is read back"}
    except OSError as error:
        return {"ok": False, "full": no_space(error), "error": error.strerror or str(error)}
    finally:
        with contextlib.suppress(OSError):
            os.unlink(place)
    return {"ok": True, "full": False, "error": "", "seconds": round(time.monotonic() - begun, 3)}


def packages(
    python: str, names: Sequence[str], imports: Sequence[str] = (), *, within_s: float = 180.0
) -> Dict[str, Any]:
    """What the interpreter `python` has: {"python", "executable", "prefix", "versions": {name: version or None},
    "broken": {module: why it cannot be imported}}, or {"error": why it could not be asked}."""
    path = os.path.expanduser(python)
    if os.sep not in path:
        path = shutil.which(path) or path
    asked = json.dumps({"names": list(names), "imports": list(imports), "mark": _MARK})
    try:
        done = subprocess.run(
            [path, "-I", "-c", _ASK_PACKAGES, asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "%s did not answer within %d s" % (path, within_s)}
    except OSError as error:
        return {"error": "%s cannot be run: %s" % (path, error.strerror or error)}
    for line in reversed(done.stdout.decode("utf-8", "replace").splitlines()):
        if line.startswith(_MARK):
            with contextlib.suppress(ValueError):
                found: Dict[str, Any] = json.loads(line[len(_MARK) :])
                return found
    last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
    how = "was ended by signal %d" % -done.returncode if done.returncode < 0 else "ended with %d" % done.returncode
    return {"error": "%s %s: %s" % (path, how, last[:400])}


def output(argv: List[str], *, within_s: float = TOOL_S) -> Optional[str]:
    """What a tool prints; None when it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=within_s,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
