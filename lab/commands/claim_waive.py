"""`lab claim waive NAME GATE --job ID --why ...`: relax a gate for a job, and say why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from core.claims.words import WAIVED_CAP
from core.errors import BadInput
from lab import completion
from lab.output import Page, Report
from lab.selection import one
from lab.session import session


def waive_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The claim.", autocompletion=completion.claims)],
    gate: Annotated[str, typer.Argument(metavar="GATE", help="The gate.", autocompletion=completion.gates)],
    job: Annotated[str, typer.Option("--job", metavar="ID", help="The job for which it is relaxed.")] = "",
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, for everyone who asks later.")] = "",
) -> None:
    """Relax a gate for a job, and say why.

    A waived run supports nothing above experimental. Bytes, counts, hashes, leakage and what is said cannot be waived.
    """
    from lab.claims import stating

    here = session()
    if not job:
        raise BadInput("--job was not given", hint="name the job whose check is relaxed: --job 17")
    with here.asking() as journal:
        number = one(journal.conn, job)
        seq = stating.waive(journal, name, gate, number, why)
    here.out.show(WaivedReport(name, gate, number, why.strip(), seq))


@dataclass(frozen=True)
class WaivedReport(Report):
    """A waiver that was recorded."""

    name: str
    gate: str
    job: int
    why: str
    seq: int

    schema = "lab.claim-waived/1"

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "gate": self.gate, "job": self.job, "why": self.why, "event": self.seq}

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok')} {self.gate} is waived for job {self.job} of claim {self.name} (event {self.seq})"
        yield page.paint(f"the claim gets {WAIVED_CAP} at most while the waiver stands", "warn")

    def brief(self) -> Iterable[str]:
        return [str(self.seq)]
