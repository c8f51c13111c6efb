"""`lab claim withdraw NAME`: a claim stands no longer. It stays in the journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.errors import BadInput
from lab import completion
from lab.output import Page, Report
from lab.session import session


def withdraw_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The claim.", autocompletion=completion.claims)],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, for everyone who asks later.")] = "",
) -> None:
    """Withdraw a claim.

    What it cited is pinned by it no longer.
    """
    from lab.claims import stating

    if not why.strip():
        raise BadInput("a withdrawal needs a reason", hint=f'say why: lab claim withdraw {name} --why "..."')
    here = session()
    with here.asking() as journal:
        stating.withdraw(journal, name, why.strip())
    here.out.show(WithdrawnReport(name, why.strip()))


@dataclass(frozen=True)
class WithdrawnReport(Report):
    """A claim that was withdrawn."""

    name: str
    why: str

    schema = "lab.claim-withdrawn/1"

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "why": self.why}

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok')} claim {self.name} is withdrawn; `lab claim list --all` still lists it"

    def brief(self) -> Iterable[str]:
        return [self.name]
