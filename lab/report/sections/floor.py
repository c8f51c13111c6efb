"""The floor, the verdict on every submission with its pictures, and what trainings say that nobody has scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BadInput
from lab.floor import Candidate, Floor, Rival, Verdict, evaluators_apart, find_floor, read_scorings
from lab.hypotheses import Hypothesis, read_hypotheses, together
from lab.report.book import Row, slug
from lab.report.doc import (
    Block,
    Card,
    Facts,
    Hash,
    Inline,
    Line,
    Link,
    Mark,
    Name,
    Page,
    Para,
    Section,
    Shell,
    Table,
    joined,
)
from lab.report.forms import Form
from lab.report.media import Media
from lab.report.reading import Reading

PATH = "techniques.html"
_COMMAND = "lab floor"
_TONES = {Verdict.PROMOTE: "good", Verdict.CLOSE_MISS: "warn", Verdict.REJECT: "bad", Verdict.CUT: "bad"}
_HEADS = {
    Verdict.PROMOTE: "Promoted",
    Verdict.CLOSE_MISS: "Close misses",
    Verdict.REJECT: "Rejected",
    Verdict.CUT: "Cut before the scorer",
    Verdict.UNRANKED: "Not ranked",
}
_LEAD = (
    "A submission is promoted when it beats the floor of its time by more than the noise of repeated scoring. Verdicts "
    "are computed now, from committed scores; nobody types them."
)
_TRAINED = (
    "What a training measured of what it would ship, on pairs and by an objective of its own. It is no score, and is "
    "ranked with none; it says which artefact is worth a scoring."
)
_MOST_TOLD = 40  # candidates of a verdict that get a section of their own
_MOST_TRAININGS = 60
_WITH_PICTURES = 3  # best trainings of a group whose pictures are shown


@dataclass(frozen=True)
class Asked:
    """What the floor is asked with: as `lab floor` has it."""

    view: str = "archive"
    contract: str = ""
    rivals: tuple[Rival, ...] = ()


class FloorSection:
    """Reads the floor once; the summary and the page of techniques are made of it."""

    def __init__(self, reading: Reading, media: Media, asked: Asked) -> None:
        self._r, self._media, self._asked = reading, media, asked
        self._book = reading.book
        scorings = read_scorings(reading.home, reading.conn, asked.view, reading.warnings)
        self.floor: Floor = find_floor(scorings, view=asked.view, contract=asked.contract)
        self.trainings: list[Hypothesis] = read_hypotheses(reading.home, reading.conn, reading.warnings)
        self._scores: Mapping[int, Mapping[str, Any]] = {
            int(row["job"]): row for row in reading.rows("score", sorted({s.job for s in scorings}))
        }
        self._command = _COMMAND + (f" --view {asked.view}" if asked.view != "archive" else "")
        self._command += f" --contract {asked.contract}" if asked.contract else ""

    # The summary.

    def cards(self) -> list[Card]:
        """Floor, bytes, noise, gap."""
        floor = self.floor.floor
        if floor is None:
            none = "nothing that was scored may promote" if self.floor.candidates else "nothing was scored yet"
            return [Card("Floor", ["none"], [none])]
        out = [
            Card("Floor", [self._value(floor)], [Name(floor.name), ", authority ", Name(floor.authority.word)]),
            Card("Bytes of the floor", [self._bytes(floor)], [self._view_said()]),
        ]
        if self.floor.noise.value is None:
            out.append(Card("Noise", ["unknown"], ["no submission was scored twice"]))
        else:
            noise = self._book.made(
                "noise of repeated scoring",
                self.floor.noise.value,
                "the largest spread, most less least, of any submission that was scored twice or more",
                command=self._command,
                parts=[self._row(s.job) for s in self.floor.scorings if s.contract == self.floor.contract],
                form=Form.SMALL,
            )
            out.append(Card("Noise", [noise], ["spread of repeated scoring"]))
        if self._asked.rivals:
            best = self._asked.rivals[0]
            out.append(Card("Gap to the best rival", [self._gap(best)], [*self._place(best), " ", Name(best.name)]))
        return out

    def rivals(self) -> list[Block]:
        """The gap to each."""
        if not self._asked.rivals or self.floor.floor is None:
            return []
        rows: list[Sequence[Line]] = [
            ([Name(r.name)], [self._rival(r)], [self._gap(r)], self._place(r)) for r in self._asked.rivals
        ]
        head: list[Line] = [["rival"], ["score"], ["gap"], ["we are"]]
        return [Table(["Gap to rivals; lower is better, and a gap above zero means that they are ahead"], head, rows,
                      frozenset({1, 2}))]  # fmt: skip

    # The page.

    def page(self, more: Sequence[Block]) -> Page:
        """Every submission and training. `more`: pictures of studies."""
        blocks: list[Block] = [Para([_LEAD])]
        if not self.floor.candidates:
            blocks.append(Para(["Nothing was scored yet."], "note"))
        apart = evaluators_apart(self.floor)
        if apart:
            said = self._book.said("evaluators under this contract", apart, "packages that differ between evaluators")
            blocks.append(
                Para(["The evaluators under this contract differ in their packages: ", said, "."], "note warn")
            )
        for verdict, head in _HEADS.items():
            some = [c for c in self.floor.candidates if c.judged is not None and c.judged.verdict is verdict]
            if some:
                blocks.append(Section(f"v-{slug(str(verdict))}", [head], self._candidates(verdict, some)))
        if self.trainings:
            blocks.append(Section("trainings", ["Trainings: hypotheses, no scores"], list(self._trainings())))
        if more:
            blocks.append(Section("studies", ["Pictures of studies"], more))
        return Page(PATH, ["Technique snapshots"], blocks, "Techniques")

    def _candidates(self, verdict: Verdict, some: Sequence[Candidate]) -> list[Block]:
        out: list[Block] = [
            Section(f"s-{slug(c.contract[:12])}-{c.jobs[0]}", [Name(c.name or c.bundle[:12])], self._told(c))
            for c in some[:_MOST_TOLD]
        ]
        rest = some[_MOST_TOLD:]
        if rest:
            rows: list[Sequence[Line]] = [(self._r.called(c.jobs[-1]), [self._value(c)], [self._rule(c)]) for c in rest]
            out.append(Table([f"Further ones: {verdict}"], [["job"], ["value"], ["rule"]], rows, frozenset({1})))
        return out

    def _told(self, c: Candidate) -> list[Block]:
        assert c.judged is not None
        pairs: list[tuple[Line, Line]] = [
            (["verdict"], [Mark(str(c.judged.verdict), _TONES.get(c.judged.verdict, "faint")),
                           " (this is the floor)" if c.is_floor else "", ": ", self._rule(c)]),
            (["value"], [self._value(c)]),
            (["bytes"], [self._bytes(c)]),
        ]  # fmt: skip
        if c.judged.gain is not None:
            pairs.append((["gain over the floor of its time"], [self._gain(c)]))
        if c.spread is not None:
            pairs.append((["spread of its scorings"], [self._spread(c)]))
        pairs += [
            (["authority"], [Name(c.authority.word)]),
            (["scored in"], joined([self._r.called(job) for job in c.jobs])),
            (["submission"], [Hash(c.bundle)]),
            (["contract"], [Hash(c.contract)]),
        ]
        trained = [h for h in self.trainings if set(h.scored) & set(c.jobs)]
        if trained:
            pairs.append((["trained in"], joined([self._r.called(h.job) for h in trained])))
        pictures = [b for job in (*[h.job for h in trained], *c.jobs) for b in self._media.of(job, 4)]
        return [Facts(pairs), Shell(self._r.command(c.jobs[-1])), *pictures]

    def _trainings(self) -> list[Block]:
        out: list[Block] = [Para([_TRAINED])]
        for n, group in enumerate(together(self.trainings)):
            rows: list[Sequence[Line]] = []
            for h in group[:_MOST_TRAININGS]:
                row = self._candidate_row(h)
                value = [self._book.number(row, "evaluation_value")] if row else ["–"]
                psnr = [self._book.number(row, "psnr", unit="dB")] if row else ["–"]
                size = [self._book.number(row, "bytes", Form.WHOLE)] if row and h.bytes else ["–"]
                scored: Line = joined([[self._book.ident(self._r.job_row(j))] for j in h.scored]) or ["not scored"]
                rows.append((self._r.called(h.job), value, psnr, size, scored))
            head: list[Line] = [["training"], ["value"], ["PSNR"], ["bytes"], ["scored in"]]
            caption: Line = ["By ", Name(group[0].quantity), ", on the fixed pairs ", Hash(group[0].alike[0]),
                             "; lower is better"]  # fmt: skip
            pictures = [b for h in group[:_WITH_PICTURES] for b in self._media.of(h.job, 3)]
            table = Table(caption, head, rows, frozenset({1, 2, 3}))
            title: Line = ["By ", Name(group[0].quantity), ", settings ", Hash(group[0].alike[1][:12])]
            out.append(Section(f"quantity-{n}", title, [table, *pictures]))
        return out

    # Numbers.

    def _row(self, job: int) -> str:
        return self._r.table_row("score", self._scores[job])

    def _column(self, what: str) -> str:
        return {"value": {"archive": "score"}.get(self.floor.view, "faithful_score"),
                "bytes": {"archive": "archive_bytes"}.get(self.floor.view, "faithful_bytes")}[what]  # fmt: skip

    def _view_said(self) -> str:
        return "of the archive alone" if self.floor.view == "archive" else "with every runtime file"

    def _called(self, c: Candidate) -> str:
        return f"{c.name or c.bundle[:12]} under {c.contract[:12]} job {c.jobs[0]}"

    def _value(self, c: Candidate) -> Inline:
        if len(c.jobs) == 1:
            return self._book.number(self._row(c.jobs[0]), self._column("value"), Form.SCORE)
        how = "mean over the scorings of this submission, each computed again from its parts"
        parts = [self._row(job) for job in c.jobs]
        name = f"value of {self._called(c)}"
        return self._book.made(name, c.standing.value, how, command=self._command, parts=parts, form=Form.SCORE)

    def _bytes(self, c: Candidate) -> Inline:
        return self._book.number(self._row(c.jobs[-1]), self._column("bytes"), Form.WHOLE)

    def _rule(self, c: Candidate) -> Inline:
        assert c.judged is not None
        name, how = f"rule on {self._called(c)}", "the rule that decided, computed from the scorings of this contract"
        return self._book.said(name, c.judged.rule, how, command=self._command, parts=[self._row(j) for j in c.jobs])

    def _gain(self, c: Candidate) -> Inline:
        assert c.judged is not None
        name, how = f"gain of {self._called(c)}", "the floor of its time less its value; above zero it is better"
        parts = [self._row(job) for job in c.jobs]
        return self._book.made(name, c.judged.gain, how, command=self._command, parts=parts, form=Form.GAIN)

    def _spread(self, c: Candidate) -> Inline:
        name, how = f"spread of {self._called(c)}", "most less least of its scorings"
        parts = [self._row(job) for job in c.jobs]
        return self._book.made(name, c.spread, how, command=self._command, parts=parts, form=Form.SMALL)

    def _rival(self, r: Rival) -> Inline:
        row = f"rival-{slug(r.name)}"
        self._book.add(Row(row, "rivals", f"rival {r.name}", {"name": r.name, "score": r.score},
                           how="as the file of rivals says it, which was named when the report was made"))  # fmt: skip
        return self._book.number(row, "score", Form.EXACT)

    def _gap(self, r: Rival) -> Inline:
        floor = self.floor.floor
        assert floor is not None
        self._rival(r)
        parts = [f"rival-{slug(r.name)}", *(self._row(job) for job in floor.jobs)]
        how = "the floor's value less the rival's score; above zero the rival is ahead"
        gap = floor.standing.value - r.score
        return self._book.made(f"gap to {r.name}", gap, how, command=self._command, parts=parts, form=Form.GAIN)

    def _place(self, r: Rival) -> list[Inline]:
        assert self.floor.floor is not None
        behind = self.floor.floor.standing.value - r.score
        if abs(behind) <= r.rounding:
            return [Mark("equal, as theirs is rounded", "warn")]
        return [Mark("behind", "bad")] if behind > 0 else [Mark("ahead", "good")]

    def _candidate_row(self, h: Hypothesis) -> str:
        rows = self._r.rows("candidates", [h.job])
        found = [row for row in rows if row["chosen"] and row["evaluation_value"] == h.value]
        return self._r.table_row("candidates", found[0]) if found else ""


def asked_of(data: Mapping[str, Any]) -> Asked:
    """As a report that was built says that it was asked.

    Raises:
        BadInput: it does not.
    """
    try:
        rivals = tuple(Rival(str(r["name"]), float(r["score"])) for r in data["rivals"])
        return Asked(str(data["view"]), str(data["contract"]), rivals)
    except (KeyError, TypeError, ValueError):
        raise BadInput("the report does not say how it was made", hint="build it again: lab report") from None


def asked_data(asked: Asked) -> dict[str, Any]:
    return {"view": asked.view, "contract": asked.contract,
            "rivals": [{"name": r.name, "score": r.score} for r in asked.rivals]}  # fmt: skip


def link() -> Inline:
    return Link("Technique snapshots", PATH)
