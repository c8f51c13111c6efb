"""Where `lab` keeps its things: every path of a home is resolved here and nowhere else."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from core.errors import Refused
from core.rundir import RunDir

CLUSTER_FILE = "cluster.yaml"

# Locks and write-ahead logs do not mean what they say on these.
_UNSAFE_FILESYSTEMS = {"nfs", "nfs4", "9p", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs", "ceph", "lustre", "drvfs"}


@dataclass(frozen=True)
class Home:
    """One home: one journal, one controller, one queue.

    Attributes:
        path: the folder that holds everything that must survive.
        cluster_file: the cluster.yaml that names the lanes, or None for the embedded default (lane `local`).
    """

    path: Path
    cluster_file: Path | None = None

    @staticmethod
    def find(explicit: Path | None = None, *, cwd: Path | None = None) -> Home:
        """The home to use: `explicit`, else $LAB_HOME, else .lab beside the nearest cluster.yaml, else ~/.lab.

        A cluster.yaml makes the folder that holds it (and all below) share one queue, as .git makes a repository.
        """
        if explicit is None and os.environ.get("LAB_HOME"):
            explicit = Path(os.environ["LAB_HOME"])
        if explicit is not None:
            path = explicit.expanduser().absolute()
            beside = [path / CLUSTER_FILE, *([path.parent / CLUSTER_FILE] if path.name == ".lab" else [])]
            return Home(path, next((p for p in beside if p.is_file()), None))
        start = (cwd or Path.cwd()).absolute()
        for folder in (start, *start.parents):
            if (folder / CLUSTER_FILE).is_file():
                return Home(folder / ".lab", folder / CLUSTER_FILE)
        return Home(Path.home() / ".lab")

    # Files that must survive.

    @property
    def journal(self) -> Path:
        return self.path / "journal.db"

    @property
    def witness(self) -> Path:
        return self.path / "journal.witness"

    @property
    def reserve(self) -> Path:
        """A little disk held back, so that the last commit always fits."""
        return self.path / "reserve"

    @property
    def backups(self) -> Path:
        return self.path / "backups"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def batches(self) -> Path:
        """Run directories of batches: many cells each."""
        return self.path / "batches"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def tables(self) -> Path:
        return self.path / "tables"

    @property
    def runs(self) -> Path:
        """Run directories of `lab run`: never cited, never in the journal."""
        return self.path / "runs"

    @property
    def lanes(self) -> Path:
        return self.path / "lanes"

    @property
    def known_hosts(self) -> Path:
        """The host keys of lanes that somebody has looked at and trusted."""
        return self.path / "known_hosts"

    # Files that may be thrown away.

    @property
    def live(self) -> Path:
        return self.path / "live.db"

    @property
    def digests(self) -> Path:
        return self.path / "digests.db"

    @property
    def controller_lock(self) -> Path:
        return self.path / "controller.lock"

    @property
    def guardian_lock(self) -> Path:
        return self.path / "guardian.lock"

    @property
    def journal_lock(self) -> Path:
        """Shared by each write transaction, exclusive while the journal is replaced by recovery."""
        return self.path / "journal.lock"

    @property
    def create_lock(self) -> Path:
        """Held while the first journal is made."""
        return self.path / "create.lock"

    @property
    def controller_log(self) -> Path:
        return self.path / "controller.log"

    @property
    def hash(self) -> str:
        """Tells the processes of one home from those of another."""
        return hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:12]

    @property
    def runtime(self) -> Path:
        """A short folder for sockets (their paths must stay under 107 bytes) and Ray's session."""
        return Path("/tmp") / f"lab-{os.getuid()}-{self.hash}"

    @property
    def wake_socket(self) -> Path:
        return self.runtime / "wake.sock"

    def run_dir(self, job: int, attempt: int) -> RunDir:
        return RunDir(self.attempts / str(job) / str(attempt))

    def lane_root(self, lane: str) -> Path:
        return self.lanes / lane

    def create(self) -> None:
        """Make the folders. Raises Refused on a filesystem whose locks cannot be trusted."""
        refuse_unsafe_filesystem(self.path)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep_to_ourselves()
        for folder in (self.attempts, self.batches, self.code, self.tables, self.backups, self.lanes):
            folder.mkdir(exist_ok=True)

    def _keep_to_ourselves(self) -> None:
        """Close a folder that was there before to others: the journal holds the values of declared variables.

        Not one with the sticky bit: that is a place for everybody (/tmp), and the journal itself is 0600.
        """
        info = self.path.stat()
        mode = stat.S_IMODE(info.st_mode)
        if info.st_uid == os.getuid() and mode & 0o077 and not mode & stat.S_ISVTX:
            self.path.chmod(0o700)

    def create_runtime(self) -> Path:
        """Make the runtime folder 0700 and ours. Raises Refused when somebody else owns that name."""
        folder = self.runtime
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            raise Refused(f"{folder} is not a folder of yours", hint="remove it and try again")
        folder.chmod(0o700)
        return folder


def refuse_unsafe_filesystem(path: Path, mounts: str = "/proc/mounts") -> None:
    """Raise Refused when `path` lies on a network filesystem (WAL and flock are not safe there)."""
    try:
        lines = Path(mounts).read_text().splitlines()
    except OSError:
        return
    target = path.absolute()
    while not target.exists():
        target = target.parent
    real = str(target.resolve())
    best, kind = "", ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    if kind in _UNSAFE_FILESYSTEMS:
        raise Refused(
            f"the home {path} is on {best} ({kind}), where locks and logs cannot be trusted",
            hint="set LAB_HOME to a folder on a local disk",
        )
