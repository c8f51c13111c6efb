"""Making one Python environment on a lane: a venv, wheels into it, and the proof that it is what was asked for.

Nothing is needed but an interpreter: no ensurepip, no pip, no compiler and, unless an index is named, no network.
pip comes as a wheel of its own and is run out of it. An existing `uv` is used in its place, being faster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from core.fsio import no_space, write_json
from lanes.agent import pythons
from lanes.agent.pythons import last_line

MARKER = "lab-environment.json"  # in a finished environment: what it is
LIMIT_S = 3600.0  # for one step: a hung index must not hold a lane for ever
_ROOM = 64 << 20  # bytes that must stay free beside what is unpacked

# As ensurepip does it: pip's own entry, with the wheel on the path.
_PIP = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

# Every pinned distribution is there in its version.
_VERSIONS = r"""
import json, sys
import importlib.metadata as m
wrong = []
for name, version in json.loads(sys.stdin.read()):
    try:
        found = m.version(name)
    except m.PackageNotFoundError:
        found = None
    if found != version and (found is None or "+" in version or found.partition("+")[0] != version):
        wrong.append([name, version, found])
print("lab-wrong:" + json.dumps(wrong))
"""

Say = Callable[[str, int, int], None]  # step, done, of


class CannotMake(Exception):
    """The environment cannot be made: one sentence, and what to do."""

    def __init__(self, message: str, hint: str = "", cause: str = "environment") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.cause = cause


def make(order: Dict[str, Any], place: Path, final: Path, wheels: Path, say: Say) -> Dict[str, Any]:
    """Fill the empty folder `place` so that it can be renamed to `final`.

    Args:
        order: "digest"; "base": an interpreter; "lock": [[name, version], ...]; "wheels": [[file name, where it lies],
            ...]; "pip": file name of the wheel among them that is pip; "index": a URL or None; "requirements": what is
            asked of the index; "imports": modules that must load; "whole": does the lock claim to be.
        wheels: an empty folder for the wheels under their own names.

    Returns:
        What the marker says: digest, python (in `final`), version, packages, by.

    Raises:
        CannotMake: a sentence for people.
    """
    base = str(order["base"])
    facts = _facts(base)
    files = _own_names(order, wheels)
    _refuse_full(place, files)
    say("making the venv", 0, 1)
    _venv(base, facts, place)
    python = place / "bin" / "python"
    by = _install(order, files, place, python, say)
    say("checking", 0, 1)
    _check_versions(python, order["lock"])
    missing = _unmet(order, files, python)
    _check_imports(python, list(order.get("imports") or ()), say)
    _move_paths(place, final)
    found = {
        "digest": str(order["digest"]),
        "python": str(final / "bin" / "python"),
        "version": facts["version"],
        "base": facts["python"],
        "packages": dict(order["lock"]),
        "unmet": missing,
        "by": by,
    }
    write_json(place / MARKER, found)
    return found


def _facts(base: str) -> Dict[str, Any]:
    try:
        facts = pythons.ask(base)
    except pythons.BadPython as error:
        raise CannotMake(str(error), "name another as `environment: {base: ...}` of this lane", "python") from None
    version = tuple(int(n) for n in re.findall(r"\d+", str(facts["version"]))[:2])
    if version < pythons.OLDEST:
        need = ".".join(map(str, pythons.OLDEST))
        raise CannotMake(
            "%s is Python %s, and kinds need %s or newer" % (facts["python"], facts["version"], need),
            "name a newer one as `environment: {base: ...}` of this lane",
            "python",
        )
    lacks = [name for name in ("zlib", "hashlib") if name in facts["lacks"]]
    if lacks:
        raise CannotMake(
            "%s was built without %s, so that no wheel can be unpacked" % (facts["python"], " and ".join(lacks)),
            "name another as `environment: {base: ...}` of this lane",
            "python",
        )
    return facts


def _own_names(order: Dict[str, Any], wheels: Path) -> Dict[str, Path]:
    """The wheels under the names that installers read, as links into the store."""
    out: Dict[str, Path] = {}
    for name, stored in order["wheels"]:
        if "/" in name or name.startswith(".") or not name.endswith(".whl"):
            raise CannotMake("%r is no name of a wheel" % name)
        if not os.path.isfile(stored):
            raise CannotMake(
                "the wheel %s is no longer in this lane's store" % name, "provision the lane again", "missing-wheel"
            )
        os.symlink(stored, wheels / name)
        out[name] = wheels / name
    return out


def _refuse_full(place: Path, files: Dict[str, Path]) -> None:
    need = 0
    for name, path in files.items():
        try:
            with zipfile.ZipFile(path) as z:
                need += sum(entry.file_size for entry in z.infolist())
        except (zipfile.BadZipFile, OSError) as error:
            raise CannotMake(
                "the wheel %s is broken: %s" % (name, error),
                "put a good one in its place and provision again",
                "bad-wheel",
            ) from error
    free = shutil.disk_usage(place).free
    if free < need + _ROOM:
        raise CannotMake(
            "the environment needs %s on the lane's disk, and %s is free" % (_size(need + _ROOM), _size(free)),
            "free some space there, or set `root` of this lane to a larger disk",
            "disk-full",
        )


def _venv(base: str, facts: Dict[str, Any], place: Path) -> None:
    """A venv without pip. The module `venv` may be missing (Debian packages it apart): then by hand."""
    if "venv" not in facts["lacks"]:
        code, _out, _err = _run([base, "-I", "-m", "venv", "--without-pip", str(place)])
        if code == 0 and _runs(place):
            return
        for name in os.listdir(place):
            full = place / name
            shutil.rmtree(full) if full.is_dir() and not full.is_symlink() else full.unlink()
    try:
        minor = ".".join(str(facts["version"]).split(".")[:2])
        real = os.path.realpath(str(facts["python"]))
        (place / "bin").mkdir()
        (place / "lib" / ("python" + minor) / "site-packages").mkdir(parents=True)
        os.symlink(str(facts["python"]), place / "bin" / "python")
        for name in ("python3", "python" + minor):
            os.symlink("python", place / "bin" / name)
        lines = [
            "home = " + os.path.dirname(real),
            "include-system-site-packages = false",
            "version = " + facts["version"],
        ]
        (place / "pyvenv.cfg").write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise _os_trouble("the venv cannot be made", error) from error
    if not _runs(place):
        raise CannotMake("%s can make no working venv" % base, "name another as `environment: {base: ...}`", "python")


def _runs(place: Path) -> bool:
    code, out, _ = _run([str(place / "bin" / "python"), "-I", "-c", "import sys; print(sys.prefix)"])
    lines = out.decode("utf-8", "replace").split("\n")
    return code == 0 and os.path.realpath(str(place)) in [os.path.realpath(line) for line in lines if line]


def _install(order: Dict[str, Any], files: Dict[str, Path], place: Path, python: Path, say: Say) -> str:
    """Returns what installed it, for the evidence."""
    lock: List[List[str]] = order["lock"]
    pip = order.get("pip")
    index = order.get("index")
    what: List[str] = [str(path) for name, path in files.items() if name != pip]
    if index:
        listed = place / "lab-requirements.txt"
        listed.write_text(str(order["requirements"]))
        what += ["-r", str(listed)]
    if not what:
        return "nothing"
    site = _site(place)

    def count() -> None:
        done = sum(1 for name in os.listdir(site) if name.endswith(".dist-info"))
        say("installing", min(done, len(lock)), len(lock))

    uv = _uv()
    if uv is not None:
        argv = [
            uv,
            "pip",
            "install",
            "--python",
            str(python),
            "--no-deps",
            "--no-cache",
            "--no-config",
            "--no-progress",
        ]
        argv += ["--only-binary", ":all:", "--link-mode", "copy"]
        argv += ["--default-index", str(index)] if index else ["--no-index", "--offline"]
        code, _out, _err = _run([*argv, *what], tick=count, network=bool(index))
        if code == 0:
            return "uv"
        # pip says more clearly what is wrong, if it is not uv itself.
    if pip is None or pip not in files:
        raise CannotMake("no wheel of pip was sent, and this lane has no uv", "provision the lane again")
    argv = [str(python), "-I", "-c", _PIP, str(files[pip]), "install", "--no-deps", "--no-compile", "--no-cache-dir"]
    argv += ["--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--only-binary", ":all:"]
    argv += ["--progress-bar", "off"]
    argv += ["--index-url", str(index), "--timeout", "30", "--retries", "2"] if index else ["--no-index", "--isolated"]
    code, out, err = _run([*argv, *what], tick=count, network=bool(index))
    if code != 0:
        raise _pip_trouble(out + b"\n" + err, str(index or ""))
    return "pip"


def _check_versions(python: Path, lock: List[List[str]]) -> None:
    code, out, err = _run([str(python), "-I", "-c", _VERSIONS], stdin=json.dumps(lock).encode())
    said = [line[10:] for line in out.decode("utf-8", "replace").splitlines() if line.startswith("lab-wrong:")]
    if code != 0 or not said:
        raise CannotMake("the new environment does not run: %s" % (last_line(err) or "exit %d" % code))
    wrong = json.loads(said[0])
    if wrong:
        name, wanted, found = wrong[0]
        more = " (and %d more)" % (len(wrong) - 1) if len(wrong) > 1 else ""
        what = "is not there" if found is None else "came as %s" % found
        raise CannotMake(
            "the environment is not what the lock says: %s %s %s%s" % (name, wanted, what, more),
            "put the right wheel into the folder of wheels, or correct the lock",
            "wrong-version",
        )


def _check_imports(python: Path, modules: List[str], say: Say) -> None:
    """Each in a process of its own: some packages must not meet in one."""
    for i, name in enumerate(modules):
        say("importing " + name, i, len(modules))
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            raise CannotMake("%r is no name of a module" % name)
        code, _out, err = _run([str(python), "-I", "-c", "import " + name])
        if code != 0:
            why = "it was ended by signal %d" % -code if code < 0 else last_line(err) or "exit %d" % code
            raise CannotMake(
                "%s is installed but cannot be imported: %s" % (name, why),
                "this lane's system may be too old for its wheel, or lack a library; name another version in the lock",
                "broken-package",
            )


def _unmet(order: Dict[str, Any], files: Dict[str, Path], python: Path) -> List[str]:
    """What installed packages ask for and do not have, as pip tells it: a lock that is not whole shows itself here."""
    pip = order.get("pip")
    if pip is None or pip not in files:
        return []
    argv = [str(python), "-I", "-c", _PIP, str(files[pip]), "check", "--disable-pip-version-check", "--isolated"]
    _code, out, _err = _run(argv)
    lines = [line.strip() for line in out.decode("utf-8", "replace").splitlines()]
    missing = [line for line in lines if line.endswith("which is not installed.")]
    if missing and order.get("whole", True):
        more = " (and %d more)" % (len(missing) - 1) if len(missing) > 1 else ""
        raise CannotMake(
            "the lock is not whole: %s%s" % (missing[0].rstrip("."), more),
            "make it with all that they need (`pip freeze`, `pip-compile` and `uv pip compile` do)",
            "incomplete-lock",
        )
    return [line for line in lines if line in missing or " has requirement " in line][:20]


def _move_paths(place: Path, final: Path) -> None:
    """Scripts hold the folder's name in their first lines: make it the one that it will have."""
    old, new = os.fsencode(str(place)), os.fsencode(str(final))
    for path in [place / "pyvenv.cfg", *sorted((place / "bin").iterdir())]:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        blob = path.read_bytes()
        if old in blob:
            path.write_bytes(blob.replace(old, new))


