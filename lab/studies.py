"""Studies become requests: a kind that says it is a DAG of others is submitted as that DAG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.errors import BadInput, LabError
from core.kind import Kind
from core.study import Node, Study
from lab.asked import Request
from lab.params import check
from lab.planning import Preparer

_NODES = "let its nodes be jobs and sweeps of other kinds"


def unfold(preparer: Preparer, requests: Sequence[Request]) -> list[Request]:
    """`requests`, with the nodes of its study in the place of each whose kind has one."""
    out: list[Request] = []
    for request in requests:
        try:
            out += _unfolded(preparer, request)
        except LabError as error:
            if request.where and not error.message.startswith(request.where):
                raise type(error)(f"{request.where}: {error.message}", hint=error.hint) from None
            raise
    return out


def _unfolded(preparer: Preparer, request: Request) -> list[Request]:
    kind = preparer.kind(request.kind)
    if request.grid is not None:
        if type(kind).study is not Kind.study:
            raise BadInput(f"kind {kind.name} is a study, and the cells of a sweep cannot be studies", hint=_NODES)
        return [request]
    study = study_of(kind, request)
    if study is None:
        return [request]
    out = nodes(study, request)
    for node, made in zip(study.nodes(), out, strict=True):
        if made.grid is None and study_of(preparer.kind(made.kind), made) is not None:
            raise BadInput(f"node {node.name!r} of study {study.name!r} is itself a study", hint=_NODES)
    return out


def study_of(kind: Kind, request: Request) -> Study | None:
    """The study that this job is, or None where it is a job (or a sweep, whose cells must be jobs)."""
    if type(kind).study is Kind.study or request.grid is not None:
        return None
    params, _ = check(kind, request.params, literal=request.literal)
    return kind.study(params)


def nodes(study: Study, like: Request) -> list[Request]:
    """A request for each node. What was said of the whole (tags, priority, needs, ...) is said of each.

    Raises:
        BadInput: the study is not sound, or what was asked for cannot be said of a study.
    """
    inputs = [*like.inputs, *like.takes]
    for word, given in (("inputs", inputs), ("outputs", like.outputs), ("expectations", like.expect)):
        if given:
            raise BadInput(
                f"{like.kind} is a study of several jobs, and {word} belong to one job", hint="leave them out"
            )
    out = [_request(node, like, f"{study.name}/") for node in study.nodes()]
    return [replace(out[0], notes=(*like.notes, *study.notes)), *out[1:]]


def _request(node: Node, like: Request, prefix: str) -> Request:
    after = tuple(f"{cond}:{prefix}{name}" for cond, name in node.after)
    takes = tuple(replace(take, job=f"{prefix}{take.job}") for take in node.takes)
    return replace(
        like,
        kind=node.kind,
        params=dict(node.params),
        name=prefix + node.name,
        needs={**like.needs, **node.needs},
        limits={**like.limits, **node.limits},
        # What the study waits for, its first nodes wait for.
        after=after or tuple(like.after),
        takes=takes,
        idem=f"{like.idem}/{node.name}" if like.idem is not None else None,
        literal=True,
        grid=node.grid,
        words={},
        at_once=node.at_once,
        max_fails=node.max_fails,
        study=node.study,
        notes=(),
    )
