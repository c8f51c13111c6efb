"""`lab claim new FILE`: state a claim. What it says is in the journal from then on; its label never is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import BadInput
from lab.output import Page, Report, human
from lab.session import session

EPILOG = """
State a claim before its results are there: the rule by which they are chosen must be older than they are.

  lab claim new --template > claim.yaml
  lab claim new claim.yaml
"""


def new_(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The claim, as YAML or JSON.")] = None,
    template: Annotated[bool, typer.Option("--template", help="Print an example, and state nothing.")] = False,
) -> None:
    """State a claim from a file.

    The jobs that it cites are pinned: `lab gc` leaves what they made alone while the claim stands.
    """
    from lab.claims import stating

    here = session()
    if template:
        if file is not None:
            raise BadInput(f"both --template and {file} were given", hint="leave one out")
        here.out.raw(stating.TEMPLATE)
        return
    if file is None:
        raise BadInput("no file was named", hint="`lab claim new --template` prints an example")
    given = stating.load_mapping(file)
    # A claim comes before its results, so it may be the first thing in a home.
    with here.asking(create=True) as journal:
        claim, seq = stating.state(journal, given, str(file))
    here.out.show(Stated(claim.name, seq, str(claim.wants), tuple(claim.cites)))


@dataclass(frozen=True)
class Stated(Report):
    """A claim that was recorded."""

    name: str
    seq: int
    wants: str
    roles: tuple[str, ...]

    schema = "lab.claim-stated/1"

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "event": self.seq, "wants": self.wants, "roles": list(self.roles)}

    def text(self, page: Page) -> Iterable[str]:
        cited = human.count(len(self.roles), "role")
        said = f"claim {self.name} is stated (event {self.seq}): it wants {self.wants}, and cites {cited}"
        yield f"{page.mark('ok')} {said}"
        yield page.paint(f"`lab claim check {self.name}` asks every gate", "dim")

    def brief(self) -> Iterable[str]:
        return [self.name]
