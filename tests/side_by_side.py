"""`make test`: all tests in parts, six processes side by side; whoever ends takes the next part, the longest first.

Lanes mostly wait, so that six take a third of the time of one. Each process has a folder of its own.

    python -m tests.side_by_side [-m MARK] [--at-once N] [--only PART ...]
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 6
# Each file belongs to the first part that names it; those that take longest begin first. "core" takes what is left.
PARTS: dict[str, tuple[str, ...]] = {
    "links": ("tests/lanes/remote/test_link_lab.py", "tests/lanes/test_lab_net.py", "tests/lanes/test_kills.py"),
    "far": ("tests/lanes/remote/*",),
    "pools": (
        "tests/lanes/pool/*",
        "tests/lanes/test_pool_controller.py",
        "tests/lanes/test_sweeps.py",
        "tests/lanes/test_twins.py",
        "tests/lanes/test_unlike.py",
    ),
    "lanes": ("tests/lanes/test_*.py",),
    "parity": ("tests/jobs/test_*.py",),
    "kernels": ("tests/kernels/*",),
    "commands": ("tests/lab/test_cli*.py", "tests/lab/test_sweep*.py", "tests/lab/test_head.py"),
    "people": ("tests/lab/*",),
    "studies": ("tests/jobs/dose/*", "tests/jobs/drift/*", "tests/jobs/audit/*"),
    "trainings": ("tests/jobs/*",),
    "connections": ("tests/lanes/*",),
    "core": ("tests/*",),
}
_NOTHING = 5  # pytest: no test was collected


def parts() -> dict[str, list[str]]:
    """The files of each part."""
    out: dict[str, list[str]] = {name: [] for name in PARTS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        out[next(part for part, patterns in PARTS.items() if any(_is(name, p) for p in patterns))].append(name)
    return {part: files for part, files in out.items() if files}


def _is(name: str, pattern: str) -> bool:
    """As a shell has it: a star stops at a slash, but one at the end stands for all below."""
    if pattern.endswith("/*"):
        return name.startswith(pattern[:-1])
    return name.count("/") == pattern.count("/") and fnmatch(name, pattern)


class Part:
    """One pytest at work, in a folder of its own."""

    def __init__(self, name: str, files: list[str], mark: str, folder: Path) -> None:
        self.name = name
        self.began = time.monotonic()
        self.log = folder / f"{name}.log"
        argv = [sys.executable, "-m", "pytest", "-m", mark, f"--basetemp={folder / name}", *files]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def told(self) -> str:
        text = self.log.read_text(errors="replace").rstrip()
        return re.sub(r"^[.sx]+ *\[ *\d+%\]\n", "", text, flags=re.MULTILINE)  # who waits has seen enough dots


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m tests.side_by_side")
    words.add_argument("-m", dest="mark", default="not long")
    words.add_argument("--at-once", type=int, default=AT_ONCE)
    words.add_argument("--only", nargs="*", choices=list(PARTS))
    asked = words.parse_args()
    waiting = [(n, files) for n, files in parts().items() if not asked.only or n in asked.only]
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    running: list[Part] = []
    wrong: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while waiting or running:
            while waiting and len(running) < asked.at_once:
                running.append(Part(*waiting.pop(0), asked.mark, folder))
            time.sleep(0.2)
            for part in [p for p in running if p.process.poll() is not None]:
                running.remove(part)
                code = part.process.returncode
                good = code in (0, _NOTHING)
                wrong += [] if good else [part.name]
                took = time.monotonic() - part.began
                print(f"== {part.name}: {'passed' if good else 'FAILED'} in {took:.0f} s\n{part.told()}", flush=True)
                shutil.rmtree(folder / part.name, ignore_errors=True)
    except KeyboardInterrupt:
        return 130
    finally:
        for part in running:
            with contextlib.suppress(ProcessLookupError):
                part.process.send_signal(signal.SIGINT)  # its fixtures end what they started
        for part in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.process.wait(30)
            part.process.kill()
        shutil.rmtree(folder, ignore_errors=True)
    if wrong:
        print(f"failed: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
