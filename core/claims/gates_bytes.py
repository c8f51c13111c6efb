"""Gates on single jobs: identity, bytes, override."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.claims.evidence import Cited, Evidence
from core.claims.words import WAIVED_CAP, Change, Finding, Gate, capped, missing, passed, refused, worst

_NONE = ("", "n/a", "na", "none", "unknown", "null", "?")
_ENVIRONMENT = ("python", "platform")
# Jobs whose result depends on random numbers: they must say with which seed.
_SEEDED = ("train", "sample")


def identity(evidence: Evidence) -> Finding:
    """Code tree, configuration, environment, seed and input digests of every cited job are known."""
    gate = Gate.IDENTITY
    found = [missing(gate, f"{role}: {why}") for role, why in evidence.unresolved.items()]
    for cited in evidence.jobs:
        wrong = list(_unidentified(cited))
        if wrong:
            found.append(missing(gate, f"{_who(cited)} {'; '.join(wrong)}", (cited.job,)))
    if not evidence.cited:
        found.append(missing(gate, "no cited job could be found"))
    dirty = [c.job for c in evidence.jobs if any(code.dirty for code in c.code)]
    said = f"code, configuration, environment, seed and inputs of {len(evidence.jobs)} jobs are known by digest"
    if dirty:
        said += f" ({len(dirty)} of them ran from a tree with uncommitted changes, which is kept)"
    return worst(found, passed(gate, said, jobs=len(evidence.jobs), dirty=len(dirty)))


def _unidentified(cited: Cited) -> Iterator[str]:
    if cited.key != cited.key_now:
        yield f"has the key {cited.key[:12]}, and its spec gives {cited.key_now[:12] or 'none'}"
    if not cited.code:
        yield "does not say which code ran"
    for code in cited.code:
        if not _known(code.digest):
            yield "has no digest of its code"
        elif not code.stored:
            yield f"ran code {code.digest[:12]} of which no copy is kept"
    for name in _ENVIRONMENT:
        if not _known(cited.environment.get(name)):
            yield f"does not say its {name}"
    packages = cited.environment.get("packages")
    if not isinstance(packages, Mapping):
        yield "does not say which packages it had"
        packages = {}
    for name, version in packages.items():
        if not _known(version):
            yield f"does not say its version of {name}"
    seed = cited.params.get("seed")
    if cited.own in _SEEDED and (isinstance(seed, bool) or not isinstance(seed, int)):
        yield f"has no seed (it says {seed!r})"
    for name, digest in cited.inputs.items():
        if not _known(digest):
            yield f"does not say what its input {name} was"
    if cited.undeclared:
        yield f"read what it had not declared: {', '.join(cited.undeclared[:3])}"


def _known(value: Any) -> bool:
    return value is not None and str(value).strip().lower() not in _NONE


def bytes_(evidence: Evidence) -> Finding:
    """Every cited artefact and table is there, and hashes now to what was sealed."""
    gate = Gate.BYTES
    found: list[Finding] = []
    count = 0
    for cited in evidence.jobs:
        if not cited.succeeded:
            found.append(missing(gate, f"{_who(cited)} {cited.state}: it committed nothing", (cited.job,)))
            continue
        if not cited.files:
            why = cited.problems[0] if cited.problems else "it keeps no files"
            found.append(missing(gate, f"{_who(cited)}: {why}", (cited.job,)))
            continue
        count += len(cited.files)
        for file in cited.files:
            if file.now != file.sealed:
                how = file.problem or "its bytes differ from what was sealed"
                change = Change(file.path, file.sealed, file.now, cited.job)
                said = f"{file.path} of job {cited.job} ({cited.role}): {how}"
                said += f" (sealed {file.sealed[:12]}, now {file.now[:12] or 'nothing'})"
                found.append(Finding(gate, refused(gate, "").outcome, said, None, {}, (cited.job,), (change,)))
        for problem in cited.problems:
            found.append(missing(gate, f"{_who(cited)}: {problem}", (cited.job,)))
    if not evidence.cited:
        found.append(missing(gate, "no cited job could be found"))
    return worst(
        found, passed(gate, f"{count} files of {len(evidence.jobs)} jobs hash to what was sealed", files=count)
    )


def override(evidence: Evidence) -> Finding:
    """No check was relaxed; where one was, somebody says so and why, and that caps the claim."""
    gate = Gate.OVERRIDE
    found: list[Finding] = []
    given = {(w.job, w.gate): w for w in evidence.waivers}
    for cited in evidence.jobs:
        for waiver in cited.waivers:
            said = f"{_who(cited)} waived {waiver.gate}: {waiver.why or 'no reason given'}"
            found.append(capped(gate, WAIVED_CAP, said, (cited.job,)))
        if cited.relaxed and not cited.waivers:
            flags = ", ".join(cited.relaxed)
            typed = given.get((cited.job, gate))
            if typed is None:
                said = f"{_who(cited)} ran with {flags}, and no waiver says who allowed it and why"
                found.append(missing(gate, said, (cited.job,), relaxed=list(cited.relaxed)))
            else:
                said = f"{_who(cited)} ran with {flags}, waived by {typed.who}: {typed.why}"
                found.append(capped(gate, WAIVED_CAP, said, (cited.job,), relaxed=list(cited.relaxed)))
    found += [
        capped(gate, WAIVED_CAP, f"{w.who} waived {w.gate} for job {w.job}: {w.why}", (w.job,))
        for w in evidence.waivers
        if w.gate != gate
    ]
    return worst(found, passed(gate, "no check was relaxed", waivers=0))


def _who(cited: Cited) -> str:
    return f"job {cited.job} ({cited.role})"
