"""What the kind `audit` does: read, make everything again, list every check, and fail if one of them fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import JobFailed
from core.fsio import write_atomic
from core.kind import Context
from jobs.audit.ledger import Ledger, Unauditable
from jobs.audit.package import Data, Drawn, Judge, check_data, check_extractor, check_line, check_redrawn, check_samples
from jobs.audit.reading import Arrays, file_digest
from jobs.audit.results import check_evaluation, check_nearest
from jobs.audit_kind import SAID

if TYPE_CHECKING:
    from jobs.audit_kind import AuditParams

SCHEMA = "lab.audit/1"
ALWAYS = ("data", "extractor")
FILES = {
    "data": ("data.npz", "data.json"),
    "extractor": ("extractor.npz", "contract.json", "reference.npz"),
    "train": ("model.npz", "config.json"),
    "sample": ("samples.npz", "samples.json"),
    "eval": ("evaluation.json", "features.npz"),
    "nn": ("nn.npz", "nn.json"),
}


def run(ctx: Context) -> None:
    """Audit what is given.

    Raises:
        JobFailed: a check failed.
    """
    p: AuditParams = ctx.params
    ctx.expect(artifacts=[SAID])
    found = audit(p, lambda name: ctx.input(name) if ctx.has_input(name) else None)
    write_atomic(ctx.artifact(SAID), json.dumps(found.document(), indent=1, allow_nan=False) + "\n")
    ctx.results("audit", [entry.row() for entry in found.ledger.entries])
    wrong = found.ledger.failed
    for name in FILES:
        about = [entry for entry in found.ledger.entries if entry.of == name]
        ctx.log(f"{name}: {len(about)} checks, {sum(not entry.passed for entry in about)} failed")
    for entry in wrong:
        ctx.log(f"FAILED {entry.sentence()}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise JobFailed(f"the audit failed: {wrong[0].sentence()}{more}", hint=f"all checks are in {SAID}")


class Found:
    """What an audit found: the ledger, the digests of the files it read, and the numbers that it made."""

    def __init__(self, tolerance: float) -> None:
        self.ledger = Ledger(tolerance)
        self.files: dict[str, dict[str, Any]] = {}
        self.made: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """For the artifact."""
        return {
            "schema": SCHEMA,
            "checks": [entry.row() for entry in self.ledger.entries],
            "failed": len(self.ledger.failed),
            "files": self.files,
            "recomputed": self.made,
        }


def audit(p: AuditParams, where: Callable[[str], Path | None]) -> Found:
    """All checks over the folders that there are; `where` says which."""
    found = Found(p.tolerance)
    ledger, made = found.ledger, found.made
    folders = {name: _folder(found, name, where(name), name in (*ALWAYS, *p.require)) for name in FILES}
    data: Data | None = None
    judge: Judge | None = None
    drawn: Drawn | None = None
    config: dict[str, Any] | None = None
    encoder: Arrays | None = None
    # Each after what it needs; what could not be read is a failed check by then.
    if (folder := folders["data"]) is not None:
        with ledger.section("data"):
            data = check_data(ledger, folder)
            made["data"] = data.digest
    if (folder := folders["extractor"]) is not None:
        with ledger.section("extractor"):
            judge = check_extractor(ledger, folder, _there("data", data), p.contract)
            made |= {"contract": judge.contract, "extractor": judge.digest}
            made["reference"] = _there("data", data).splits["reference"].content
    if (folder := folders["sample"]) is not None:
        with ledger.section("sample"):
            drawn = check_samples(ledger, folder, _there("data", data), p.least_n)
            made |= {"n": len(drawn.pictures.names), "n_unique": drawn.pictures.different}
            made["samples"] = drawn.pictures.content
    if (folder := folders["train"]) is not None:
        with ledger.section("train"):
            config, encoder = check_line(ledger, folder, _there("data", data), _there("sample", drawn))
            if p.redraw:
                check_redrawn(ledger, folder, config, _there("sample", drawn), p.pixel)
    if (folder := folders["eval"]) is not None:
        with ledger.section("eval"):
            if folders["train"] is not None and encoder is None:
                raise Unauditable("the training, which could not be read")
            three = _there("data", data), _there("extractor", judge), _there("sample", drawn)
            made["eval"] = check_evaluation(ledger, folder, *three, config, encoder)
    if (folder := folders["nn"]) is not None:
        with ledger.section("nn"):
            made["nn"] = check_nearest(ledger, folder, _there("data", data), _there("sample", drawn))
    return found


def _folder(found: Found, name: str, folder: Path | None, needed: bool) -> Path | None:
    """The folder if there is one, with each of its files hashed; a file that is missing is a failed check."""
    if folder is None:
        if needed:
            found.ledger.holds(name, "there is one", "a folder", "none was given", False)
        return None
    for file in sorted({*FILES[name], *(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())}):
        try:
            digest, size = file_digest(folder / file)
        except Unauditable as error:
            found.ledger.holds(name, f"file {file}", "there and readable", str(error), False)
            continue
        found.files[f"{name}/{file}"] = {"sha256": digest, "bytes": size}
        if file in FILES[name]:
            found.ledger.holds(name, f"file {file}", "there and readable", digest, size > 0)
    return folder


def _there(name: str, value: Any) -> Any:
    """Raises Unauditable: it could not be read before."""
    if value is None:
        raise Unauditable(f"{name}, which could not be read")
    return value
