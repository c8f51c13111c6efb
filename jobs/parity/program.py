"""An external program as a candidate: a command that writes floats, held against the oracle like any backend.

The command is a list of words with placeholders ("{hkl}", "{output}", "{digest}"), run without a shell in an empty
folder. Besides its image it writes what it really computed from (its effective input), in canonical words that the
kernel documents, so that two programs with different inputs are never compared. docs/external-programs.md is the
page for whoever writes one.
"""

from __future__ import annotations

import os
import re
import shutil
import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.declared import SYSTEM
from core.errors import BadInput, JobFailed
from jobs.parity.exchange import save
from jobs.parity.watch import Found, How, Place, Watched, mismatch
from jobs.parity.written import Format as Format
from jobs.parity.written import Image as Image
from jobs.parity.written import Unusable, difference, read, told

PLACEHOLDERS = ("output", "digest")
POLL_S = 0.02
TAIL = 4000
_PYTHON = re.compile(r"(python|pypy)[\d.]*")
_SHELL = frozenset(("|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1"))
_PASSED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class ProgramReport:
    """What became of one run of the program.

    Attributes:
        output: an .npy of float32 or float64, in C order and of the shape that was asked for; None if there is none.
        told_digest: SHA-256 of the effective input that it told; None if it told none.
        told: the canonical words themselves, where it wrote them.
        digest_error: why there is no digest, or "".
        undeclared: files that it opened and that were not declared.
        left: files that it left besides its outputs.
        code: its exit code, -N for a signal.
        tail: the end of what it printed.
        watch: how it was watched, or why not and what is therefore not seen.
        error: why there is no usable output, or "".
        seconds: from its start to its end.
    """

    output: Path | None
    told_digest: str | None
    told: str
    digest_error: str
    undeclared: tuple[Found, ...]
    left: tuple[str, ...]
    code: int
    tail: str
    watch: str
    error: str
    seconds: float

    def mismatch(self, expected: str, text: str = "") -> str:
        """Why it did not work on what the oracle worked on, or "".

        Args:
            expected: SHA-256 of the oracle's effective input.
            text: its canonical words: then the first line that differs is named.
        """
        why = mismatch(self.undeclared)
        if why:
            return why
        if self.error and self.told_digest is None:
            return ""  # it came to nothing, which says more than a digest that is not there
        if self.told_digest is None:
            return f"it told no effective input: {self.digest_error}"
        if self.told_digest == expected:
            return ""
        return difference(self.told, text) or f"the input is {expected[:12]} here and {self.told_digest[:12]} there"


def check(argv: Sequence[str], names: Iterable[str], image: Image) -> None:
    """Refuse a command that cannot work, before anything starts.

    Args:
        names: placeholders that the kernel offers besides {output} and {digest}.

    Raises:
        BadInput: one sentence about the first thing that is wrong.
    """
    known = (*names, *PLACEHOLDERS)
    if not argv or not argv[0].strip():
        raise BadInput("the program's command is empty", hint="give a program and its arguments")
    used: set[str] = set()
    for word in argv:
        used |= _placeholders(word, known)
    if _placeholders(argv[0], known):
        raise BadInput(f"the program itself is a placeholder: {argv[0]}", hint="name the program by its path")
    for name in PLACEHOLDERS:
        if name not in used:
            what = "its floats go" if name == "output" else "its effective input goes"
            raise BadInput(f"the command does not say where {what}", hint=f"pass {{{name}}} as an argument")
    shell = next((word for word in argv if word in _SHELL), None)
    if shell is not None:
        raise BadInput(f"the command is run without a shell, so {shell!r} means nothing", hint="put it into a script")
    _resolve(argv[0])
    if not image.shape or any(n < 1 for n in image.shape):
        raise BadInput(f"an image of shape {image.shape} holds nothing", hint="give lengths above 0")
    if image.array and image.format is not Format.NPZ:
        raise BadInput(f"only an npz holds arrays with names, not {image.format}", hint="leave the name out")


def files_of(argv: Sequence[str]) -> dict[str, Path]:
    """The files that the command itself names, to be declared as inputs: the program, scripts, tables.

    Programs of the system's own (/usr/bin/env) and Python itself, which is more than one file, are left out.
    Returns name -> absolute path.
    """
    found: dict[str, Path] = {}
    for number, word in enumerate(argv):
        path = Path(_resolve(word)) if number == 0 else Path(word.rpartition("=")[2])
        if number and not (path.is_absolute() and path.is_file()):
            continue
        if str(path.resolve()).startswith(tuple(p + "/" for p in SYSTEM)) or _PYTHON.fullmatch(path.name):
            continue
        name = "program" if number == 0 else f"program-{number}-{path.name}"
        found[name] = path
    return found


