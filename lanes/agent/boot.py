"""The first thing that runs on a lane: sent as text over stdin, to whatever Python the lane has.

It keeps stdout for frames, says which Python this is, takes the shipped code if the lane lacks it, and goes over to
lanes.agent.serve. Until the version is known it must be understood by Python 2.7, so that an old Python can be named
and not merely fail: no annotations, no f-strings.
"""
# ruff: noqa: B904  (`raise from` is not known to Python 2.7)

import binascii
import hashlib
import json
import marshal
import os
import py_compile
import shutil
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing is not everywhere
    from typing import Any, Dict, Tuple  # noqa: F401

OLDEST = (3, 9)
MAGIC = b"lab\x01"  # the frames are those of lanes.agent.frames, which is not here yet
BOOT = "{}"  # what the head says: replaced by a line before this text


class Refusal(Exception):
    """This lane cannot serve: (rung, cause, message, hint)."""


def main():
    # type: () -> None
    settings = json.loads(BOOT)
    out = os.dup(1)
    os.dup2(2, 1)  # from here on nothing that prints can harm the channel
    os.write(out, settings["mark"].encode("ascii"))
    try:
        version = ".".join(str(n) for n in sys.version_info[:3])
        if sys.version_info[:2] < OLDEST:
            raise Refusal("python", "old-python", version, sys.executable or "")
        if os.name != "posix":
            raise Refusal("python", "not-posix", version, sys.executable or "")
        root = make_root(settings["root"])
        code = os.path.join(root, "agent", settings["sha"])
        note_use(code)
        if tree_digest(code) != settings["sha"]:
            say(out, {"need": settings["sha"], "python": version})
            keep_code(code, settings["sha"], *hear())
        compile_all(code)
        sys.path.insert(0, code)
        try:
            from lanes.agent import serve
        except ImportError as error:
            raise Refusal("python", "incomplete-python", "%s (Python %s)" % (error, version), sys.executable or "")
    except Refusal as why:
        say(out, {"refused": list(why.args)})
        os._exit(3)
    except Exception as error:
        full = getattr(error, "errno", None) in (28, 122)  # ENOSPC; EDQUOT of Linux
        say(out, {"refused": ["agent", "disk-full" if full else "boot", "%s: %s" % (type(error).__name__, error), ""]})
        os._exit(3)
    serve.main(settings, root, out)


def make_root(path):
    # type: (str) -> str
    """The lane's folder of ours: there, ours, writable, closed to others."""
    root = os.path.join(os.path.expanduser("~"), os.path.expanduser(path))
    try:
        os.makedirs(os.path.join(root, "agent"), 0o700, exist_ok=True)
        info = os.stat(root)
    except OSError as error:
        if error.errno in (28, 122):
            raise
        raise Refusal("agent", "root", "%s cannot be made (%s)" % (root, error.strerror), "")
    if info.st_uid != os.getuid():
        raise Refusal("agent", "root", "%s belongs to another user (uid %d)" % (root, info.st_uid), "")
    if info.st_mode & 0o077:
        os.chmod(root, 0o700)
    if not os.access(root, os.W_OK | os.X_OK):
        raise Refusal("agent", "root", "%s cannot be written" % root, "")
    return root


def note_use(code):
    # type: (str) -> None
    """Versions that nobody has used for long are removed (see lanes.agent.leftovers): from now on this one is not."""
    try:
        os.utime(code, None)
    except OSError:
        pass  # it is not there yet


def keep_code(place, sha, about, blob):
    # type: (str, str, Dict[str, Any], bytes) -> None
    """Write the shipped files beside `place` and rename the whole to it: never seen half done."""
    part = "%s.%d.%s.part" % (place, os.getpid(), binascii.hexlify(os.urandom(4)).decode("ascii"))
    try:
        at = 0
        for name, size in about["files"]:
            path = os.path.join(part, *name.split("/"))
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            with open(path, "wb") as f:
                f.write(blob[at : at + size])
                f.flush()
                os.fsync(f.fileno())
            at += size
        if tree_digest(part) != sha:
            raise Refusal("agent", "code", "the agent's code did not arrive as it was sent", "")
        if os.path.lexists(place):
            # Damaged, or left half written by a power cut. Somebody may run from it: a rename does not disturb him.
            os.rename(place, part + ".old")
            if os.path.isdir(part + ".old"):
                shutil.rmtree(part + ".old", ignore_errors=True)
            else:
                os.unlink(part + ".old")
        os.rename(part, place)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if tree_digest(place) != sha:
            raise


