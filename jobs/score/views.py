"""What counts as the submission's bytes: the archive alone, or the archive and all that its decoder needs.

Nothing is typed: bytes are counted from the files, and files are told apart by their content. What the archive holds
already, or what is there twice, is paid for once.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadInput
from core.fsio import digest, sha256_file
from jobs.score.formula import Score


@dataclass(frozen=True)
class Counted:
    """One file of a view.

    Attributes:
        name: relative, with `/`.
        counts: is it paid for (False: its content is paid for already).
    """

    name: str
    bytes: int
    sha256: str
    counts: bool


@dataclass(frozen=True)
class View:
    """The bytes of a submission, seen one way: `archive` or `faithful`.

    Attributes:
        files: the archive, and what else is paid for.
        inside: what the archive holds, each named `archive.zip/NAME`; paid for with the archive.
    """

    name: str
    files: tuple[Counted, ...]
    inside: tuple[Counted, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.files if f.counts)

    @property
    def digest(self) -> str:
        """Of all names and contents, the archive's name apart."""
        return digest([[f.name, f.sha256] for f in self.files[1:]] + [[self.files[0].sha256]])

    def score(self, seg: float, pose: float, original_bytes: int) -> Score:
        """The score of these distortions at this view's rate."""
        return Score(pose, seg, self.bytes, original_bytes)


def archive_only(archive: Path) -> View:
    """The view of the official rate: `archive.zip` and nothing else."""
    return View("archive", (Counted("archive.zip", archive.stat().st_size, sha256_file(archive), True),))


def rule_faithful(archive: Path, runtime: Mapping[str, Path]) -> View:
    """The archive and every runtime file.

    Args:
        runtime: name -> path of each file that the decoder is given.

    Raises:
        BadInput: the archive is no zip file.
    """
    files = list(archive_only(archive).files)
    inside = members(archive)
    paid = {f.sha256 for f in inside}
    for name, path in sorted(runtime.items()):
        content = sha256_file(path)
        files.append(Counted(name, path.stat().st_size, content, content not in paid))
        paid.add(content)
    return View("faithful", tuple(files), tuple(inside))


def members(archive: Path) -> list[Counted]:
    """Each file in the archive, unpacked.

    Raises:
        BadInput: it is no zip file, or a member is damaged.
    """
    found = []
    try:
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if info.is_dir():
                    continue
                seen = hashlib.sha256()
                with packed.open(info) as file:
                    while block := file.read(1 << 20):
                        seen.update(block)
                found.append(Counted(f"archive.zip/{info.filename}", info.file_size, seen.hexdigest(), False))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BadInput(f"the archive {archive} is no readable zip file: {error}", hint="make it again") from None
    return found


def unpack(archive: Path, into: Path) -> None:
    """Unpack the archive below `into`.

    Raises:
        BadInput: no zip file, or a member's name leads outside.
    """
    members(archive)
    into.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            target = (into / info.filename).resolve()
            if not target.is_relative_to(into.resolve()):
                raise BadInput(f"the archive's member {info.filename!r} leads outside of it", hint="make it again")
        packed.extractall(into)
