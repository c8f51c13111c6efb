"""The evaluator's checkout: which files of it make the score, what its evaluate.py can be told, what git says of it."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadInput
from core.fsio import digest, sha256_file

EVALUATE, MODELS = "evaluate.py", "models"
NEEDED_OPTIONS = ("--submission-dir", "--uncompressed-dir", "--video-names-file", "--report", "--device")
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Layout:
    """Names in a checkout of what goes into a score, relative to it.

    Attributes:
        videos: the folder of the original video; names: the file that lists what is in it.
        also: more files or folders that its evaluate.py needs.
    """

    videos: str = "videos"
    names: str = "public_test_video_names.txt"
    also: tuple[str, ...] = ()

    def parts(self, checkout: Path) -> dict[str, Path]:
        """Name -> path of each file and folder that makes the score, its own Python modules first.

        Raises:
            BadInput: one is missing, or a file is a Git LFS pointer in place of what it stands for.
        """
        if not (checkout / EVALUATE).is_file():
            raise BadInput(f"{checkout} has no {EVALUATE}: it is no checkout of the evaluator", hint="name another")
        found = {path.name: path for path in sorted(checkout.glob("*.py"))}
        wanted = [self.videos, self.names, *self.also]
        wanted += [MODELS] if (checkout / MODELS).is_dir() else []
        for name in dict.fromkeys(wanted):
            path = checkout / name
            if not path.exists():
                raise BadInput(f"the checkout {checkout} has no {name}", hint="get it, or say what it is called there")
            found[name] = path
        for path in found.values():
            for file in files_below(path).values():
                with file.open("rb") as opened:
                    if opened.read(len(_POINTER)) == _POINTER:
                        raise BadInput(
                            f"{file} is a Git LFS pointer, not the file itself", hint="run `git lfs pull` there"
                        )
        return found


def files_below(path: Path) -> dict[str, Path]:
    """Relative name -> file; of a file, itself under ""."""
    if path.is_file():
        return {"": path}
    return {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}


def scorer_digest(parts: Mapping[str, Path]) -> str:
    """SHA-256 over names and contents of all that makes the score: code, networks, video."""
    rows = [
        [f"{name}/{rel}" if rel else name, sha256_file(file)]
        for name, path in parts.items()
        for rel, file in files_below(path).items()
    ]
    return digest(sorted(rows))


def original_bytes(videos: Path) -> int:
    """Bytes of the uncompressed video: of every file below the folder, as the evaluator counts them."""
    return sum(file.stat().st_size for file in files_below(videos).values())


def video_names(path: Path) -> list[str]:
    """The videos that are evaluated.

    Raises:
        BadInput: none, one twice, or one that leads outside.
    """
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names:
        raise BadInput(f"{path} names no video", hint="name one a line")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInput(f"{path} names {name!r}, which leads outside of the videos", hint="correct it")
    if len(set(names)) != len(names):
        raise BadInput(f"{path} names a video twice", hint="name each once")
    return names


def raw_names(names: Iterable[str]) -> list[str]:
    """What the decoder writes for each video: its name without the ending, and `.raw`."""
    return [os.path.splitext(name)[0] + ".raw" for name in names]


def options_of(evaluate: Path) -> set[str]:
    """The options that this evaluate.py takes, read from its source: it is not run for that.

    Raises:
        BadInput: it is no Python, or lacks an option that a scoring needs.
    """
    try:
        tree = ast.parse(evaluate.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise BadInput(f"{evaluate} is no Python: {error}", hint="name another checkout") from None
    found = {
        word.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for word in call.args
        if isinstance(word, ast.Constant) and isinstance(word.value, str) and word.value.startswith("--")
    }
    missing = [name for name in NEEDED_OPTIONS if name not in found]
    if missing:
        raise BadInput(
            f"{evaluate} takes no {', '.join(missing)}: it is another version of the evaluator", hint="name another"
        )
    return found


def git_says(checkout: Path, names: Sequence[str]) -> tuple[str | None, bool | None]:
    """(commit, does one of these files differ from it), or (None, None) where nothing says."""
    if not (checkout / ".git").exists():
        return None, None
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    base = ["git", "-c", "core.fsmonitor=false", "-C", str(checkout)]
    try:
        commit = subprocess.run([*base, "rev-parse", "HEAD"], env=env, capture_output=True, text=True)
        status = subprocess.run(
            [*base, "status", "--porcelain", "--untracked-files=all", "--ignored", "--", *names],
            env=env,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return None, None
    if commit.returncode or status.returncode:
        return None, None
    lines = [line for line in status.stdout.splitlines() if "__pycache__" not in line]
    return commit.stdout.strip(), bool(lines)


def short(sha256: str) -> str:
    return sha256[:12]


def report_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
