"""What a job may be given in Python beside its parameters: one list for jobs, sweeps and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from core.study import Take
    from lab.asked import Request
    from lab.handles import Job


class Options(TypedDict, total=False):
    """As `lab submit` has them: needs={"cores": 2, "memory_mb": "2G"}, limits={"time_s": "10m"}, after=[job], ..."""

    name: str
    needs: Mapping[str, Any] | None
    limits: Mapping[str, Any] | None
    inputs: Sequence[str | Path] | Mapping[str, str | Path]
    code: str | Path | None
    env: Mapping[str, str] | None
    outputs: Sequence[str]
    expect: Mapping[str, Any] | None
    after: Sequence[Job | int | str] | Job | int | str
    key: str | None
    priority: int
    tags: Sequence[str]
    note: str
    held: bool
    force: bool
    retries: Mapping[str, int] | None
    allow_undeclared: Sequence[str | Path]
    on_unreachable: str


def request_of(
    kind: str,
    params: Mapping[str, Any],
    *,
    name: str = "",
    needs: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    inputs: Sequence[str | Path] | Mapping[str, str | Path] = (),
    code: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
    expect: Mapping[str, Any] | None = None,
    after: Sequence[Job | int | str] | Job | int | str = (),
    key: str | None = None,
    priority: int = 0,
    tags: Sequence[str] = (),
    note: str = "",
    held: bool = False,
    force: bool = False,
    retries: Mapping[str, int] | None = None,
    allow_undeclared: Sequence[str | Path] = (),
    on_unreachable: str = "wait",
    takes: Mapping[str, Job | int | tuple[Job | int, str]] | None = None,
) -> Request:
    """The request for one job of `kind`."""
    from lab.asked import Request

    return Request(
        kind=kind,
        params=dict(params),
        name=name,
        needs=needs or {},
        limits=limits or {},
        inputs=_inputs(inputs),
        code=code,
        env=env or {},
        outputs=list(outputs),
        expect=expect or {},
        after=_after(after),
        takes=_takes(takes or {}),
        idem=key,
        priority=priority,
        tags=list(tags),
        note=note,
        held=held,
        force=force,
        retries=retries or {},
        allow_undeclared=[str(p) for p in allow_undeclared],
        on_unreachable=on_unreachable,
        argv=("python",),
        literal=True,
    )


def _after(given: Sequence[Job | int | str] | Job | int | str) -> list[str]:
    each = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    return [x if isinstance(x, str) else str(x if isinstance(x, int) else x.id) for x in each]


def _takes(given: Mapping[str, Job | int | tuple[Job | int, str]]) -> list[Take]:
    from core.study import Take

    out = []
    for name, what in given.items():
        job, file = what if isinstance(what, tuple) else (what, "")
        out.append(Take(name, job if isinstance(job, int) else job.id, file))
    return out


def _inputs(given: Sequence[str | Path] | Mapping[str, str | Path]) -> list[str]:
    if isinstance(given, Mapping):
        return [f"{name}={path}" for name, path in given.items()]
    return [str(given)] if isinstance(given, (str, Path)) else [str(path) for path in given]