def _site(place: Path) -> Path:
    return next(iter(sorted((place / "lib").glob("python3*/site-packages"))))


def _uv() -> Optional[str]:
    places = (shutil.which("uv"), os.path.expanduser("~/.local/bin/uv"), os.path.expanduser("~/.cargo/bin/uv"))
    return next((p for p in places if p and os.access(p, os.X_OK)), None)


def _pip_trouble(blob: bytes, index: str) -> CannotMake:
    text = blob.decode("utf-8", "replace")
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return CannotMake(
            "the lane's disk filled up while packages were installed", "free some space there", "disk-full"
        )
    errors = [line.strip()[len("ERROR: ") :] for line in text.splitlines() if line.strip().startswith("ERROR: ")]
    said = re.sub(r"//[^/@\s]*@", "//", errors[-1] if errors else last_line(blob))
    unfit = [e for e in errors if "is not a supported wheel" in e]
    if unfit:
        return CannotMake(unfit[0], "give a wheel for this lane's Python and platform (--wheels)", "missing-wheel")
    if index and ("No matching distribution" in text or "Could not find a version" in text):
        if re.search(r"(connection broken|Temporary failure|Connection refused|timed out)", text):
            return CannotMake(
                "the index cannot be reached from this lane", "correct `environment: {index: ...}`", "index"
            )
        hint = "name a version that it has in the lock, or send wheels (--wheels)"
        return CannotMake("the index has no wheel for this lane: %s" % said, hint, "missing-wheel")
    return CannotMake("the packages cannot be installed: %s" % said[:400], "mend that and provision again")


