"""The lab: a network of its own on this machine, its lanes, and the keeper that ends them with us."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import yaml

from tests.netlab import stale
from tests.netlab.lane import LabNetError, Lane, Options
from tests.netlab.pythons import REPO
from tests.netlab.setup import make_key

_KEEPER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.netlab import keeper; keeper.main()"


class LabNet:
    """Lanes on a private network of this machine. Use it as a context manager.

    Args:
        folder: where the lanes' disks and the lab's key are kept; None: a folder in /tmp that goes at the end.

    Attributes:
        lanes: name -> Lane.
        identity: the private key that lanes accept.
        ssh_config: a file for `ssh -F`: every lane by name, host keys known, for tests' own use of ssh.
        head: the head's address on this network.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.lanes: dict[str, Lane] = {}
        self._guard = threading.Lock()
        stale.sweep()
        tag = stale.tag()
        own = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=tag + ".", dir="/tmp"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.net = stale.claim_network(tag)
        self.head = self.net.gateway
        lab = {"owner": os.getpid(), "bridge": self.net.bridge, "tag": tag, "folder": str(self.folder) if own else None}
        command = [sys.executable, "-I", "-S", "-c", _KEEPER, str(REPO)]
        self._keeper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
            start_new_session=True,
        )
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps(lab) + "\n")
        self._keeper.stdin.flush()
        self.identity = self.folder / "id_ed25519"
        self.identity.unlink(missing_ok=True)
        make_key(self.identity)
        self.ssh_config = self.folder / "ssh_config"
        self._plain_config = self.folder / "ssh_config_plain"
        # For the product: nothing of the ssh settings of whoever runs the tests.
        self._plain_config.write_text("IdentitiesOnly yes\nIdentityAgent none\n")
        self._write_ssh_config()

    def __enter__(self) -> LabNet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything: lanes, network, control groups, and the folder if it was ours."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(60)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        stale.sweep()

    def add(self, name: str, *, boot: bool = True, **options: Any) -> Lane:
        """Make a lane and start it. For the options see tests/netlab/lane.py: Options."""
        if name in self.lanes:
            raise LabNetError(f"there is a lane {name} already")
        chosen = Options(**options)
        if chosen.quota is not None and self.about()["no_cpu"]:
            raise LabNetError(f"no processor quotas here: {self.about()['no_cpu']}")
        folder = self.folder / "lanes" / name
        if folder.exists():
            shutil.rmtree(folder)
        lane = Lane(name, len(self.lanes) + 1, self.net, folder, chosen, self._ask)
        shutil.copy(self.identity.with_suffix(".pub"), folder / "etc/ssh/authorized_keys")
        self.lanes[name] = lane
        self._write_ssh_config()
        if boot:
            lane.boot()
        return lane

    def about(self) -> dict[str, Any]:
        """What cannot be done on this machine: {"no_cpu": reason or "", "no_freezer": reason or ""}."""
        return self._ask("about")

    def ssh(self, lane: Lane, command: str, *, options: tuple[str, ...] = (), **more: Any) -> Any:
        """Run a command by the real ssh client. Returns the CompletedProcess; never raises for its exit code."""
        more = {"capture_output": True, "text": True, "timeout": 60, **more}
        if more["text"]:
            more["errors"] = "replace"
        return subprocess.run([*self.ssh_argv(lane, *options), command], **more)

    def ssh_argv(self, lane: Lane, *options: str) -> list[str]:
        # By its name also when the options lead through a proxy.
        return ["ssh", "-F", str(self.ssh_config), "-o", f"HostKeyAlias={lane.name}", *options, lane.name]

    def cluster_yaml(self, *, by_name: bool = False, local: bool = True, **lanes: dict[str, Any]) -> str:
        """The text of a cluster.yaml with every lane of the lab.

        Args:
            by_name: lanes are found by name through `ssh_config`, as people write it, and not by address.
            local: the head is a lane too.
            lanes: settings added for a lane by its name, or replaced; None takes one away.
        """
        found: dict[str, Any] = {"local": {"transport": "local"}} if local else {}
        for lane in self.lanes.values():
            one: dict[str, Any] = {
                "transport": "ssh",
                "host": lane.name if by_name else lane.address,
                "user": "root",
                "identity": str(self.identity),
                "ssh_config": str(self.ssh_config if by_name else self._plain_config),
                "python": lane.python,
                **lanes.get(lane.name, {}),
            }
            found[lane.name] = {k: v for k, v in one.items() if v is not None}
        return yaml.safe_dump({"lanes": found}, sort_keys=False)

    def _write_ssh_config(self) -> None:
        known = self.folder / "known_hosts"
        text, keys = "", ""
        for lane in self.lanes.values():
            key = (lane.folder / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()
            keys += f"{lane.name},{lane.address} {key}\n"
            text += f"Host {lane.name}\n  HostName {lane.address}\n"
        text += (
            f"Host *\n  User root\n  IdentityFile {self.identity}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n  ConnectTimeout 10\n"
        )
        known.write_text(keys)
        self.ssh_config.write_text(text)

    def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        with self._guard:
            assert self._keeper.stdin is not None
            assert self._keeper.stdout is not None
            try:
                self._keeper.stdin.write(json.dumps({"do": do, **request}) + "\n")
                self._keeper.stdin.flush()
                line = self._keeper.stdout.readline()
            except (OSError, ValueError) as error:
                raise LabNetError(f"the keeper of the lab is gone ({error})") from error
        if not line:
            raise LabNetError(f"the keeper of the lab died ({self._keeper.poll()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LabNetError(f"{answer['error']}\n{answer['trace']}")
        return answer
