"""What `lab doctor` looks at. Each check is one line: ok, warn or fail, and what to do. None changes anything."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import LabError
from core.home import Home, refuse_unsafe_filesystem
from lab import tools
from lab.output import human
from lab.tools import Check

__all__ = ["Check", "all_checks"]

_LEAST_DISK = 1 << 30
_LONGEST_SOCKET = 107


def all_checks(home: Home) -> Iterator[Check]:
    """Every check, cheapest and most telling first. A check that itself breaks is a failure of its own."""
    checks: tuple[tuple[str, Callable[[Home], Check]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("home", _home),
        ("disk", _disk),
        ("journal", _journal),
        ("cluster.yaml", _cluster),
        ("controller", _controller),
        ("sockets", _sockets),
        ("kinds", _kinds),
        ("ray", _ray),
        ("git", tools.git),
        ("ssh", tools.ssh),
        ("gpu", tools.gpu),
        ("installer", tools.installer),
    )
    for name, check in checks:
        yield from _guarded(name, lambda c=check: [c(home)])  # type: ignore[misc]
    yield from _guarded("lanes", lambda: tools.lanes(home))


def _guarded(name: str, work: Callable[[], list[Check]]) -> list[Check]:
    try:
        return work()
    except LabError as error:
        return [Check(name, "fail", error.message, error.hint)]
    except Exception as error:
        said = f"the check itself failed ({type(error).__name__}: {error})"
        return [Check(name, "fail", said, "report this: it is a bug of lab")]


def _python(_home: Home) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Check(
            "python", "fail", f"Python {version} is not supported", "make an environment with Python 3.11 or 3.12"
        )
    return Check("python", "ok", f"Python {version}, {sys.executable}")


def _packages(_home: Home) -> Check:
    """A package of somebody else's with one of our names: the start would have refused one on our path already."""
    from lab.main import foreign_package

    foreign = foreign_package()
    if foreign is not None:
        return Check(
            "packages",
            "fail",
            f"a foreign package named {foreign[0]!r} hides ours: {foreign[1]}",
            "take its folder off PYTHONPATH",
        )
    near = [
        n
        for n in ("core", "jobs", "lanes", "kernels")
        if (Path.cwd() / n / "__init__.py").is_file() and not _ours(Path.cwd() / n)
    ]
    if near:
        return Check(
            "packages",
            "warn",
            f"this folder has a package named {near[0]!r} like one of ours",
            "`lab` is not disturbed, `python -m lab` from here would be",
        )
    return Check("packages", "ok", "core, jobs, lanes and kernels are ours")


def _ours(folder: Path) -> bool:
    return folder.resolve().parent == Path(__file__).resolve().parent.parent


def _home(home: Home) -> Check:
    refuse_unsafe_filesystem(home.path)
    if not home.path.exists():
        return Check("home", "warn", f"{home.path} does not exist yet", "`lab init` or the first `lab submit` makes it")
    if not os.access(home.path, os.W_OK):
        return Check("home", "fail", f"{home.path} cannot be written to", "set LAB_HOME to a folder of yours")
    mode = home.path.stat().st_mode & 0o777
    if mode & 0o022:
        return Check("home", "warn", f"{home.path} can be written by others (mode {mode:o})", f"chmod go-w {home.path}")
    return Check("home", "ok", str(home.path))


def _disk(home: Home) -> Check:
    from lab.output import human

    folder = home.path
    while not folder.exists():
        folder = folder.parent
    info = os.statvfs(folder)
    free = info.f_bavail * info.f_frsize
    if info.f_favail < 1000 and info.f_files:
        return Check("disk", "fail", f"{info.f_favail} files can still be made at {folder}", "remove files there")
    if free < _LEAST_DISK // 8:
        return Check(
            "disk",
            "fail",
            f"{human.size(free)} free at {folder}",
            "free some space: submits and commits will be refused",
        )
    if free < _LEAST_DISK:
        return Check("disk", "warn", f"{human.size(free)} free at {folder}", "free some space soon")
    return Check("disk", "ok", f"{human.size(free)} free at {folder}")


def _journal(home: Home) -> Check:
    """Opens it as a reader (which compares it with its witness), then looks at every page."""
    from core.journal import Journal, query
    from lab.output import human

    if not home.journal.exists() and not home.witness.exists():
        return Check("journal", "ok", "none yet")
    with Journal.open(home) as journal:
        verdict = str(journal.conn.execute("PRAGMA quick_check(1)").fetchone()[0])
        if verdict != "ok":
            return Check(
                "journal", "fail", f"{home.journal} is damaged ({verdict})", "`lab down`, then `lab doctor --recover`"
            )
        events, jobs = journal.last_seq(), sum(query.counts(journal.conn).values())
    if (home.path / "damaged").exists():
        return Check(
            "journal",
            "warn",
            f"{events:,} events, {jobs:,} jobs; an earlier damage is kept in {home.path / 'damaged'}",
            "`lab doctor --recover` sets it aside",
        )
    backups = len(list(home.backups.glob("journal-*.db"))) if home.backups.is_dir() else 0
    known = f"{human.count(events, 'event')}, {human.count(jobs, 'job')}, {human.count(backups, 'backup')}"
    return Check("journal", "ok", f"{known}; not shorter than its witness")


