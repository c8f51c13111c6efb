"""Which files of the challenge's checkout make its two networks. Imports no torch: a submit looks at them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import BadInput
from core.fsio import digest, sha256_file
from jobs.score.checkout import MODELS, Layout, files_below, git_says, video_names

MODULES = "modules.py"
POSE, SEG = "PoseNet", "SegNet"
# The first that is there is taken.
ENDINGS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Version:
    """Which networks these are.

    Attributes:
        commit, dirty: what git says of these files; None where nothing says.
        files: name in the checkout -> SHA-256 (hex) of every Python module of it and of every file of its models.
    """

    commit: str | None
    dirty: bool | None
    files: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Of names and contents, as `jobs.score.checkout.scorer_digest` has it."""
        return digest_of(self.files)


def network_parts(checkout: Path, layout: Layout | None = None) -> dict[str, Path]:
    """Name in the checkout -> path of what the networks are made of: its Python modules and its models. Runs nothing.

    Raises:
        BadInput: it is no checkout of the challenge, or lacks a class or the weights of a network.
    """
    layout = layout or Layout()
    if not checkout.is_dir():
        raise BadInput(f"there is no checkout {checkout}", hint="name the folder of the challenge's checkout")
    data = {layout.videos, layout.names}
    found = {name: path for name, path in layout.parts(checkout).items() if name not in data}
    for name in (MODULES, MODELS):
        if name not in found:
            raise BadInput(f"the checkout {checkout} has no {name}: its networks cannot be had", hint="name another")
    classes = _classes(found[MODULES])
    files = files_below(found[MODELS])
    for network in (POSE, SEG):
        if network not in classes:
            raise BadInput(f"{found[MODULES]} has no class {network}: it is another version", hint="name another")
        if weights_name(network, files) is None:
            raise BadInput(
                f"{found[MODELS]} has no {network.lower()}{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}",
                hint="get the weights (`git lfs pull` there)",
            )
    return found


def version_of(checkout: Path, layout: Layout | None = None) -> Version:
    """Raises BadInput as `network_parts` does."""
    parts = network_parts(checkout, layout)
    commit, dirty = git_says(checkout, list(parts))
    return Version(commit, dirty, {name: sha256_file(file) for name, file in files_of(parts).items()})


def videos_of(checkout: Path, layout: Layout | None = None) -> list[Path]:
    """The videos that the checkout evaluates, in its order.

    Raises:
        BadInput: one is missing.
    """
    layout = layout or Layout()
    parts = layout.parts(checkout)
    found = [parts[layout.videos] / name for name in video_names(parts[layout.names])]
    for path in found:
        if not path.is_file():
            raise BadInput(f"{parts[layout.names]} names {path.name}, and there is no {path}", hint="get the video")
    return found


def files_of(parts: Mapping[str, Path]) -> dict[str, Path]:
    """Name in the checkout -> file."""
    return {
        f"{name}/{below}" if below else name: file
        for name, path in parts.items()
        for below, file in files_below(path).items()
    }


def digest_of(files: Mapping[str, str]) -> str:
    """Of name -> SHA-256, as `jobs.score.checkout.scorer_digest` has it."""
    return digest(sorted([name, sha256] for name, sha256 in files.items()))


def _classes(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{path} is no Python: {error}", hint="name another checkout") from None
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def weights_name(network: str, files: Mapping[str, Path]) -> str | None:
    """The file below `models` that holds a network's weights."""
    return next((name for ending in ENDINGS if (name := network.lower() + ending) in files), None)
