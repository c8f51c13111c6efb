"""Places at which a test can have the process killed, exactly there.

`failpoint("x")` costs one comparison unless the environment names a folder in LAB_FAILPOINTS. If that folder holds
a file called `x`, the file is removed and the process kills itself with SIGKILL: a crash at a known place, once.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import os
import signal

_FOLDER = os.environ.get("LAB_FAILPOINTS", "")


def failpoint(name: str) -> None:
    if _FOLDER:
        try:
            os.unlink(os.path.join(_FOLDER, name))
        except OSError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
