"""`lab --head HOST ...`: the same command on the lab's head, over the user's own ssh. Nothing else is loaded for it.

lab --head head.example status
lab --head head.example:projects/scan submit parity --wait
LAB_HEAD=head.example lab top

What the command is on the head says $LAB_HEAD_COMMAND (`lab` by itself). Files that are named are the head's. After the
colon comes the folder there in which the command runs, as `scp` has it; without one it is the home folder.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import BadInput, Exit, LabError, NotFound, Unavailable
from core.hosts import check_host, check_port, check_user

HEAD = "LAB_HEAD"
COMMAND = "LAB_HEAD_COMMAND"
_VALUED = ("--home",)  # options before the command that take a word
_SSH_FAILED, _NOT_FOUND, _NOT_RUN = 255, 127, 126
_LOCAL = ("--install-completion", "--show-completion")


@dataclass(frozen=True)
class Head:
    """Where a command is to run.

    Attributes:
        target: what ssh is given: HOST, USER@HOST or ssh://USER@HOST:PORT.
        folder: the working folder there; empty: where a login begins.
    """

    target: str
    folder: str = ""


def asked(args: Sequence[str], env: Mapping[str, str]) -> tuple[Head | None, list[str]]:
    """(where the command is to run, or None: here; its words without --head).

    Only options before the command count: what follows it may be a program's own.

    Raises:
        BadInput: a host that is none.
    """
    rest = list(args)
    i, word = 0, None
    while i < len(rest) and rest[i].startswith("-") and rest[i] != "--":
        name, equals, value = rest[i].partition("=")
        if name == "--head":
            if not equals and i + 1 >= len(rest):
                raise BadInput("--head names no host", hint="write lab --head HOST status")
            word = value if equals else rest[i + 1]
            del rest[i : i + (1 if equals else 2)]
            continue
        i += 2 if name in _VALUED and not equals else 1
    if word is None:
        word = env.get(HEAD) or ""
        if not word or env.get("_LAB_COMPLETE") or set(rest) & set(_LOCAL):
            return None, rest
        return read(word, f"${HEAD}"), rest
    # `--head ""`: here, whatever the variable says.
    return (read(word, "--head") if word else None), rest


def read(word: str, option: str) -> Head:
    """A host as people write it.

    Raises:
        BadInput: it is none, or could be taken for an option or for more than one word.
    """
    if word.startswith("ssh://"):
        found = re.fullmatch(r"ssh://(?:([^@/]+)@)?(\[[^\]]+\]|[^:/@]+)(?::(\d+))?/?", word)
        if found is None:
            raise BadInput(f"{option} {word!a} is no host", hint="write ssh://USER@HOST:PORT")
        user, host, port = found.groups()
        named = f"[{check_host(host)}]" if host.startswith("[") else check_host(host)
        target = f"{check_user(user)}@{named}" if user else named
        return Head(f"ssh://{target}:{check_port(int(port))}" if port else f"ssh://{target}")
    place, colon, folder = word.partition(":")
    if word.count(":") > 1 and not place.rpartition("@")[2].strip("[]"):
        place, colon, folder = word, "", ""
    user, at, host = place.rpartition("@")
    try:
        target = f"{check_user(user)}@{check_host(host)}" if at else check_host(host)
    except BadInput as error:
        raise BadInput(f"{option}: {error.message}", hint="write HOST, USER@HOST or HOST:FOLDER") from None
    if colon and (not folder or folder.isdigit()):
        raise BadInput(
            f"{option} {word!a} names no folder after the colon",
            hint=f"write {target}:FOLDER; a port goes into ~/.ssh/config, or as ssh://{target}:PORT",
        )
    if any(ord(c) < 32 or ord(c) == 127 for c in folder) or folder.startswith("-"):
        raise BadInput(f"{option} {word!a} names a folder that is none", hint=f"write {target}:FOLDER")
    return Head(target, folder)


def command(head: Head, args: Sequence[str], env: Mapping[str, str], *, terminal: bool, ssh: str = "ssh") -> list[str]:
    """The words of ssh. What follows the host is read by the shell there: each word of ours is quoted.

    $LAB_HEAD_COMMAND is not: it may be several words, and hold `~`.

    Raises:
        BadInput: a word that no quoting can carry.
    """
    program = env.get(COMMAND) or "lab"
    for word in (program, *args):
        if "\0" in word or (word is program and "\n" in word):
            raise BadInput(f"the word {word!a} cannot be sent to the head", hint="leave it out")
    # The head may have the variable too, and must not go on to yet another machine, or to itself for ever.
    line = " ".join(["env", f"{HEAD}=", program, *(shlex.quote(a) for a in args)])
    if head.folder:
        line = f"cd {_folder(head.folder)} && {line}"
    return [ssh, *(["-t"] if terminal else []), "--", head.target, line]


def run(head: Head, args: Sequence[str]) -> int:
    """Run the command there, with our own stdin, stdout and stderr. Returns its exit code.

    Raises:
        LabError: ssh is not there, cannot reach the head, or `lab` is not there.
    """
    ssh = shutil.which("ssh")
    if ssh is None:
        raise NotFound("there is no ssh on this machine", hint="install the OpenSSH client")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    argv = command(head, args, os.environ, terminal=terminal, ssh=ssh)
    sys.stdout.flush()
    process = subprocess.Popen(argv)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:  # ssh has it too, and passes it on or ends
            continue
    if code < 0:
        return Exit.INTERRUPTED if -code == signal.SIGINT else 128 - code
    if code in (_SSH_FAILED, _NOT_FOUND, _NOT_RUN):
        raise _trouble(head, code)
    if code in (Exit.BAD_INPUT, Exit.NOT_FOUND):
        for word in only_here(args):
            sys.stderr.write(f"lab: {word} is a file of this machine; with --head, files are those of {head.target}\n")
    return code


def only_here(args: Sequence[str]) -> list[str]:
    """Words that name something on this machine, where the head was meant to have it."""
    found = []
    for word in args:
        if word == "--":
            break
        value = word.rpartition("=")[2]
        if value and not value.startswith("-") and os.path.lexists(os.path.expanduser(value)):
            found.append(value)
    return found


def _folder(folder: str) -> str:
    """Quoted, but for a `~/` at the beginning, which the shell there must see."""
    if folder == "~":
        return "~"
    return "~/" + shlex.quote(folder[2:]) if folder.startswith("~/") else shlex.quote(folder)


def _trouble(head: Head, code: int) -> LabError:
    if code == _SSH_FAILED:
        return Unavailable(f"ssh could not run the command on {head.target}", hint=f"try it: ssh {head.target}")
    program = os.environ.get(COMMAND) or "lab"
    verb = "is not found" if code == _NOT_FOUND else "cannot be run"
    return NotFound(
        f"{program!r} {verb} on {head.target} by a login that runs one command",
        hint=f"say where it is: export {COMMAND}=/PATH/TO/lab",
    )
