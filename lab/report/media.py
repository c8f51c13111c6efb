"""Pictures and films that jobs left, copied into the site under their content's name."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lab.report.doc import Block, Figure, Ident, Inline, Link, Name, Para, Video
from lab.report.reading import Held, Reading

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp"})
_FILMS = frozenset({".mp4", ".webm"})
_MOST_BYTES = 16 << 20


@dataclass
class Media:
    """`files`: what the site must hold, path -> bytes."""

    reading: Reading
    files: dict[str, bytes] = field(default_factory=dict)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, job_id: int, most: int = 6) -> list[Block]:
        """Figures of the pictures and films of a job, its own files only, each as its seal says it is."""
        held, _ = self.reading.files(job_id)
        shown = [h for h in held if h.name.startswith("artifacts/") and _suffix(h) in _PICTURES | _FILMS]
        posters = {PurePosixPath(h.name).with_suffix("").as_posix(): h for h in shown if _suffix(h) in _PICTURES}
        films = [h for h in shown if _suffix(h) in _FILMS]
        stills = {PurePosixPath(h.name).with_suffix("").as_posix() for h in films}
        out: list[Block] = []
        for one in shown:
            stem = PurePosixPath(one.name).with_suffix("").as_posix()
            if len(out) >= most:
                out.append(Para(["More pictures are in the ", Link("evidence index", "evidence.html"), "."], "faint"))
                break
            if _suffix(one) in _PICTURES and stem in stills:
                continue  # the first frame of the film
            out += self._one(one, posters.get(stem))
        return out

    def _one(self, held: Held, poster: Held | None) -> list[Block]:
        path = self._copied(held)
        if not path:
            return []
        name = PurePosixPath(held.name).name
        row = self.reading.file_row(held)
        caption: list[Inline] = [self.reading.book.told(row, "file"), " of ", *self.reading.called(held.job)]
        if _suffix(held) in _FILMS:
            still = self._copied(poster) if poster is not None else ""
            return [Video(path, ["Film ", Name(name), " of ", Ident(f"job {held.job}")], caption, still)]
        width, height = self._sizes[path]
        return [Figure(path, ["Picture ", Name(name), " of ", Ident(f"job {held.job}")], caption, width, height)]

    def _copied(self, held: Held) -> str:
        """Copy one file. Returns its path in the site; empty where its bytes are not what was sealed, or too many."""
        path = f"media/{held.sha256[:24]}{_suffix(held)}"
        if path in self.files:
            return path
        where = self.reading.run_of(held.job, held.attempt)
        if held.bytes > _MOST_BYTES:
            return ""
        try:
            data = (self.reading.home.path / where / held.name).read_bytes()
        except OSError as error:
            self._warn(held, f"cannot be read: {error.strerror or error}")
            return ""
        if hashlib.sha256(data).hexdigest() != held.sha256:
            self._warn(held, "is not what was sealed, and is not shown")
            return ""
        if _suffix(held) in _PICTURES:
            size = _size(data)
            if size is None:
                self._warn(held, "is no picture that can be read")
                return ""
            self._sizes[path] = size
        self.files[path] = data
        return path

    def _warn(self, held: Held, said: str) -> None:
        line = f"the picture {held.name} of job {held.job} {said}"
        if line not in self.reading.warnings:
            self.reading.warnings.append(line)


def _suffix(held: Held) -> str:
    return PurePosixPath(held.name).suffix.lower()


def _size(data: bytes) -> tuple[int, int] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width, image.height
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return None
