"""The jobs of one submit that wait for each other: in which order they can be recorded, or why in none."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import BadInput
from core.graph import cycle, order
from lab.params import unknown_name
from lab.planning import Prepared, PreparedSweep


def in_order(prepared: Sequence[Prepared | PreparedSweep]) -> list[int]:
    """Places of `prepared` so that what others of the same submit wait for comes first.

    Raises:
        BadInput: they wait for each other in a circle, a name is missing, or stands for two jobs.
    """
    named: dict[str, int] = {}
    wanted = {what for p in prepared for _, what in p.after if isinstance(what, str)}
    for place, p in enumerate(prepared):
        name = p.request.name
        if name in wanted and name in named:
            raise BadInput(_at(p, f"two jobs are called {name!r}, and a third waits for that name"), hint="rename one")
        named.setdefault(name, place)
    needs: dict[int, list[int]] = {}
    for place, p in enumerate(prepared):
        needs[place] = []
        for _, what in p.after:
            if isinstance(what, str):
                if what not in named:
                    raise BadInput(_at(p, _no_such(what)), hint=_near(what, [n for n in named if n]))
                needs[place].append(named[what])
    circle = cycle(needs)
    if circle:
        names = " -> ".join(prepared[i].request.name for i in circle)
        raise BadInput(_at(prepared[circle[0]], f"these jobs wait for each other: {names}"), hint="remove one `after`")
    return order(needs)


def _no_such(name: str) -> str:
    return f"`after` names {name!r}, which is neither a job id nor a job of this submit"


def _near(name: str, known: list[str]) -> str:
    return unknown_name(name, known) if known else "give the id of a job"


def _at(prepared: Prepared | PreparedSweep, sentence: str) -> str:
    where = prepared.request.where
    return f"{where}: {sentence}" if where else sentence
