"""A study: jobs and sweeps that wait for each other, written down as data. A kind may return one (`Kind.study`).

    s = Study("fidelity")
    base = s.job("train", {"seed": 1})
    dose = s.sweep("score", grid={"alpha": [0, 10, 20]}, after=[base])
    s.job("audit", takes={"model": (base, "model.npz")}, after=[s.any(dose)])

A job may take files that another makes (`takes`): it finds them as any declared input, with `ctx.input(name)`.

Once submitted it is rows of the journal and nothing else: there is no program that conducts it and could die.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.errors import BadInput
from core.graph import cycle, order
from core.grid import Grid
from core.states import Cond

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Take:
    """An input that another job makes.

    Attributes:
        name: of the input.
        job: the one that makes it: the name of a node, of a job of the same submit, or the id of a job.
        file: below that job's artifacts/: a file or a folder; empty: all of artifacts/.
        optional: that job must only have ended; where it did not succeed, the input is absent.
    """

    name: str
    job: str | int
    file: str = ""
    optional: bool = False

    @property
    def cond(self) -> Cond:
        return Cond.ANY if self.optional else Cond.OK


@dataclass(frozen=True)
class Node:
    """One job or sweep of a study.

    Attributes:
        params: of a job; a sweep's are in `grid.base`.
        after: names of nodes, and what each must have done.
        takes: inputs that other nodes make; those are in `after` too.
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
    takes: tuple[Take, ...] = ()


@dataclass(frozen=True)
class After:
    """A node, and what it must have done before another may start."""

    node: Node
    cond: Cond


# What an input may be made by: a node, or a file of it; after `Study.any` also of one that may fail.
Taken = Node | After | tuple[Node | After, str]


class Study:
    """Collects nodes. Names are checked at once, circles when the study is used.

    Attributes:
        notes: what a person should know before it is submitted, in sentences.
    """

    def __init__(self, name: str) -> None:
        self.name = _checked(name, "a study")
        self.notes: list[str] = []
        self._nodes: dict[str, Node] = {}

    def note(self, text: str) -> None:
        """Say what is known before anything runs, e.g. which conditions cannot be and why.

        Shown by `lab submit --plan` and after a submit.
        """
        self.notes.append(" ".join(text.split()))

    def job(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        *,
        after: Iterable[Node | After | str] = (),
        takes: Mapping[str, Taken] | None = None,
        name: str = "",
        needs: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Node:
        """Add a job.

        Args:
            after: nodes that must have succeeded, `any(node)` for one that must only have ended, or names of nodes.
            takes: inputs that other nodes make, by name: a node (its whole artifacts/ folder) or (node, FILE) for a
                file or folder below it. The job waits for that node. `any(node)` in the place of a node: it may also
                fail; then the input is absent, and `ctx.has_input(name)` says so.

        Raises:
            BadInput: a name is taken or cannot be one, a node is of another study, or is a sweep that is to make files.
        """
        node = self._name(name, kind)
        found = tuple(self._take(node, what, taken) for what, taken in (takes or {}).items())
        waits: list[Node | After | str] = [after] if isinstance(after, (Node, After, str)) else [*after]
        waits += [After(self._nodes[str(take.job)], take.cond) for take in found]
        return self._add(
            Node(
                study=self.name,
                name=node,
                kind=kind,
                params=dict(params or {}),
                after=self._after(waits),
                needs=dict(needs or {}),
                limits=dict(limits or {}),
                takes=found,
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
        """For `after` and `takes`: the node must have ended, however."""
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

    def _take(self, taker: str, name: str, taken: Taken) -> Take:
        what, file = taken if isinstance(taken, tuple) else (taken, "")
        node, cond = (what.node, what.cond) if isinstance(what, After) else (what, Cond.OK)
        if not isinstance(node, Node) or not isinstance(file, str):
            raise BadInput(
                f"node {taker!r} takes {name!r} from {taken!r}", hint="give a node, or (node, FILE below its artifacts)"
            )
        self._refuse_foreign(node)
        if node.grid is not None:
            raise BadInput(
                f"node {taker!r} takes {name!r} from the sweep {node.name!r}, and only jobs make files for others",
                hint="let a job take the place of each cell that is needed",
            )
        return checked_take(Take(name, node.name, file, cond is Cond.ANY), f"node {taker!r}")

    def _refuse_foreign(self, node: Node) -> None:
        if self._nodes.get(node.name) is not node:
            raise BadInput(
                f"node {node.name!r} belongs to the study {node.study!r}, not to {self.name!r}",
                hint="wait for nodes of the same study",
            )

    def _after(self, given: Iterable[Node | After | str]) -> tuple[tuple[Cond, str], ...]:
        out: dict[str, Cond] = {}
        for each in [given] if isinstance(given, (Node, After, str)) else given:
            if isinstance(each, str):
                name, cond = each, Cond.OK
            else:
                node, cond = (each.node, each.cond) if isinstance(each, After) else (each, Cond.OK)
                self._refuse_foreign(node)
                name = node.name
            # `ok` asks for more than `any`.
            out[name] = Cond.OK if Cond.OK in (cond, out.get(name)) else cond
        return tuple((cond, name) for name, cond in out.items())


def checked_take(take: Take, who: str) -> Take:
    """`take` with its file's path in plain form.

    Raises:
        BadInput: the input's name, or the file, leads outside its folder.
    """
    file = posixpath.normpath(take.file) if take.file else ""
    for what, path in ((f"{who} takes an input called", take.name), (f"{who} takes {take.name!r} from", file or "a")):
        plain = posixpath.normpath(path)
        if not path or "\0" in path or plain in (".", "..") or plain.startswith(("/", "../")):
            raise BadInput(
                f"{what} {path!r}, which leads outside its folder", hint="give a relative path below it, without .."
            )
    return replace(take, file=file)


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot be the name of {what}", hint="use letters, digits and _ . + -, a letter first")
    return name