def compile_all(code):
    # type: (str) -> None
    """Have sound compiled files beside the code: Python leaves cut ones on a full disk, and fails on them ever after.

    Afterwards nobody has to write any, so that none can be cut. Without the room for all of them there are none.
    """
    from importlib.util import cache_from_source  # not there in Python 2.7

    sys.dont_write_bytecode = True
    for folder, names, files in os.walk(code):
        names[:] = [n for n in names if n != "__pycache__"]
        for name in files:
            path = os.path.join(folder, name)
            place = cache_from_source(path)
            if not name.endswith(".py") or is_sound(path, place):
                continue
            try:
                py_compile.compile(path, cfile=place, doraise=True)
            except (OSError, py_compile.PyCompileError):
                pass
            if not is_sound(path, place):
                for below, _, _ in list(os.walk(code)):
                    shutil.rmtree(os.path.join(below, "__pycache__"), ignore_errors=True)
                return


def is_sound(path, place):
    # type: (str, str) -> bool
    """Is `place` the compiled file of the source at `path`, from the first byte to the last?"""
    from importlib.util import MAGIC_NUMBER

    try:
        info = os.stat(path)
        with open(place, "rb") as f:
            data = f.read()
        about = struct.pack("<III", 0, int(info.st_mtime) & 0xFFFFFFFF, info.st_size & 0xFFFFFFFF)
        if data[:16] != MAGIC_NUMBER + about:
            return False
        marshal.loads(data[16:])
    except (OSError, EOFError, ValueError, TypeError):
        return False
    return True


def tree_digest(root):
    # type: (str) -> str
    """`digest` of all Python files below `root`; empty when one cannot be read."""
    found = {}
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n != "__pycache__"]
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".py"):
                try:
                    with open(path, "rb") as f:
                        found[os.path.relpath(path, root)] = f.read()
                except OSError:
                    return ""
    return digest(found)


def digest(found):
    # type: (Dict[str, bytes]) -> str
    """Sixteen hex digits that stand for these files: names, sizes and bytes."""
    total = hashlib.sha256()
    for name in sorted(found):
        total.update(("%s\0%d\0" % (name, len(found[name]))).encode("utf-8"))
        total.update(found[name])
    return total.hexdigest()[:16]


def say(out, message):
    # type: (int, Dict[str, Any]) -> None
    """One frame to the head (a small one)."""
    text = json.dumps(message).encode("ascii")
    head = struct.pack(">4sIII", MAGIC, len(text), 0, binascii.crc32(text) & 0xFFFFFFFF)
    data = head + struct.pack(">I", binascii.crc32(head) & 0xFFFFFFFF) + text
    while data:
        data = data[os.write(out, data) :]


def hear():
    # type: () -> Tuple[Dict[str, Any], bytes]
    """One frame of the head: (message, blob). Not cut in parts, whatever its size."""
    head = _exactly(20)
    magic, text, blob, crc, check = struct.unpack(">4sIIII", head)
    if magic != MAGIC or binascii.crc32(head[:-4]) & 0xFFFFFFFF != check:
        raise Refusal("agent", "code", "what the head sent arrived damaged", "")
    data = _exactly(text + blob)
    if binascii.crc32(data) & 0xFFFFFFFF != crc:
        raise Refusal("agent", "code", "what the head sent arrived damaged", "")
    return json.loads(data[:text].decode("ascii")), data[text:]


def _exactly(size):
    # type: (int) -> bytes
    pieces = []
    while size:
        piece = os.read(0, min(size, 1 << 16))
        if not piece:
            os._exit(3)  # the head went away
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


if __name__ == "__main__":
    main()
