"""`make lab-net`: three lanes to play with, until Ctrl-C."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from pathlib import Path

from tests.netlab import need
from tests.netlab.lab import LabNet
from tests.netlab.lane import Lane
from tests.netlab.noise import NOISY_BASHRC, WSL

_OURS = "# Made by `make lab-net`: it is written anew at each start.\n"
_MEANS = ("cut", "mend", "reset", "stall", "unstall", "freeze", "thaw", "kill_init", "boot", "reboot")


def main(folder: Path) -> int:
    if need.missing():
        print(f"no lanes here: {need.missing()}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    cluster = folder / "cluster.yaml"
    if cluster.exists() and not cluster.read_text().startswith(_OURS):
        print(f"{cluster} is not of lab-net's making; name another folder: make lab-net DIR=...", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    quotas = {"mini": 1.0, "bat00": 0.5, "molt": 0.25}
    if need.missing_quota():
        print(f"the lanes are equally fast: {need.missing_quota()}")
        quotas = {}
    try:
        with LabNet() as lab:
            lab.add("mini", quota=quotas.get("mini"))
            lab.add("bat00", quota=quotas.get("bat00"), bashrc=NOISY_BASHRC, programs={"wsl": WSL})
            lab.add("molt", quota=quotas.get("molt"))
            cluster.write_text(_OURS + lab.cluster_yaml(by_name=True, bat00={"prefix": ["wsl", "-e"]}))
            print(_words(folder, lab))
            _listen(lab)
    except KeyboardInterrupt:
        print("\nlab-net: lanes, network and their disks are gone", file=sys.stderr)
    return 0


def _words(folder: Path, lab: LabNet) -> str:
    lanes = ", ".join(f"{lane.name} ({lane.address})" for lane in lab.lanes.values())
    return f"""
Three lanes are up: {lanes}. bat00 is reached through `wsl -e` and prints noise.
In another terminal:

  cd {folder}
  lab lane trust mini       # shows the host key's fingerprint; they are:
{chr(10).join(f"                              {x.name}  {x.fingerprint}" for x in lab.lanes.values())}
  lab lane admit mini
  lab submit command --lane mini --wait -- hostname
  ssh -F {lab.ssh_config} mini

Here, MEANS LANE: {" ".join(_MEANS)}
Ctrl-C takes everything down (`lab down` first, if you started jobs).
"""


def _listen(lab: LabNet) -> None:
    for line in sys.stdin:
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if len(words) != 2 or words[0] not in _MEANS or words[1] not in lab.lanes:
            print(f"MEANS LANE, where MEANS is {' '.join(_MEANS)} and LANE is {' '.join(lab.lanes)}")
            continue
        lane: Lane = lab.lanes[words[1]]
        with contextlib.suppress(KeyboardInterrupt):
            try:
                getattr(lane, words[0])()
                print(f"{lane.name}: {words[0]}, done")
            except Exception as error:
                print(f"{lane.name}: {error}")
    while True:  # no terminal: until somebody ends us
        signal.pause()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).absolute()))
