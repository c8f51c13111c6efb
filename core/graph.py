"""Dependencies between the jobs of one submit: their order, or the circle that makes an order impossible."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

N = TypeVar("N", bound=Hashable)


def order(needs: Mapping[N, Iterable[N]]) -> list[N]:
    """The nodes so that each comes after all that it needs; among equals, in the order in which they were given.

    Args:
        needs: node -> the nodes that it waits for. Nodes that are only waited for are left out of the answer.

    Raises:
        ValueError: there is a cycle; `cycle` names it.
    """
    out: list[N] = []
    state: dict[N, bool] = {}  # False: being visited, True: done
    for start in needs:
        if start in state:
            continue
        # Without recursion: a chain of ten thousand jobs is no reason to fail.
        stack = [(start, iter(list(needs[start])))]
        state[start] = False
        while stack:
            node, rest = stack[-1]
            for other in rest:
                if other not in needs or state.get(other):
                    continue
                if other in state:
                    raise ValueError("there is a cycle")
                state[other] = False
                stack.append((other, iter(list(needs[other]))))
                break
            else:
                state[node] = True
                out.append(node)
                stack.pop()
    return out


def cycle(needs: Mapping[N, Iterable[N]]) -> list[N]:
    """One cycle as [a, b, ..., a], each node waiting for the next; empty when there is none."""
    done: set[N] = set()
    for start in needs:
        if start in done:
            continue
        path: list[N] = [start]
        on_path = {start}
        stack = [iter(list(needs[start]))]
        while stack:
            for other in stack[-1]:
                if other in on_path:
                    return [*path[path.index(other) :], other]
                if other in needs and other not in done:
                    path.append(other)
                    on_path.add(other)
                    stack.append(iter(list(needs[other])))
                    break
            else:
                stack.pop()
                finished = path.pop()
                on_path.discard(finished)
                done.add(finished)
    return []
