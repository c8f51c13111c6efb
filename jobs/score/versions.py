"""What the evaluator's own interpreter is: its Python, and the packages that are installed there.

The evaluator runs in a process of its own, often in an environment of its own; what our process has says nothing of it.
"""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import JobFailed

_LIMIT_S = 120.0
# Runs there, with Python 3.8 or later. An import's name is not its package's: `cv2` is of opencv-python.
_ASK = """
import importlib.metadata as known, json, platform, sys
wanted, found, used = set(sys.argv[1:]), {}, {}
for one in known.distributions():
    about = one.metadata
    name, version = about["Name"], about["Version"]
    if not name or name in found:
        continue  # the first on the path is the one that is imported
    found[name] = version
    record = "\\n" + (one.read_text("RECORD") or "")  # searched and not parsed: some have ten thousands of lines
    if any("\\n" + top + end in record for top in wanted for end in ("/", ".")) or (
        wanted & set((one.read_text("top_level.txt") or "").split())
    ):
        used[name] = version
print(json.dumps({"python": platform.python_version(), "implementation": sys.implementation.name,
                  "packages": found, "used": used}))
"""


class InterpreterFailed(JobFailed):
    """The evaluator's Python cannot be asked what it is."""

    slug = "evaluator-failed"


@dataclass(frozen=True)
class Interpreter:
    """What a Python said of itself.

    Attributes:
        python: its version; implementation: `cpython` or another.
        packages: name -> version of all that is installed; used: of those that the evaluator's modules import.
    """

    python: str
    implementation: str
    packages: Mapping[str, str]
    used: Mapping[str, str]

    @property
    def used_json(self) -> str:
        """The packages that are imported, as JSON with sorted names."""
        return json.dumps(dict(sorted(self.used.items(), key=lambda item: item[0].lower())))

    def json(self) -> str:
        """All of it, for people."""
        named = {"python": self.python, "implementation": self.implementation}
        return json.dumps({**named, "used": dict(self.used), "packages": dict(self.packages)}, indent=1, sort_keys=True)


def ask(interpreter: Path, imports: Iterable[str], env: Mapping[str, str], cwd: Path) -> Interpreter:
    """Ask the evaluator's Python, in the evaluator's environment.

    Args:
        imports: first parts of what the evaluator imports.

    Raises:
        InterpreterFailed: it cannot be started, does not answer, or is too old.
    """
    try:
        done = subprocess.run(
            [str(interpreter), "-c", _ASK, *sorted(imports)],
            env=dict(env),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
        said = json.loads(done.stdout) if done.returncode == 0 else {}
        return Interpreter(said["python"], said["implementation"], said["packages"], said["used"])
    except OSError as error:
        raise InterpreterFailed(f"the evaluator's python {interpreter} cannot be started: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        last = done.stderr.strip().splitlines()[-1:] if not isinstance(error, subprocess.TimeoutExpired) else []
        raise InterpreterFailed(
            f"the evaluator's python {interpreter} does not say what is installed there"
            + (f": {last[0]}" if last else ""),
            hint="name an interpreter of Python 3.8 or later with --set python=PATH",
        ) from None


def imports_of(modules: Iterable[Path]) -> set[str]:
    """The first part of everything that these Python files import, the files themselves left out."""
    own, found = set(), set()
    for path in modules:
        own.add(path.stem)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # not all of a checkout need be of use
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - own