def _os_trouble(what: str, error: OSError) -> CannotMake:
    if no_space(error):
        return CannotMake("the lane's disk is full", "free some space there", "disk-full")
    return CannotMake("%s: %s" % (what, error.strerror or error))


def _run(
    argv: List[str], *, stdin: bytes = b"", tick: Optional[Callable[[], None]] = None, network: bool = False
) -> Tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr). Everything that it started is ended at the limit."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_env(network),
            start_new_session=True,
        )
    except OSError as error:
        return 127, b"", str(error).encode()
    end = time.monotonic() + LIMIT_S
    given: Optional[bytes] = stdin
    while True:
        try:
            out, err = process.communicate(given, timeout=0.5)
            return process.returncode, out, err
        except subprocess.TimeoutExpired:
            given = None
            if tick is not None:
                try:
                    tick()
                except OSError:
                    pass
            if time.monotonic() > end:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except OSError:
                    pass
                out, err = process.communicate()
                return 124, out, err + b"\nit took longer than an hour"


def _env(network: bool) -> Dict[str, str]:
    """What installers may see: for an index the lane's own certificates and proxies, else nothing that configures."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "USER", "LOGNAME")
    if network:
        return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return env


def _size(count: int) -> str:
    return "%.1f GiB" % (count / (1 << 30)) if count >= 1 << 30 else "%d MiB" % (count >> 20)
