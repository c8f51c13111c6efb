"""A study: jobs and sweeps that wait for each other, written down as data. A kind may return one (`Kind.study`).

    s = Study("fidelity")
    base = s.job("train", {"seed": 1})
    dose = s.sweep("score", grid={"alpha": [0, 10, 20]}, after=[base])
    s.job("audit", after=[s.any(dose)])

Once submitted it is rows of the journal and nothing else: there is no program that conducts it and could die.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import BadInput
from core.graph import cycle, order
from core.grid import Grid
from core.states import Cond

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Node:
    """One job or sweep of a study.

    Attributes:
        params: of a job; a sweep's are in `grid.base`.
        after: names of nodes, and what each must have done.
        needs, limits: as `core.spec.Needs` and `Limits`; what is not named is as the submit or the kind says.
    """

    study: str
    name: str
    kind: str
    params: Mapping[str, Any]
    grid: Grid | None = None
    after: tuple[tuple[Cond, str], ...] = ()
    at_once: int | None = None
    max_fails: int | None = None
    needs: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class After:
    """A node, and what it must have done before another may start."""

    node: Node
    cond: Cond


class Study:
    """Collects nodes. Names are checked at once, circles when the study is used."""

    def __init__(self, name: str) -> None:
        self.name = _checked(name, "a study")
        self._nodes: dict[str, Node] = {}

    def job(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        *,
        after: Iterable[Node | After | str] = (),
        name: str = "",
        needs: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Node:
        """Add a job.

        Args:
            after: nodes that must have succeeded, `any(node)` for one that must only have ended, or names of nodes.
        """
        return self._add(
            Node(
                study=self.name,
                name=self._name(name, kind),
                kind=kind,
                params=dict(params or {}),
                after=self._after(after),
                needs=dict(needs or {}),
                limits=dict(limits or {}),
            )
        )

    def sweep(
        self,
        kind: str,
        *,
        grid: Mapping[str, Iterable[Any]],
        zip: Iterable[Iterable[str]] | Iterable[str] = (),
        exclude: Iterable[Mapping[str, Any]] = (),
        base: Mapping[str, Any] | None = None,
        at_once: int | None = None,
        max_fails: int | None = None,
        after: Iterable[Node | After | str] = (),
        name: str = "",
        needs: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Node:
        """Add a sweep: a job for each cell of `grid` (see `Grid.of`). What waits for it waits for all of its cells."""
        return self._add(
            Node(
                study=self.name,
                name=self._name(name, kind),
                kind=kind,
                params={},
                grid=Grid.of(grid, zip=zip, exclude=exclude, base=base),
                after=self._after(after),
                at_once=at_once,
                max_fails=max_fails,
                needs=dict(needs or {}),
                limits=dict(limits or {}),
            )
        )

    @staticmethod
    def any(node: Node) -> After:
        """For `after`: the node must have ended, however."""
        return After(node, Cond.ANY)

    def nodes(self) -> list[Node]:
        """All nodes, each after those that it waits for.

        Raises:
            BadInput: there is none, one waits for a name that is not there, or they wait in a circle.
        """
        if not self._nodes:
            raise BadInput(f"the study {self.name!r} has no nodes", hint="add one with study.job or study.sweep")
        needs = {node.name: [other for _, other in node.after] for node in self._nodes.values()}
        for name, others in needs.items():
            for other in others:
                if other not in self._nodes:
                    raise BadInput(
                        f"node {name!r} of study {self.name!r} waits for {other!r}, which is no node of it",
                        hint=f"there are: {', '.join(self._nodes)}",
                    )
        circle = cycle(needs)
        if circle:
            raise BadInput(
                f"nodes of study {self.name!r} wait for each other: {' -> '.join(circle)}", hint="remove one `after`"
            )
        return [self._nodes[name] for name in order(needs)]

    def _add(self, node: Node) -> Node:
        if node.name in self._nodes:
            raise BadInput(f"study {self.name!r} has two nodes called {node.name!r}", hint="rename one")
        for what, number, least in (("at_once", node.at_once, 1), ("max_fails", node.max_fails, 0)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < least):
                hint = f"give a whole number from {least} upwards"
                raise BadInput(f"{what} of node {node.name!r} is {number!r}", hint=hint)
        self._nodes[node.name] = node
        return node

    def _name(self, given: str, kind: str) -> str:
        if given:
            return _checked(given, "a node")
        name, n = kind, 1
        while name in self._nodes:
            n += 1
            name = f"{kind}-{n}"
        return _checked(name, "a node")

    def _after(self, given: Iterable[Node | After | str]) -> tuple[tuple[Cond, str], ...]:
        out: dict[str, Cond] = {}
        for each in [given] if isinstance(given, (Node, After, str)) else given:
            if isinstance(each, str):
                name, cond = each, Cond.OK
            else:
                node, cond = (each.node, each.cond) if isinstance(each, After) else (each, Cond.OK)
                if self._nodes.get(node.name) is not node:
                    raise BadInput(
                        f"node {node.name!r} belongs to the study {node.study!r}, not to {self.name!r}",
                        hint="wait for nodes of the same study",
                    )
                name = node.name
            # `ok` asks for more than `any`.
            out[name] = Cond.OK if Cond.OK in (cond, out.get(name)) else cond
        return tuple((cond, name) for name, cond in out.items())


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot be the name of {what}", hint="use letters, digits and _ . + -, a letter first")
    return name
