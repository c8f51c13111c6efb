"""`lab lane add`: declare a lane in cluster.yaml. No restart: the controller reads it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core import cluster, hosts
from core.cluster import Cluster
from core.errors import BadInput
from core.fsio import write_atomic
from lab import arguments, completion, control, laneadd, laneask
from lab.output import Page, Report
from lab.session import Session, session

EPILOG = """
Examples:
  lab lane add mini --host mini.local --user me --role eval
  lab lane add bat00 --host 10.0.0.7 --prefix "wsl -e" --gpus 1
"""
_REACHED, _HAS = "How it is reached", "What it has"


def add_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="What it will be called.")],
    host: Annotated[
        str, typer.Option("--host", "-H", metavar="HOST", help="Its name or address, or an alias of ~/.ssh/config.")
    ],
    user: Annotated[
        str | None, typer.Option("--user", "-u", metavar="NAME", help="The account there.", rich_help_panel=_REACHED)
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", metavar="N", help="Where its sshd listens.", rich_help_panel=_REACHED)
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix", metavar="WORDS", help='A command before Python, such as "wsl -e".', rich_help_panel=_REACHED
        ),
    ] = None,
    identity: Annotated[
        str | None, typer.Option("--identity", metavar="FILE", help="A private key here.", rich_help_panel=_REACHED)
    ] = None,
    password_env: Annotated[
        str | None,
        typer.Option(
            "--password-env",
            metavar="VARIABLE",
            help="The variable that holds the password; it is stored nowhere.",
            rich_help_panel=_REACHED,
        ),
    ] = None,
    jump: Annotated[
        str | None,
        typer.Option("--jump", "-J", metavar="HOSTS", help="Hosts to go through.", rich_help_panel=_REACHED),
    ] = None,
    ssh_config: Annotated[
        str | None,
        typer.Option("--ssh-config", metavar="FILE", help="Another ssh configuration.", rich_help_panel=_REACHED),
    ] = None,
    joined: Annotated[
        bool, typer.Option("--joined", help="It also joins Ray (same Ray, same Python).", rich_help_panel=_REACHED)
    ] = False,
    python: Annotated[
        str | None, typer.Option("--python", metavar="PATH", help="The interpreter there.", rich_help_panel=_HAS)
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="PATH", help="Our folder there [~/.lab-lane].", rich_help_panel=_HAS)
    ] = None,
    cores: Annotated[
        int | None, typer.Option("--cores", metavar="N", help="Use only so many.", rich_help_panel=_HAS)
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Use only so much, such as 8G.", rich_help_panel=_HAS)
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="N", help="Whole GPUs.", rich_help_panel=_HAS)] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option("--resource", metavar="NAME", help="An exclusive name that it offers.", rich_help_panel=_HAS),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="What it may be admitted for [everything].",
            autocompletion=completion.roles,
            rich_help_panel=_HAS,
        ),
    ] = None,
    about: Annotated[str | None, typer.Option("--about", metavar="TEXT", help="One line for people.")] = None,
) -> None:
    """Declare a lane in cluster.yaml, whose comments and order stay as they are.

    Nothing is placed on it before it is trusted and admitted.
    """
    here = session()
    asked: dict[str, Any] = {
        "transport": "joined" if joined else "ssh",
        "host": host,
        "user": user,
        "port": port,
        "prefix": _words(prefix),
        "identity": identity,
        "password_env": password_env,
        "jump": jump,
        "ssh_config": ssh_config,
        "python": python,
        "root": root,
        "cores": cores,
        "memory_mb": arguments.memory_mb(memory, "--memory") if memory is not None else None,
        "gpus": gpus,
        "resources": resource or None,
        "roles": role or None,
        "about": about,
    }
    path = write(here, name, {k: v for k, v in asked.items() if v is not None})
    told = _tell(here, name)
    here.out.show(AddReport(name, path, told, not joined or control.joins_now(here.home)))


@dataclass(frozen=True)
class AddReport(Report):
    """The lane is declared. `joins`: what it has to do with Ray, it can do now."""

    lane: str
    path: Path
    told: bool
    joins: bool = True

    schema = "lab.lane-add/1"

    def json(self) -> dict[str, Any]:
        said = {"lane": self.lane, "cluster_file": str(self.path), "controller_told": self.told}
        return {**said, "joins_now": self.joins}

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok')} lane {self.lane} is declared in {self.path}"
        if self.told:
            yield "  the controller reads it now"
        if not self.joins:
            yield page.paint(f"  {control.NOT_JOINED}", "warn")
        if page.tty:
            yield page.paint(f"next: lab lane trust {self.lane}", "dim")

    def brief(self) -> Iterable[str]:
        return [self.lane]


def write(here: Session, name: str, settings: Mapping[str, Any]) -> Path:
    """Put the lane into this home's cluster.yaml, unless the result would be refused. Returns the file.

    Raises:
        BadInput: there is no cluster.yaml, or the lane cannot be declared so; nothing was changed.
    """
    hosts.check_lane_name(name)
    if here.home.cluster_file is None:
        raise BadInput("there is no cluster.yaml to add a lane to", hint="`lab init` writes one here")
    path = here.home.cluster_file.resolve()  # a link stays a link
    before = cluster.load(path)
    try:
        with path.open(newline="") as f:  # ends of lines stay as they are
            text = f.read()
        new = laneadd.insert(text, name, settings)
        _refuse_wrong(here, path, new, name, before)
        write_atomic(path, new, mode=path.stat().st_mode & 0o777)
    except OSError as error:
        raise BadInput(f"{path} cannot be changed ({error.strerror})", hint="see whose it is") from error
    return path


def _refuse_wrong(here: Session, path: Path, text: str, name: str, before: Cluster) -> None:
    """Read what would be written, as the controller will."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_text(text, newline="")
        try:
            after = cluster.load(trial)
        except BadInput as error:
            # The line is one that was never written: what is wrong with it says enough.
            message = error.message.split(": ", 1)[-1] if error.message.startswith(str(trial)) else error.message
            raise BadInput(f"lane {name} cannot be declared so: {message}", hint=error.hint) from None
    kept = [lane for lane in after.lanes if lane.name != name]
    if kept != list(before.lanes) or after.notify != before.notify or len(after.lanes) != len(kept) + 1:
        raise BadInput(f"{path} is written in a way that a lane cannot be added to", hint="add it with an editor")
    from lanes.ssh.settings import of

    of(here.home, after.lane(name))


def _tell(here: Session, name: str) -> bool:
    """Have a running controller read the file. One that does not run reads it when it starts."""
    from lanes.start import controller_alive

    if not controller_alive(here.home):
        return False
    laneask.ask(here.home, name, "reload", start=False)
    return True


def _words(text: str | None) -> list[str] | None:
    if text is None:
        return None
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInput(f"--prefix {text!r} cannot be split into words ({error})", hint='such as "wsl -e"') from None
