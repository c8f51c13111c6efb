"""The wheels of a lock for one lane: from a folder, kept from before, made of what is installed here, or downloaded.

In that order: nothing is asked of the network that is here already. Each is known by its content, so that a lane is
never sent the same one twice.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from core.errors import BadInput, DiskFull, Exit, LabError
from core.fsio import no_space, sha256_file
from lanes.environment.lock import Lock, Pin
from lanes.environment.rebuild import CannotRebuild, installed, rebuild
from lanes.environment.target import Target

_DOWNLOAD_S = 1800.0
_NO_NETWORK = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "Network is unreachable")

Say = Callable[[str, int, int], None]  # step, done, of


class NoWheel(LabError):
    """A wheel that the lane needs is nowhere to be had."""

    exit_code = Exit.NO_RESOURCE
    slug = "no-wheel"


@dataclass(frozen=True)
class Wheel:
    """One wheel on the head.

    Attributes:
        name, version: of the distribution, canonical.
        path: where it lies; its name is that of the wheel.
        origin: "folder", "kept", "installed" or "downloaded".
    """

    name: str
    version: str
    path: Path
    sha256: str
    size: int
    origin: str

    @property
    def file(self) -> str:
        return self.path.name


class Wheelhouse:
    """Where wheels come from.

    Args:
        keep: the home's folder for wheels; made when needed.
        folder: a folder of the user's own wheels.
        download: may pip be asked for what is missing?
    """

    def __init__(self, keep: Path, *, folder: Path | None = None, download: bool = True) -> None:
        self._keep = keep
        self._download = download
        self._folder = folder
        self._theirs = _listing(folder) if folder is not None else []
        self._why: dict[str, str] = {}

    def collect(self, lock: Lock, target: Target, say: Say = lambda *_: None) -> list[Wheel]:
        """A wheel for each pin.

        Raises:
            NoWheel: naming the first that is missing, and how many more.
            BadInput: a wheel in the user's folder is broken, or its folder cannot be read.
            DiskFull: there is no room for them here.
        """
        self._why = {}
        found: dict[str, Wheel] = {}
        try:
            for i, pin in enumerate(lock.pins):
                say(f"looking for {pin.name}", i, len(lock.pins))
                wheel = self._here(pin, target, say, i, len(lock.pins))
                if wheel is not None:
                    found[pin.name] = wheel
            missing = [p for p in lock.pins if p.name not in found]
            if missing and self._download:
                say(f"downloading {len(missing)}", len(found), len(lock.pins))
                found.update(self._downloaded(missing, target))
        except OSError as error:
            if no_space(error):
                raise DiskFull(f"there is no room for wheels in {self._keep}", hint="free some space") from error
            raise
        missing = [p for p in lock.pins if p.name not in found]
        if missing:
            raise self._nowhere(missing, target)
        return [found[p.name] for p in lock.pins]

    def pip(self) -> Wheel:
        """A wheel of pip itself, which runs on any Python that we support.

        Raises:
            NoWheel: there is none.
        """
        own = [w for w in self._theirs if w[0] == "pip"]
        for _name, version, path, _tags in sorted(own, key=lambda w: w[1], reverse=True):
            return _wheel("pip", str(version), path, "folder")
        with contextlib.suppress(CannotRebuild):
            return self._rebuilt("pip")
        with contextlib.suppress(ImportError):
            import ensurepip

            bundled = sorted((Path(str(ensurepip.__file__)).parent / "_bundled").glob("pip-*.whl"))
            if bundled:
                _, version, _, _ = parse_wheel_filename(bundled[-1].name)
                return _wheel("pip", str(version), bundled[-1], "installed")
        raise NoWheel("there is no pip here to send", hint="put a wheel of pip into the folder that --wheels names")

    def _here(self, pin: Pin, target: Target, say: Say, done: int, of: int) -> Wheel | None:
        for name, version, path, tags in self._theirs:
            if name == pin.name and _same(version, pin.version):
                if not target.takes(tags):
                    self._why[pin.name] = f"{path.name} in {path.parent} is for another Python or platform"
                    continue
                return _checked(pin, _wheel(pin.name, pin.version, path, "folder"))
        for name, version, path, tags in self._kept():
            if name == pin.name and _same(version, pin.version) and target.takes(tags):
                wheel = _wheel(pin.name, pin.version, path, "kept")
                if not pin.hashes or wheel.sha256 in pin.hashes:
                    return wheel
        if pin.hashes:  # one that is made here has another hash than the one that was released
            self._why[pin.name] = "the lock names the hashes of released wheels"
            return None
        try:
            here = installed(pin.name)
        except CannotRebuild as error:
            self._why[pin.name] = error.message
            return None
        if not _same(Version(here.dist.version), pin.version):
            self._why[pin.name] = f"{here.dist.version} is installed here"
            return None
        if not target.takes(here.tags):
            self._why[pin.name] = f"the one here is for {_platform_of(here.file)}"
            return None
        say(f"packing {pin.name}", done, of)
        try:
            return self._rebuilt(pin.name)
        except CannotRebuild as error:
            self._why[pin.name] = error.message
            return None

    def _kept(self) -> list[tuple[str, Version, Path, frozenset]]:  # type: ignore[type-arg]
        """What was downloaded before. (What was made of an installation is found by that installation.)"""
        return [f for p in sorted((self._keep / "downloaded").glob("*.whl")) if (f := _parsed(p)) is not None]

    def _rebuilt(self, name: str) -> Wheel:
        """A wheel of what is installed here, made once for each installation."""
        here = installed(name)
        place = self._keep / here.stamp[:16]
        path = place / here.file
        if not path.is_file():
            place.mkdir(parents=True, exist_ok=True)
            fd, partial = tempfile.mkstemp(dir=place, suffix=".partial")
            os.close(fd)
            try:
                rebuild(here, Path(partial))
                os.replace(partial, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(partial)
                raise
        return _wheel(canonicalize_name(name), here.dist.version, path, "installed")

    def _downloaded(self, pins: Sequence[Pin], target: Target) -> dict[str, Wheel]:
        """What pip finds of these, each by itself: one that is nowhere must not hide the others."""
        place = self._keep / "downloaded"
        place.mkdir(parents=True, exist_ok=True)
        argv = [*_pip_here(self), "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
        argv += ["--no-input", "--progress-bar", "off", "--timeout", "20", "--retries", "1", "--dest", str(place)]
        argv += ["--python-version", ".".join(map(str, target.minor)), "--implementation", "cp"]
        argv += [word for name in _platforms(target) for word in ("--platform", name)]
        argv += [word for name in _abis(target) for word in ("--abi", name)]
        out: dict[str, Wheel] = {}
        for pin in pins:
            with tempfile.TemporaryDirectory(dir=self._keep) as folder:
                argv[argv.index("--dest") + 1] = folder
                try:
                    done = subprocess.run(
                        [*argv, f"{pin.name}=={pin.version}"],
                        capture_output=True,
                        text=True,
                        timeout=_DOWNLOAD_S,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    self._why[pin.name] = "its download took longer than half an hour"
                    continue
                files = list(Path(folder).glob("*.whl"))
                if done.returncode != 0 or not files:
                    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
                    said = lines[-1][7:] if lines else "pip found none"
                    self._why.setdefault(pin.name, said)
                    if any(word in done.stderr for word in _NO_NETWORK):
                        self._why[pin.name] += " (no index can be reached from here)"
                        return out
                    continue
                final = place / files[0].name
                os.replace(files[0], final)
                wheel = _checked(pin, _wheel(pin.name, pin.version, final, "downloaded"))
                out[pin.name] = wheel
        return out

    def _nowhere(self, missing: Sequence[Pin], target: Target) -> NoWheel:
        first = missing[0]
        why = self._why.get(first.name)
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return NoWheel(
            f"there is no wheel of {first.name} {first.version} for {target}{': ' + why if why else ''}{more}",
            hint="give a folder of wheels with --wheels, an index that the lane reaches (`environment: {index: URL}`), "
            "or another base interpreter",
        )


def _listing(folder: Path) -> list[tuple[str, Version, Path, frozenset]]:  # type: ignore[type-arg]
    """(name, version, path, tags) of the wheels in a folder."""
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix == ".whl")
    except OSError as error:
        raise BadInput(f"the folder of wheels {folder} cannot be read ({error.strerror})", hint="correct it") from error
    if not paths:
        raise BadInput(f"there are no wheels in {folder}", hint="put some there, or leave the folder out")
    out = []
    for path in paths:
        found = _parsed(path)
        if found is None:
            raise BadInput(f"{path} is not named as a wheel is", hint="give it the name that it was released with")
        out.append(found)
    return out


def _parsed(path: Path) -> tuple[str, Version, Path, frozenset] | None:  # type: ignore[type-arg]
    try:
        name, version, _build, tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename:
        return None
    return str(name), version, path, tags


def _same(found: Version, wanted: str) -> bool:
    """A wanted version without a local label (`+cpu`) takes any."""
    want = Version(wanted)
    return found == want or (want.local is None and Version(found.public) == want)


def _wheel(name: str, version: str, path: Path, origin: str) -> Wheel:
    return Wheel(name, version, path, sha256_file(path), path.stat().st_size, origin)


def _checked(pin: Pin, wheel: Wheel) -> Wheel:
    """The same, if it is a wheel of that name and has a hash that the lock names.

    Raises:
        BadInput: it is not.
    """
    try:
        with zipfile.ZipFile(wheel.path) as z:
            broken = z.testzip()
            infos = [n for n in z.namelist() if n.endswith(".dist-info/METADATA")]
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise BadInput(f"the wheel {wheel.path} is broken ({error})", hint="put a good one in its place") from None
    if broken is not None:
        raise BadInput(f"the wheel {wheel.path} is broken ({broken})", hint="put a good one in its place")
    names = [canonicalize_name(n.split("-", 1)[0]) for n in infos]
    if pin.name not in names:
        raise BadInput(
            f"{wheel.path} holds {names[0] if names else 'nothing'}, not {pin.name}", hint="correct its name"
        )
    if pin.hashes and wheel.sha256 not in pin.hashes:
        raise BadInput(
            f"{wheel.path} is not the wheel that the lock names (its SHA-256 is {wheel.sha256[:12]}...)",
            hint="put the released one in its place, or lock again",
        )
    return wheel


def _pip_here(house: Wheelhouse) -> list[str]:
    import importlib.util

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    run = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('pip', run_name='__main__')"
    return [sys.executable, "-I", "-c", run, str(house.pip().path)]


def _platforms(target: Target) -> list[str]:
    return _first(tag.platform for tag in target.tags if tag.platform != "any")


def _abis(target: Target) -> list[str]:
    return _first([*(tag.abi for tag in target.tags if tag.abi.startswith("cp")), "abi3", "none"])


def _first(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _platform_of(file: str) -> str:
    parts = file.removesuffix(".whl").split("-")
    return f"{parts[-3]} on {parts[-1].split('.')[0]}"
