"""What `drift-contract` does: every check of a package, listed, and a failure if one of them fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from core.errors import BadInput, JobFailed
from core.fsio import write_atomic
from core.kind import Context
from jobs.dose.npz import read_npz
from jobs.drift.contract import read_extractor
from jobs.drift.contract_checks import (
    Check,
    data_checks,
    equal,
    evaluation_checks,
    extractor_checks,
    failed,
    leakage_checks,
    lineage_checks,
    nearest_checks,
    sample_checks,
)
from jobs.drift.given import read_data, read_document, read_samples, read_trained
from jobs.drift_kinds.contract import ContractParams
from jobs.drift_kinds.names import (
    CONTRACT_AUDIT,
    DATA,
    EVAL,
    EVALUATION,
    EXTRACTOR,
    FEATURES,
    NEAREST_SAID,
    NN,
    SAMPLE,
    TRAIN,
)

SCHEMA = "lab.contract-audit/1"
_T = TypeVar("_T")


def run(ctx: Context) -> None:
    """Check what is given.

    Raises:
        JobFailed: a check failed. All are in the log and in the artifact.
    """
    p: ContractParams = ctx.params
    ctx.expect(artifacts=[CONTRACT_AUDIT])
    checks = check_package(p, lambda name: ctx.input(name) if ctx.has_input(name) else None)
    rows = [check.row() for check in checks]
    write_atomic(ctx.artifact(CONTRACT_AUDIT), json.dumps({"schema": SCHEMA, "checks": rows}, indent=1) + "\n")
    ctx.results("drift_contract", rows)
    wrong = failed(checks)
    ctx.log(f"{len(checks)} checks, {len(wrong)} failed")
    for check in wrong:
        ctx.log(f"FAILED {check.sentence()}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise JobFailed(
            f"the contract does not hold: {wrong[0].sentence()}{more}", hint=f"all of them are in {CONTRACT_AUDIT}"
        )


def check_package(p: ContractParams, where: Callable[[str], Path | None]) -> list[Check]:
    """All checks over the folders that there are. A file that cannot be read is a check that failed."""
    checks: list[Check] = []

    def read(name: str, reader: Callable[[Path], _T]) -> _T | None:
        folder = where(name)
        if folder is None:
            if name in (DATA, EXTRACTOR, *p.require):
                checks.append(Check(name, "there is one", "a folder", "none was given", False))
            return None
        try:
            return reader(folder)
        except BadInput as error:
            checks.append(Check(name, "it can be read", "all of its files", error.message, False))
            return None

    data, extractor = read(DATA, read_data), read(EXTRACTOR, read_extractor)
    samples, trained = read(SAMPLE, read_samples), read(TRAIN, read_trained)
    evaluation = read(EVAL, lambda folder: (read_document(folder / EVALUATION), read_npz(folder / FEATURES)))
    near = read(NN, lambda folder: read_document(folder / NEAREST_SAID))
    if data is not None:
        checks += data_checks(data)
    if extractor is not None and data is not None:
        checks += extractor_checks(extractor, data)
    if extractor is not None and p.contract:
        checks.append(equal("extractor", "the contract that was asked for", p.contract, extractor.contract.sha256))
    if samples is not None and data is not None:
        checks += sample_checks(samples, data, p.least_n)
    if trained is not None and samples is not None and data is not None:
        checks += lineage_checks(trained, samples, data)
    if trained is not None and extractor is not None:
        checks += leakage_checks(trained, extractor, evaluation[0] if evaluation is not None else None)
    if evaluation is not None and extractor is not None and samples is not None:
        checks += evaluation_checks(*evaluation, extractor, samples)
    if near is not None and data is not None and samples is not None:
        checks += nearest_checks(near, data, samples)
    return checks
