"""One job: the backend, the oracle, the judge, proof that the judge can say no, and the arrays that come back."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import CheckCannotFail, JobFailed
from core.kind import Context
from jobs.kernel import OWN, Params
from jobs.kernel.subjects import Case, Expected, Result, case_of
from jobs.parity.verdict import Judgement, Reference, judge, same_counts
from jobs.parity.words import Verdict
from kernels.devices import KernelRefused
from kernels.metrics import Status, errors

Array = npt.NDArray[Any]
UNCHECKED = "unchecked"
COMPLEX = "real, imaginary"


def run(ctx: Context) -> None:
    """Compute, judge, and write one row; and the arrays, where they are asked for.

    Raises:
        JobFailed: the backend's numbers are wrong, or it cannot run here.
        CheckCannotFail: the judge accepts numbers that are known to be wrong.
    """
    p: Params = ctx.params
    as_rows = p.keep and not p.large
    files = [f"{name}.arrow" for name in kept(p)] if p.large else []
    ctx.expect(rows={"kernel": 1, **({"arrays": len(kept(p))} if as_rows else {})}, artifacts=files)
    given = {n: ctx.input(n) for n in ("input", "hkl", "weights") if getattr(p, n) is not None}
    try:
        case = case_of(p, given, ctx.cores)
        result, first, seconds = timed(case, p.repeats)
    except KernelRefused as error:
        hint = "submit it with --gpus 1, to a lane that has one" if p.backend.endswith("-cuda") else ""
        raise JobFailed(f"{p.backend} {p.name}: {error}", hint=hint) from None
    told: dict[str, Any] = dict.fromkeys(("tolerance", "max_rel", "max_abs", "sum_ratio"))
    told["verdict"] = UNCHECKED
    if p.check:
        told |= checked(p, case.expect(), result)
    ctx.results("kernel", [_row(p, case, result, told, first, seconds, ctx.cores)])
    if p.keep:
        _keep(ctx, {"result": result.values, **case.arrays}, as_rows=as_rows)


def timed(case: Case, repeats: int) -> tuple[Result, float, float]:
    """The result, the seconds of the first call, and those of the quickest."""
    begun = time.perf_counter()
    result = case.compute()
    first = best = time.perf_counter() - begun
    for _ in range(repeats):
        begun = time.perf_counter()
        result = case.compute()
        best = min(best, time.perf_counter() - begun)
    return result, first, best


def checked(p: Params, expected: Expected, result: Result) -> dict[str, Any]:
    """The verdict, which is `pass` when this returns, with its numbers."""
    said = decide(expected, result)
    if said.statistics is Status.BOTH_ZERO and said.errors is not None and said.errors.max_rel <= expected.tolerance:
        raise JobFailed(
            f"the right answer of this {p.name} is 0 or the same number everywhere, so that it proves nothing: take "
            "other arrays, or check=false"
        )
    if decide(expected, spoiled(expected, result)).verdict is not Verdict.FAIL:
        raise CheckCannotFail("the judge accepts an image with one wrong pixel: its word proves nothing")
    if expected.counts and decide(expected, miscounted(result)).verdict is not Verdict.FAIL:
        raise CheckCannotFail("the judge accepts one count that is off by one: its word proves nothing")
    if said.verdict is not Verdict.PASS:
        raise JobFailed(f"{p.backend} {p.name} at {result.values.dtype} is wrong: {said.reason}")
    found = errors(expected.reference.values, result.values, expected.reference.scale)
    return {
        "verdict": str(said.verdict),
        "tolerance": expected.tolerance,
        "max_rel": found.max_rel,
        "max_abs": found.max_abs,
        "sum_ratio": found.sum_ratio,
    }


def decide(expected: Expected, result: Result) -> Judgement:
    """The judge sees arrays and numbers, never a name."""
    wrong = same_counts(expected.counts, result.counts)
    if wrong:
        return Judgement(Verdict.FAIL, wrong)
    return judge(expected.reference, result.values, expected.tolerance)


def spoiled(expected: Expected, result: Result) -> Result:
    """The result with one pixel made wrong by little: what the judge must not accept."""
    right: Reference = expected.reference
    wide = np.complex128 if np.iscomplexobj(result.values) else np.float64
    bad = np.array(result.values, dtype=wide)
    at = int(np.argmax(right.scale))
    size = float(right.scale.flat[at]) or 1.0
    bad.flat[at] = right.values.flat[at] + size * max(4 * expected.tolerance, 2.0**-40)
    return Result(bad, result.counts)


def miscounted(result: Result) -> Result:
    name = next(iter(result.counts))
    return Result(result.values, {**result.counts, name: result.counts[name] + 1})


def checksum(values: Array) -> str:
    wide = np.complex128 if np.iscomplexobj(values) else np.float64
    return hashlib.sha256(np.ascontiguousarray(values, dtype=wide).tobytes()).hexdigest()


def kept(p: Params) -> tuple[str, ...]:
    """Names of the arrays that come back."""
    return ("result", *{"translation": ("images", "offsets"), "fcell": (), "postfilter": ("frames",)}[p.name])


def _keep(ctx: Context, arrays: dict[str, Array], *, as_rows: bool) -> None:
    """Small arrays as rows, large ones as files that can be mapped: neither is copied when it is read."""
    if as_rows:
        ctx.results("arrays", [_as_row(name, array) for name, array in arrays.items()])
        return
    import pyarrow as pa

    for name, array in arrays.items():
        plain = np.ascontiguousarray(array)
        dims = [f"axis{n}" for n in range(plain.ndim)]
        if np.iscomplexobj(plain):  # which Arrow has not: a last axis of real and imaginary part says so
            plain, dims = plain.view(plain.real.dtype).reshape(*plain.shape, 2), [*dims, COMPLEX]
        tensor = pa.Tensor.from_numpy(plain, dim_names=dims)
        with pa.OSFile(str(ctx.artifact(f"{name}.arrow")), "wb") as file:
            pa.ipc.write_tensor(tensor, file)


def _as_row(name: str, array: Array) -> dict[str, Any]:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {"array": name, "dtype": little.dtype.str, "shape": list(little.shape), "values": little.tobytes()}


def _row(
    p: Params, case: Case, result: Result, told: dict[str, Any], first: float, seconds: float, threads: int
) -> dict[str, Any]:
    own = {n: getattr(p, n) for n in sorted(OWN[p.name]) if getattr(p, n) != type(p).model_fields[n].default}
    batch, height, width = case.frame
    return {
        "name": p.name,
        "backend": p.backend,
        "device": "cuda" if p.backend.endswith("-cuda") else "cpu",
        "dtype": str(result.values.dtype),
        "batch": batch,
        "height": height,
        "width": width,
        "settings": json.dumps(own),
        "seed": p.seed,
        "input_digest": case.digest,
        **told,
        "counts": json.dumps(dict(result.counts)) if result.counts else None,
        "checksum": checksum(result.values),
        "work": case.work,
        "unit": case.unit,
        "rate": case.work / seconds / 1e6,
        "seconds": seconds,
        "first_seconds": first,
        "threads": threads,
    }
