"""The rung of the environment: the interpreter that kinds will run in has what the ladder's jobs need."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from lanes.admission.look import LookFailed, look
from lanes.admission.words import Access, RungResult, Tools
from lanes.joined.checks import here, refusal
from lanes.transport import LinkRefused, RemoteError

OLDEST = (3, 11)  # what kinds run on
# Distribution -> its module: what the parity probe and most kinds import.
NEEDED: Mapping[str, str] = {
    "pydantic": "pydantic",
    "numpy": "numpy",
    "numba": "numba",
    "pyarrow": "pyarrow",
    "scikit-image": "skimage",
    "matplotlib": "matplotlib",
}
# Looked for, and no harm if they are not there: more backends are held against the oracle.
OPTIONAL = ("torch", "tensorflow", "scipy", "ray")

__all__ = ["NEEDED", "OPTIONAL", "climb", "judge", "python_of"]


def python_of(access: Access, hello: Mapping[str, Any]) -> str:
    """The interpreter on the lane in which kinds run."""
    return access.interpreter or str(hello.get("executable") or access.config.python or "python3")


def climb(access: Access, tools: Tools, hello: Mapping[str, Any]) -> RungResult:
    """Ask the lane's interpreter for its version and packages, importing those that are needed."""
    python = python_of(access, hello)
    try:
        found = look(
            access, tools, "packages", python=python, names=[*NEEDED, *OPTIONAL], imports=list(NEEDED.values())
        )
    except (LookFailed, RemoteError, LinkRefused) as error:
        return RungResult(False, str(error), f"then: lab lane probe {access.name}", {"python": python})
    judged = judge(access.name, python, found, _here())
    if judged.ok and access.config.transport == "joined":
        return _joins(access.name, python, found, judged)
    return judged


def _joins(name: str, python: str, found: Mapping[str, Any], judged: RungResult) -> RungResult:
    """A joined lane's interpreter must also fit the head's Ray."""
    versions = found.get("versions") or {}
    said = {"python": str(found.get("python")), "ray": versions.get("ray"), "executable": python}
    refused = refusal(name, said, here())
    if refused is None:
        return judged
    return RungResult(False, refused.message, refused.hint, judged.evidence)


def judge(name: str, python: str, found: Mapping[str, Any], here: Mapping[str, str]) -> RungResult:
    """Does this interpreter do? Pure.

    Args:
        found: as `lanes.agent.machine.packages` tells it.
        here: the head's own versions: a difference is told, not judged.
    """
    remedy = f"`lab lane provision {name}` makes an environment there, or name another interpreter with `python:`"
    evidence = {"asked": python, **found}
    if found.get("error"):
        return RungResult(False, f"the interpreter of {name} cannot be used: {found['error']}", remedy, evidence)
    version = str(found.get("python") or "0")
    if tuple(int(w) for w in version.split(".")[:2]) < OLDEST:
        least = ".".join(map(str, OLDEST))
        text = f"{python} on {name} is Python {version}, and kinds need {least} or newer"
        return RungResult(False, text, remedy, evidence)
    versions: Mapping[str, str | None] = found.get("versions") or {}
    missing = [p for p in NEEDED if versions.get(p) is None]
    if missing:
        packages = f"package {missing[0]}" if len(missing) == 1 else f"packages {', '.join(missing)}"
        text = f"the {packages} {'is' if len(missing) == 1 else 'are'} missing from {python} on {name}"
        return RungResult(False, text, remedy, {**evidence, "missing": missing})
    broken: Mapping[str, str] = found.get("broken") or {}
    if broken:
        module, why = next(iter(broken.items()))
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        return RungResult(False, f"{module} cannot be imported by {python} on {name}: {why}{more}", remedy, evidence)
    other = [f"{p} {versions[p]} (here {here[p]})" for p in NEEDED if p in here and versions[p] != here[p]]
    extra = [p for p in OPTIONAL if versions.get(p)]
    said = f"Python {version} with all {len(NEEDED)} packages that the probe needs"
    said += f", and {', '.join(extra)}" if extra else ""
    said += f"; other versions than here: {', '.join(other)}" if other else ""
    return RungResult(True, said, evidence=evidence)


def _here() -> dict[str, str]:
    found = {}
    for name in NEEDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
