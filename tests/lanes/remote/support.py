"""A whole lab for a test: a head with its home and controller, and lanes that are machines of their own."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from core.home import Home
from core.journal import Event, Journal, Role, query
from core.journal.query import Attempt, EventRow
from core.journal.query import Lane as LaneRow
from core.states import EventKind, LaneState
from lanes.ssh import hostkeys
from lanes.start import wake
from tests.lab_net import LabNet
from tests.support import end_all, lab, wait_for

ROLES = ("eval", "train", "sweep", "promote")


class Head:
    """The head of a lab whose lanes are those of a LabNet."""

    def __init__(self, folder: Path, net: LabNet, **settings: dict[str, Any]) -> None:
        self.folder = folder
        self.net = net
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.home = Home(folder / ".lab", folder / "cluster.yaml")
        self.declare()

    def declare(self, **settings: dict[str, Any]) -> None:
        """Write cluster.yaml anew, with all lanes that the net has now."""
        for name, more in settings.items():
            self.settings[name] = {**self.settings.get(name, {}), **more}
        common = {"keepalive_s": 1}
        mine = {name: {**common, **self.settings.get(name, {})} for name in self.net.lanes}
        cluster = yaml.safe_load(self.net.cluster_yaml(**mine))
        cluster["lanes"]["local"].update(self.settings.get("local", {}))
        (self.folder / "cluster.yaml").write_text(yaml.safe_dump(cluster, sort_keys=False))

    def lab(self, *args: str, check: bool = True, env: dict[str, str] | None = None) -> Any:
        """Run the command line in the head's folder."""
        return lab(self.home, *args, check=check, env=env, cwd=self.folder)

    def json(self, *args: str, check: bool = True) -> Any:
        done = self.lab(*args, "--json", check=check)
        return json.loads(done.stdout or done.stderr)

    def submit(self, *args: str) -> int:
        """`lab submit ... `; returns the id."""
        return int(self.lab("submit", "--quiet", *args).stdout.split()[0])

    def trust(self, *names: str) -> None:
        """What `lab lane trust NAME --yes` does, without the controller."""
        for name in names or tuple(self.net.lanes):
            lane = self.net.lanes[name]
            kind, blob = (lane.folder / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
            hostkeys.store(
                self.home.known_hosts, hostkeys.HostKey(lane.address, kind, base64.b64decode(blob)), replace=True
            )

    def grant(self, *names: str, roles: tuple[str, ...] = ROLES) -> None:
        """Lanes that earned their admission some other day. Not while the controller runs."""
        self.home.create()
        self.trust(*names)
        with Journal.open(self.home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
            for name in names or tuple(self.net.lanes):
                tx.append(EventKind.RUNG, lane=name, data={"role": "", "rung": "reachable", "ok": True})
                for role in roles:
                    tx.append(EventKind.ADMITTED, lane=name, data={"role": role, "ok": True})

    def lane(self, name: str) -> LaneRow:
        with Journal.open(self.home) as journal:
            found = [row for row in query.lanes(journal.conn) if row.name == name]
        return found[0] if found else LaneRow(name, LaneState.DECLARED, "", None, {})

    def wait_lane(self, name: str, state: str, *, deadline_s: float = 60.0) -> LaneRow:
        def there() -> LaneRow | None:
            row = self.lane(name)
            return row if row.state == state else None

        return wait_for(there, f"lane {name} to be {state}", deadline_s=deadline_s)

    def attempts(self, job: int) -> list[Attempt]:
        with Journal.open(self.home) as journal:
            return query.attempts(journal.conn, job)

    def events(self, job: int, *kinds: EventKind) -> list[EventRow]:
        with Journal.open(self.home) as journal:
            return [e for e in query.events(journal.conn, job_id=job) if not kinds or e.kind in kinds]

    def say(self, *events: Event) -> None:
        """Put requests into the journal, as any client may."""
        with Journal.open(self.home, Role.CLIENT) as journal, journal.transaction() as tx:
            tx.extend(events)
        wake(self.home)

    def steps(self, job: int, n: int) -> list[int]:
        """The steps in the head's copy of metrics.jsonl, in the order in which they stand there."""
        path = self.home.run_dir(job, n).metrics
        if not path.exists():
            return []
        return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@contextlib.contextmanager
def head_of(folder: Path, net: LabNet, **settings: dict[str, Any]) -> Iterator[Head]:
    """A head that is ended with everything it started, on the lanes too."""
    head = Head(folder, net, **settings)
    try:
        yield head
    finally:
        end_all(head.home)
