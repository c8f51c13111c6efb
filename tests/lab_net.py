"""The test lab: lanes that are machines of their own, as far as ssh can tell.

    with LabNet() as lab:
        mini = lab.add("mini", quota=0.5)
        lab.ssh(mini, "hostname").stdout            # a real sshd, asked by the real client
        (folder / "cluster.yaml").write_text(lab.cluster_yaml(mini={"roles": ["eval"]}))
        mini.cut(); mini.mend(); mini.reset(); mini.stall(); mini.unstall(); mini.freeze(); mini.thaw()
        mini.reboot()                               # its process 1 is killed: new boot id, same disk

A lane has a network, mount, process, host name and IPC namespace of its own, and sees what was listed for it and
nothing else of this machine: programs and libraries, an interpreter, its own /root, /etc, /var and /tmp. Its memory
and its kernel are this machine's. Everything ends with the process that made it, however that ends.

Args of `add` are the fields of `Options`. `require()` skips a test where no lanes can be made.
"""

from __future__ import annotations

from tests.netlab.lab import LabNet
from tests.netlab.lane import LabNetError, Lane, Options
from tests.netlab.need import require, require_freezer, require_quota
from tests.netlab.noise import ENDLESS, GARBLE, NOISY_BASHRC, WSL
from tests.netlab.proxy import Fault, Proxy
from tests.netlab.pythons import other_minor

__all__ = [
    "ENDLESS",
    "GARBLE",
    "NOISY_BASHRC",
    "WSL",
    "Fault",
    "LabNet",
    "LabNetError",
    "Lane",
    "Options",
    "Proxy",
    "other_minor",
    "require",
    "require_freezer",
    "require_quota",
]