def _cluster(home: Home) -> Check:
    from core.cluster import load

    found = load(home.cluster_file)
    names = ", ".join(lane.name for lane in found.lanes)
    return Check("cluster.yaml", "ok", f"{found.path or 'none: the one lane of this machine'}: {names}")


def _controller(home: Home) -> Check:
    from core.journal import Journal, query
    from core.states import JobState
    from lanes.start import controller_alive, lock_held

    alive = controller_alive(home)
    if alive and not lock_held(home.guardian_lock):
        return Check("controller", "warn", "it runs without its guardian", "`lab up` starts one")
    if alive:
        return Check("controller", "ok", "it runs")
    if home.journal.exists():
        with Journal.open(home) as journal:
            counts, wanted = query.counts(journal.conn), query.down_wish(journal.conn)
        waiting = counts.get(JobState.QUEUED, 0)
        begun = counts.get(JobState.RUNNING, 0) + counts.get(JobState.CANCELLING, 0)
        if (waiting or begun) and wanted is None:
            told = [f"{human.count(waiting, 'job')} {'waits' if waiting == 1 else 'wait'}"] if waiting else []
            told += [f"{human.count(begun, 'job')} {'runs' if begun == 1 else 'run'} without it"] if begun else []
            return Check(
                "controller",
                "warn",
                f"it does not run: {', '.join(told)}",
                f"`lab up` starts it; {home.controller_log} says why it ended",
            )
    return Check("controller", "ok", "it does not run, and nothing waits for it")


def _sockets(home: Home) -> Check:
    """Our sockets live in a short folder: the system allows 107 bytes. Old ones of a dead controller do no harm."""
    from lanes.start import controller_alive

    folder = home.runtime
    if len(os.fsencode(folder)) > _LONGEST_SOCKET - 60:
        return Check("sockets", "fail", f"the path {folder} is too long for sockets", "use a shorter path for the home")
    if not folder.exists():
        return Check("sockets", "ok", "none: nothing was started since the last reboot")
    info = folder.lstat()
    if info.st_uid != os.getuid() or folder.is_symlink():
        return Check("sockets", "fail", f"{folder} is not yours", "remove it, or ask who made it")
    if info.st_mode & 0o077:
        return Check(
            "sockets", "warn", f"{folder} is open to others (mode {info.st_mode & 0o777:o})", f"chmod 700 {folder}"
        )
    stale = [p.name for p in folder.iterdir() if p.is_socket()] if not controller_alive(home) else []
    if stale:
        return Check(
            "sockets",
            "warn",
            f"left by a controller that is gone: {', '.join(sorted(stale)[:4])} in {folder}",
            "`lab up` replaces them",
        )
    return Check("sockets", "ok", str(folder))


def _kinds(_home: Home) -> Check:
    from core.kind import entry_points, load_kind

    found = sorted(entry_points())
    if not found:
        return Check("kinds", "fail", "no kind is registered", "install lab into this environment: pip install .")
    broken = []
    for name in found:
        try:
            load_kind(name)
        except LabError as error:
            broken.append(error.message)
    if broken:
        return Check("kinds", "fail", "; ".join(broken), "repair or uninstall the package that registers it")
    return Check("kinds", "ok", ", ".join(found))


def _ray(_home: Home) -> Check:
    """Importing Ray in this process would cost a second and memory: its metadata and a child process tell as much."""
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return Check("ray", "fail", "Ray is not installed", "pip install 'ray>=2.60,<2.61'")
    if not version.startswith("2.60."):
        return Check("ray", "warn", f"Ray {version}; lab is tried with 2.60", "pip install 'ray>=2.60,<2.61'")
    ran = tools.run([sys.executable, "-P", "-c", "import ray; print(ray.__version__)"], within_s=120)
    if not ran.ok:
        return Check("ray", "fail", f"Ray {version} cannot be imported: {ran.line}", "reinstall it")
    if ran.line != version:
        return Check(
            "ray", "warn", f"Ray {version} is installed, and {ran.line} is imported", "see what is on PYTHONPATH"
        )
    return Check("ray", "ok", f"Ray {version}")
