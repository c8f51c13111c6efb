"""`lab init`: a cluster.yaml for a newcomer, and a home beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from core import cluster
from core.errors import BadInput
from core.fsio import write_atomic
from core.home import CLUSTER_FILE, Home
from core.journal import Journal, Role
from lab.output import Page, Report
from lab.session import session

TEMPLATE = """\
# The lanes of this lab. A lane is a machine, or a part of one, that runs attempts.
#
# Only `local` works at once. Every other lane stays `declared`, and nothing is placed on it, until it has earned its
# admission: `lab lane add` writes one, then `lab lane trust` and `lab lane admit`. What is left out here is what the
# probe finds.
lanes:
  local:
    transport: local
    about: this machine
    # cores: 4            # use only so many
    # memory_mb: 16000
    resources: [scorer]   # exclusive names: two attempts never hold the same one at once; `lab submit score` needs it

  # box:
  #   transport: ssh
  #   host: box           # as in ~/.ssh/config
  #   gpus: 1             # whole GPUs that may be used
  #   roles: [eval, train]  # what it may be admitted for

# A program that gets one JSON document on stdin when a job is done or failed, a sweep has finished, a lane is lost:
# notify: [./notify.sh]
"""


def init_(
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="Where [here].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a cluster.yaml that is there.")] = False,
) -> None:
    """Write a cluster.yaml and make a home here.

    All folders below share this one queue, as they would share a repository.
    """
    here = session()
    root = (folder or Path.cwd()).expanduser().absolute()
    if folder is not None and not root.is_dir():
        raise BadInput(f"{root} is not a folder", hint="make it first")
    home = here.home if here.home_given is not None else Home(root / ".lab", root / CLUSTER_FILE)
    path = home.cluster_file if home.cluster_file is not None else root / CLUSTER_FILE
    kept = path.exists() and not force
    if kept:
        cluster.load(path)
    else:
        try:
            write_atomic(path, TEMPLATE)
        except OSError as error:
            raise BadInput(f"{path} cannot be written ({error.strerror})", hint="choose a folder of yours") from error
    Journal.open(home, Role.CLIENT, create=True).close()
    here.out.show(InitReport(path, home.path, kept))


@dataclass(frozen=True)
class InitReport(Report):
    """What was made."""

    cluster_file: Path
    home: Path
    kept: bool

    schema = "lab.init/1"

    def json(self) -> dict[str, Any]:
        return {"cluster_file": str(self.cluster_file), "home": str(self.home), "kept": self.kept}

    def text(self, page: Page) -> Iterable[str]:
        yield f"{page.mark('ok')} {self.cluster_file} {'was there and is kept' if self.kept else 'written'}"
        yield f"{page.mark('ok')} home {self.home}"
        yield page.paint("next: lab submit parity --wait --results", "dim")

    def brief(self) -> Iterable[str]:
        return [str(self.home)]
