"""`lab lane trust`: look at a lane's host key, and keep it if a person says that it is the right one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import BadInput, Refused, Unavailable
from lab import completion, laneask
from lab.output import Page, Report
from lab.session import Session, session

if TYPE_CHECKING:
    from lanes.ssh.hostkeys import Seen
    from lanes.ssh.settings import SshSettings

_HOPS = 16

EPILOG = """
Compare the fingerprint with what that machine says of itself, on its own screen:
  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
In a script: lab lane trust mini --fingerprint SHA256:...
"""


def trust_(
    name: Annotated[str, typer.Argument(metavar="LANE", help="The lane.", autocompletion=completion.lanes)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Trust what it shows, without asking.")] = False,
    fingerprint: Annotated[
        list[str] | None,
        typer.Option("--fingerprint", metavar="SHA256:...", help="Trust it only if it shows this (for scripts)."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The machine was installed anew: forget its old key.")
    ] = False,
) -> None:
    """Show a lane's host key and keep it, so that we know the machine again.

    Machines on the way (ProxyJump) are asked about as well. Our keys are kept apart from yours.
    """
    here = session()
    config = laneask.remote(here.home, name, "trust")
    wanted = [_checked(f) for f in fingerprint or ()]
    from lanes.ssh import settings as ssh

    settings = ssh.of(here.home, config)
    shown: list[Key] = []
    for _ in range(_HOPS):
        found = _scan(settings)
        shown += [Key.of(seen, stored=False) for seen in found if seen.key.line not in {k.line for k in shown}]
        last = found[-1]
        if last.standing == "same":
            break
        _keep(here, name, settings, last, wanted=wanted, yes=yes, replace=replace)
        shown[-1] = Key.of(last, stored=True)
    stored = any(k.stored for k in shown)
    if stored:
        from lanes.start import controller_alive

        if controller_alive(here.home):
            laneask.ask(here.home, name, "trusted", start=False)
    here.out.show(TrustReport(name, shown, stored))


@dataclass(frozen=True)
class Key:
    """A host key as it was shown, and what became of it."""

    machine: str
    kind: str
    fingerprint: str
    line: str
    standing: str
    before: tuple[str, ...]
    stored: bool

    @staticmethod
    def of(seen: Seen, *, stored: bool) -> Key:
        before = tuple(f"{k.kind} {k.fingerprint}" for k in seen.known)
        key = seen.key
        return Key(key.name, key.kind, key.fingerprint, key.line, seen.standing, before, stored)


@dataclass(frozen=True)
class TrustReport(Report):
    """Whom we trust now."""

    lane: str
    keys: Sequence[Key]
    stored: bool

    schema = "lab.lane-trust/1"

    def json(self) -> dict[str, Any]:
        return {
            "lane": self.lane,
            "stored": self.stored,
            "keys": [
                {
                    "machine": k.machine,
                    "kind": k.kind,
                    "fingerprint": k.fingerprint,
                    "was": k.standing,
                    "before": list(k.before),
                    "stored": k.stored,
                }
                for k in self.keys
            ],
        }

    def text(self, page: Page) -> Iterable[str]:
        for k in self.keys:
            said = "is trusted from now on" if k.stored else "was trusted already"
            yield f"{page.mark('ok')} {k.machine}  {k.kind} {k.fingerprint}  {said}"
        if page.tty:
            yield page.paint(f"next: lab lane admit {self.lane}", "dim")

    def brief(self) -> Iterable[str]:
        return [k.fingerprint for k in self.keys]


def _checked(text: str) -> str:
    word = text.strip()
    if not word.startswith("SHA256:") or len(word) != 50:
        raise BadInput(
            f"{text!r} is no fingerprint", hint="give it as `ssh-keygen -lf` prints it: SHA256: and 43 characters"
        )
    return word


def _scan(settings: SshSettings) -> list[Seen]:
    from lanes.ssh.connect import scan
    from lanes.transport import LinkDown, LinkRefused

    try:
        return scan(settings)
    except LinkDown as error:
        raise Unavailable(
            f"lane {settings.lane} cannot be reached: {error}", hint="is it switched on, and its name spelled right?"
        ) from None
    except LinkRefused as error:
        raise Refused(error.message, hint=error.hint) from None


def _keep(
    here: Session, lane: str, settings: SshSettings, seen: Seen, *, wanted: list[str], yes: bool, replace: bool
) -> None:
    """Store the key, if whoever asks for it says that it is the right one.

    Raises:
        Refused: it is not the one that was named, it has changed, or the person says no.
        BadInput: nobody is there to ask.
    """
    from lanes.ssh import hostkeys

    key = seen.key
    if seen.standing == "changed" and not replace:
        before = ", ".join(f"{k.kind} {k.fingerprint}" for k in seen.known)
        raise Refused(
            f"THE HOST KEY OF {key.name} HAS CHANGED: it was {before} and is now {key.kind} {key.fingerprint}; "
            "somebody may be listening in",
            hint="ask whoever runs that machine whether it was installed anew; only then: "
            f"lab lane trust {lane} --replace",
        )
    if wanted:
        if key.fingerprint not in wanted:
            raise Refused(
                f"{key.name} shows {key.kind} {key.fingerprint}, which is not the fingerprint that was given",
                hint="nothing was stored: see which machine answers there",
            )
    elif not yes:
        _ask(here, seen)
    hostkeys.store(settings.known_hosts, key, replace=replace)


def _ask(here: Session, seen: Seen) -> None:
    key = seen.key
    if not (here.out.people and sys.stdin.isatty()):
        raise BadInput(
            f"{key.name} shows {key.kind} {key.fingerprint}, and nobody is here to say whether that is right",
            hint=f"compare it, then give --fingerprint {key.fingerprint} (or --yes)",
        )
    page = Page.of(sys.stderr)
    if seen.standing == "changed":
        here.out.remark(page.paint(f"THE HOST KEY OF {key.name} HAS CHANGED.", "bad"))
        for old in seen.known:
            here.out.remark(f"  it was  {old.kind} {old.fingerprint}")
        here.out.remark(f"  it is   {key.kind} {key.fingerprint}")
    else:
        here.out.remark(f"{key.name} is not known yet. It shows the key\n  {key.kind} {key.fingerprint}")
        here.out.remark(
            page.paint("Compare it with what that machine says: ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub", "dim")
        )
    sys.stderr.write("Trust it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused(f"{key.name} is not trusted", hint="nothing was stored")