class Program:
    """One run of an external program, polled from the run's own loop.

    Args:
        argv: the command, as `check` takes it.
        base: a fresh folder for it, its log and its image.
        files: placeholder -> the declared file that it stands for.
        image: what it must write.
        declared: more files and folders that it may read.
        put: declared files to copy into its working folder, by the names that they shall have there.
        outputs: names (patterns) of further files that it may leave in its working folder.
        env: variables to add to the few that it gets.
        gpus: what CUDA may show to it; None leaves that as it is here.
        time_s: it is ended after so many seconds.

    Raises:
        BadInput: the command or the folder cannot be used.
        NotStarted: there is no such program, or it cannot be watched as `how` says.
    """

    def __init__(
        self,
        argv: Sequence[str],
        base: Path,
        *,
        files: Mapping[str, Path],
        image: Image,
        declared: Sequence[Path] = (),
        put: Mapping[str, Path] | None = None,
        outputs: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        threads: int = 1,
        gpus: str | None = "",
        time_s: float = 3600.0,
        how: How = How.AUTO,
    ) -> None:
        check(argv, files, image)
        self._image, self._time_s, self._base = image, time_s, base
        place = Place.make(base, put)
        self._output, self._digest = place.work / image.format.file, place.work / "digest.json"
        names = {**{name: str(path.absolute()) for name, path in files.items()}}
        names |= {"output": str(self._output), "digest": str(self._digest)}
        own = files_of(argv)
        self._late = False
        self._report: ProgramReport | None = None
        self._begun = time.monotonic()
        self._watched = Watched(
            [_resolve(argv[0]), *(word.format_map(names) for word in argv[1:])],
            place,
            env=_environment(env or {}, threads, gpus),
            log=base / "log.txt",
            declared=(*files.values(), *own.values(), *declared, *(put or {}).values()),
            outputs=(self._output.name, self._digest.name, *outputs),
            how=how,
        )

    def poll(self) -> ProgramReport | None:
        """The report once it has ended, else None."""
        if self._report is None:
            code = self._watched.poll()
            if code is None and time.monotonic() - self._begun > self._time_s:
                self._late = True
                self._watched.stop()
                code = self._watched.poll()
            if code is not None:
                self._report = self._look(code, time.monotonic() - self._begun)
        return self._report

    def stop(self) -> None:
        """End it and all that it started."""
        self._watched.stop()

    def _look(self, code: int, seconds: float) -> ProgramReport:
        seen = self._watched.seen()
        output, error = None, self._ended(code)
        if not error:
            try:
                made = self._watched.made(self._output)
                array = read(self._output, self._image, made)
                output = self._base / "image.npy"
                save(output, array)
            except Unusable as unusable:
                output, error = None, str(unusable)
        digest, words, why = told(self._digest)
        tail = self._watched.tail(TAIL)
        return ProgramReport(
            output, digest, words, why, seen.undeclared, seen.left, code, tail, seen.note, error, seconds
        )

    def _ended(self, code: int) -> str:
        if self._late:
            return f"the program ran longer than its time limit of {self._time_s:g} s"
        if code < 0:
            return f"the program was ended by signal {-code}"
        return f"the program ended with exit code {code}" if code else ""


def run(
    argv: Sequence[str], base: Path, *, stopping: Callable[[], bool] = lambda: False, **settings: Any
) -> ProgramReport:
    """Run a program to its end; arguments as `Program` takes them.

    Args:
        stopping: asked while it runs; when true, the program is ended.

    Raises:
        BadInput, NotStarted: as `Program`.
        JobFailed: it was ended because `stopping` said so.
    """
    program = Program(argv, base, **settings)
    try:
        while True:
            report = program.poll()
            if report is not None:
                return report
            if stopping():
                raise JobFailed("the program was ended because the run was asked to stop")
            time.sleep(POLL_S)
    finally:
        program.stop()


def _placeholders(word: str, known: Sequence[str]) -> set[str]:
    """Names in braces in one word of a command."""
    listed = ", ".join(f"{{{name}}}" for name in known)
    found = set()
    if "\0" in word:
        raise BadInput(f"a word of the command holds a zero byte: {word!r}", hint="take it out")
    try:
        parts = list(string.Formatter().parse(word))
    except ValueError as error:
        raise BadInput(f"braces in {word!r} do not match", hint="write {{ and }} for plain ones") from error
    for _text, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in known or spec or conversion:
            raise BadInput(f"{word!r} has a placeholder that is none of {listed}", hint="write {{ and }} for braces")
        found.add(name)
    return found


def _resolve(name: str) -> str:
    """The program's absolute path.

    Raises:
        BadInput: there is none, or it would be looked for in the empty working folder.
    """
    if "/" in name and not os.path.isabs(name):
        raise BadInput(
            f"the program {name} is a relative path, but it starts in an empty folder", hint="give the whole"
        )
    found = shutil.which(name)
    if found is None:
        there = os.path.exists(name)
        hint = "make it executable" if there else "name it by its absolute path"
        raise BadInput(f"the program {name} {'may not be executed' if there else 'is not there'}", hint=hint)
    return os.path.abspath(found)


def _environment(extra: Mapping[str, str], threads: int, gpus: str | None) -> dict[str, str]:
    """Few variables, all said here: what a shell happened to export is no input of anybody's."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    env.setdefault("PATH", os.defpath)
    env.setdefault("LANG", "C.UTF-8")
    env.update(dict.fromkeys(_THREADS, str(threads)))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") if gpus is None else gpus
    if gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpus
    return {**env, **extra}
