"""Candidates that silently read a stale file: every reader, from every place. Run inline, and inside an attempt.

`python -m tests.jobs.stale FOLDER` prints the answers as JSON, for a run in a lane.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from core import marks
from jobs.parity import program
from jobs.parity.program import Format, Image
from jobs.parity.watch import How, Place, Watched, mismatch

STALE = "Fdump.bin"
PLACES = {
    "folder": "its working folder",
    "parent": "a parent folder",
    "home": "the home folder",
    "tmp": "the temporary folder",
    "cache": "the home folder",
    "elsewhere": "",  # as the tests' own folder happens to lie
}
C_READER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char buffer[16];
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0 || read(fd, buffer, sizeof buffer) <= 0) return 3;
    FILE *out = fopen("image.bin", "wb");
    fwrite(buffer, 1, 4, out);
    return fclose(out);
}
"""
PY_READER = "import sys; open('image.bin', 'wb').write(open(sys.argv[1], 'rb').read(4))"
# Orphaned, in another session, without an environment: only a mark that is inherited still tells whose it is.
ORPHAN = (
    '(setsid env -i /bin/sh -c \'cat "$1" > /dev/null; : > done\' sh "$1" &)'
    " ; while [ ! -e done ]; do sleep 0.01; done; rm done; echo im > image.bin"
)


@functools.cache
def compiler() -> str | None:
    return shutil.which("cc")


def readers(folder: Path) -> dict[str, list[str]]:
    """argv by name; the file to read comes last."""
    found = {
        "python": [sys.executable, "-c", PY_READER],
        "cat": ["/bin/sh", "-c", 'cat "$1" > image.bin', "sh"],
        "orphan": ["/bin/sh", "-c", ORPHAN, "sh"],
    }
    if compiler():
        source, program = folder / "reader.c", folder / "reader"
        if not program.exists():
            source.write_text(C_READER)
            subprocess.run([str(compiler()), "-o", str(program), str(source)], check=True)
        found["c"] = [str(program)]
    return found


def put(root: Path, where: str, place: Place) -> tuple[Path, str]:
    """The stale file, and the name by which the candidate opens it."""
    home = Path("~").expanduser()
    path, name = {
        "folder": (place.work / STALE, STALE),
        "parent": (place.base / STALE, f"../{STALE}"),
        "home": (home / STALE, str(home / STALE)),
        "cache": (home / ".cache" / "thing" / STALE, str(home / ".cache" / "thing" / STALE)),
        "tmp": (Path(tempfile.gettempdir()) / STALE, str(Path(tempfile.gettempdir()) / STALE)),
        "elsewhere": (root / "elsewhere" / STALE, str(root / "elsewhere" / STALE)),
    }[where]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"stale bytes")
    return path, name


def watched(base: Path, argv: list[str], place: Place | None = None, **changes: Any) -> Watched:
    settings: dict[str, Any] = {"outputs": ("image.bin",), "declared": (Path(argv[0]),), **changes}
    place = place or Place.make(base)
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    return Watched(argv, place, env=env, log=base / "log.txt", **settings)


def answer(candidate: Watched) -> dict[str, Any]:
    code = candidate.wait(60)
    seen = candidate.seen()
    return {
        "code": code,
        "tail": candidate.tail(),
        "how": str(seen.how),
        "note": seen.note,
        "undeclared": [[f.path, f.where] for f in seen.undeclared],
        "left": list(seen.left),
        "mismatch": mismatch(seen.undeclared),
    }


def scenario(root: Path, how: How = How.AUTO) -> dict[str, dict[str, Any]]:
    """All readers and places, once each undeclared and once declared, and two candidates at the same time."""
    answers: dict[str, dict[str, Any]] = {}
    number = iter(range(1000))
    programs = readers(root)
    for reader, argv in programs.items():
        for where in PLACES:
            base = root / "runs" / str(next(number))
            place = Place.make(base)
            path, name = put(root, where, place)
            candidate = watched(base, [*argv, name], place, how=how)
            answers[f"{reader} {where}"] = {**answer(candidate), "path": str(path.resolve())}
            if where in ("parent", "home"):
                again = root / "runs" / str(next(number))
                candidate = watched(again, [*argv, str(path)], declared=(Path(argv[0]), path), how=how)
                answers[f"{reader} {where} declared"] = answer(candidate)
            path.unlink()
    bases = [root / "runs" / "a", root / "runs" / "b"]
    stale, _ = put(root, "elsewhere", Place.make(bases[0]))
    both = [
        watched(bases[0], [*programs["cat"], str(stale)], Place.make(bases[0]), how=how),
        watched(bases[1], ["/bin/sh", "-c", "echo im > image.bin; echo x > kept.tmp; cat kept.tmp"], how=how),
    ]
    answers["first of two"], answers["second of two"] = (answer(c) for c in both)
    return answers


def programs(root: Path) -> list[str]:
    """The reasons for a mismatch of one external program with a stale file beside its folder, and of one without."""
    image = Image(Format.FLOAT32, (1,))
    script = """echo '{{"text": "x"}}' > "$2"; cat ../Fdump.bin "$0" 2> /dev/null | head -c 4 > "$1" """
    argv = ["/bin/sh", "-c", script, "{grid}", "{output}", "{digest}"]
    (root / "grid").write_bytes(b"1234")
    reasons = []
    for name in ("with", "without"):
        base = root / "programs" / name
        base.mkdir(parents=True)
        if name == "with":
            (base / STALE).write_bytes(b"stale")
        report = program.run(argv, base, files={"grid": root / "grid"}, image=image)
        assert (report.code, report.error) == (0, ""), report
        reasons.append(report.mismatch(hashlib.sha256(b"x").hexdigest()))
    return reasons


def alone(root: Path) -> dict[str, Any]:
    """In an attempt, but without knowing of its supervisor: the kernel allows no second listener."""
    os.environ.pop(marks.LOG)
    stale, name = put(root, "elsewhere", Place.make(root / "alone"))
    said = answer(watched(root / "alone", [*readers(root)["python"], name], Place.make(root / "alone")))
    return {**said, "path": str(stale)}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "answers.json").write_text(json.dumps(scenario(folder)))
    (folder / "programs.json").write_text(json.dumps(programs(folder)))
    (folder / "alone.json").write_text(json.dumps(alone(folder)))
