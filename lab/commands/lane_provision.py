"""`lab lane provision`: make a lane's Python environment, from a lock, of wheels that are sent over or of its index."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import BadInput, Exit
from lab import completion, laneask
from lab.laneask import Answer
from lab.output import Page, Report, human
from lab.session import Session, session

EPILOG = """
Examples:
  lab lane provision bat00 --plan
  lab lane provision bat00
  lab lane provision bat00 --lock requirements.lock --wheels ~/wheels

  Nothing is needed on the lane but a Python from 3.11: no pip, no compiler, no network. Versions come from --lock,
  else from `environment: {lock: ...}` of the lane in cluster.yaml, else from requirements.lock, pylock.toml, uv.lock
  or requirements.txt beside it, else they are those of this installation. Wheels come from --wheels, from this
  installation where the lane's machine is alike, or from pip here; or the lane gets them itself from
  `environment: {index: ...}`. The same lock on the same Python is made once.
"""


@dataclass(frozen=True)
class ProvisionReport(Report):
    """What a lane got, or with `plan` would get.

    Attributes:
        kept: bytes of wheels that were packed for it and stay in the folder `wheels`.
    """

    lane: str
    answer: Answer
    plan: bool
    kept: int = 0
    wheels: str = ""

    schema = "lab.lane-provision/1"

    def json(self) -> dict[str, Any]:
        a = self.answer
        return {
            "lane": self.lane,
            "ok": a.ok,
            "plan": self.plan,
            "message": a.message,
            "hint": a.hint,
            "kept": self.kept,
            **dict(a.data),
        }

    def text(self, page: Page) -> Iterable[str]:
        a, d = self.answer, self.answer.data
        if not a.ok:
            yield f"{page.mark('fail')} {human.clean(a.message)}"
            if a.hint:
                yield "  " + page.paint(human.clean(a.hint), "dim")
            return
        if d.get("source"):
            yield f"  lock    {human.count(int(d['packages']), 'package')}, from {human.clean(str(d['source']))}"
            yield f"  python  {human.clean(str(d['target']))}, from {human.clean(str(d['base']))}"
        if not d.get("there") and d.get("wheels"):
            yield f"  wheels  {_wheels(d)}"
            for one in d.get("largest") or ():
                size = human.size(int(one["bytes"]))
                yield page.paint(f"          {size:>9}  {one['name']} {one['version']}", "dim")
        for note in d.get("notes") or ():
            yield page.paint(f"  note: {human.clean(str(note))}", "warn")
        if self.plan and not d.get("there"):
            yield page.paint(f"{human.clean(a.message)}. Nothing was done on the lane.", "dim")
        else:
            yield f"{page.mark('ok')} {human.clean(a.message)}"
            if page.tty and not self.plan:
                yield page.paint(f"next: lab lane admit {self.lane}", "dim")
        if self.kept:
            yield page.paint(f"{human.size(self.kept)} of wheels were packed and are kept in {self.wheels}", "dim")

    def brief(self) -> Iterable[str]:
        return [str(self.answer.data["python"])] if self.answer.ok and self.answer.data.get("python") else []


def provision_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    lock: Annotated[
        Path | None, typer.Option("--lock", metavar="FILE", help="Exact versions, in place of the project's lock.")
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option("--wheels", metavar="FOLDER", help="Take wheels from here first.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="Also what this kind of job needs.", autocompletion=completion.kinds
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be sent.")] = False,
) -> None:
    """Make a lane's Python environment.

    It is made aside and checked before it counts; attempts that start from then on run in it.
    """
    here = session()
    laneask.remote(here.home, name, "provision")
    asked: dict[str, Any] = {
        "lock": str(_there(lock, "--lock", folder=False)) if lock is not None else None,
        "wheels": str(_there(wheels, "--wheels", folder=True)) if wheels is not None else None,
        "kinds": _known(kinds or []),
    }
    keep = here.home.path / "wheels"
    before = _size(keep)

    def report(answer: Answer, planned: bool) -> ProvisionReport:
        return ProvisionReport(name, answer, planned, max(0, _size(keep) - before), str(keep))

    if here.out.people and not plan:
        first = _ask(here, name, {**asked, "plan": True})
        if not first.ok:
            _end(here, report(first, False))
        if not first.data.get("there"):
            here.out.remark(f"{human.clean(first.message)}: {_wheels(first.data)}")
    answer = _ask(here, name, {**asked, "plan": plan})
    _end(here, report(answer, plan))


def _end(here: Session, report: ProvisionReport) -> None:
    here.out.show(report)
    if not report.answer.ok:
        raise typer.Exit(Exit.JOB_FAILED)


def _ask(here: Session, name: str, asked: dict[str, Any]) -> Answer:
    seq = laneask.ask(here.home, name, "provision", asked)
    with _shown(here, name):
        try:
            return laneask.wait(here.home, seq)
        except KeyboardInterrupt:
            here.out.remark(f"stopped watching; lane {name} is provisioned all the same")
            raise


@contextlib.contextmanager
def _shown(here: Session, name: str) -> Iterator[None]:
    """While an answer is waited for: one line on the terminal that says how far it is."""
    if not here.out.people:
        yield
        return
    over, tty = threading.Event(), sys.stderr.isatty()
    thread = threading.Thread(target=_draw if tty else _tell, args=(here, name, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(2)
        if tty:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _tell(here: Session, name: str, over: threading.Event) -> None:
    """In a pipe: the one step that may take minutes, once."""
    from core.fsio import read_json

    file = here.home.lane_root(name) / "provision.json"
    while not over.wait(0.2):
        told = read_json(file) or {}
        word = str(told.get("step") or "").partition(" ")[0]
        if word in ("packing", "downloading"):
            count = human.count(int(told.get("of") or 0), "wheel")
            here.out.remark(f"{word} what is missing of {count}, once; they are kept in {here.home.path / 'wheels'}")
            return


def _draw(here: Session, name: str, over: threading.Event) -> None:
    from core.fsio import read_json

    # Read directly: what provisions loads much that only the controller needs.
    file = here.home.lane_root(name) / "provision.json"
    last = ""
    while not over.wait(0.2):
        told = read_json(file) or {}
        step, done, of = str(told.get("step") or ""), int(told.get("done") or 0), int(told.get("of") or 0)
        text = f"{step} ({human.size(done)} of {human.size(of)})" if step.startswith("sen") and of else step
        if not step.startswith("sen") and of > 1:
            text = f"{step} ({done} of {of})"
        if text != last:
            last = text
            sys.stderr.write("\r\033[K" + human.clean(text)[: max(20, (Page.of(sys.stderr).width or 80) - 1)])
            sys.stderr.flush()


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, which may not be there."""
    with contextlib.suppress(OSError):
        return sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
    return 0


def _wheels(data: Any) -> str:
    every, left = data["wheels"], data["to_send"]
    if data.get("index"):
        return f"the lane gets them from {data['index']}; {human.size(int(left['bytes']))} are sent"
    there = int(every["count"]) - int(left["count"])
    verb = "sent" if data.get("made") else "to send"
    said = f"{human.count(int(left['count']), 'wheel')} {verb}, {human.size(int(left['bytes']))}"
    return f"{said}; {there:,} there already" if there else said


def _there(path: Path, option: str, *, folder: bool) -> Path:
    full = path.expanduser().absolute()
    if not (full.is_dir() if folder else full.is_file()):
        what = "folder" if folder else "file"
        raise BadInput(f"{option}: there is no {what} {path}", hint="correct the path")
    return full


def _known(kinds: list[str]) -> list[str]:
    if kinds:
        from core.kind import load_kind

        for kind in kinds:
            load_kind(kind)
    return kinds
