"""The challenge's own networks for the objective `upstream`: PoseNet and SegNet of a checkout that the user names.

The checkout's `modules.py` runs in this process, as a module with a private name. Its imports of its neighbours
(`frame_utils`) lead to the checkout's files and nobody else's do: no path and no public name is added. What runs is
what was hashed: every file is read once.

There the frames lose their gradients on the way into PoseNet: the conversion to Y'CbCr is decorated with
`torch.no_grad`. The decorators of the kind are taken off the checkout's own functions, in this process only; the
arithmetic stays theirs, operation by operation. That gradients do arrive is tried before the training starts.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib.util
import io
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import JobFailed
from jobs.score.checkout import MODELS
from jobs.train.networks import MODULES, POSE, SEG, digest_of, files_of, weights_name
from jobs.train.objective import Upstream
from jobs.train.recipe import Recipe
from kernels.postfilter.torch_ import plain_float32

HEAD, OUTPUTS = "pose", 6
# What a library is called where one installs it, if it is not called what one imports.
_CALLED = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
_CLOSE = 1e-4  # relative: our pose term against the checkout's own, both sums of six float32 numbers
_DECORATORS = torch.utils._contextlib.__file__


class UpstreamRefused(JobFailed):
    """The checkout's networks cannot be had here, or are not what the objective needs."""

    slug = "upstream-refused"


@dataclass(frozen=True)
class Pose:
    """(1, at least 6) of a pair (2, 3, H, W) with values from 0 to 255: what the head `pose` gives."""

    net: Any

    def __call__(self, pair: Tensor) -> Tensor:
        made = self.outputs(pair)
        found = made.get(HEAD) if isinstance(made, Mapping) else None
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 1 or found.shape[1] < OUTPUTS:
            raise UpstreamRefused(
                f"{POSE} gives {_said(made)}: it must give a mapping whose {HEAD!r} has at least {OUTPUTS} numbers"
            )
        return found

    def outputs(self, pair: Tensor) -> Any:
        return self.net(self.net.preprocess_input(pair.unsqueeze(0)))


@dataclass(frozen=True)
class Seg:
    """(1, classes, h, w) logits of the second frame of a pair (2, 3, H, W) with values from 0 to 255."""

    net: Any

    def __call__(self, pair: Tensor) -> Tensor:
        made = self.net(self.net.preprocess_input(pair.unsqueeze(0)))
        if not isinstance(made, Tensor) or made.ndim != 4 or len(made) != 1 or made.shape[1] < 2:
            raise UpstreamRefused(f"{SEG} gives {_said(made)}: it must give logits of two classes or more")
        return made


@dataclass(frozen=True)
class Networks:
    """Both networks on their device, in eval mode; gradients go to the frames and never to the weights.

    Attributes:
        sha256: of the files that they were made of, as `Version` has it.
    """

    pose: Pose
    seg: Seg
    sha256: str

    def objective(self, recipe: Recipe) -> Upstream:
        return Upstream.of(recipe, self.pose, self.seg)


def load(
    parts: Mapping[str, Path], device: torch.device, *, height: int, width: int, sha256: str | None = None
) -> Networks:
    """Build both networks, load their weights, and try them on two pairs of frames of this size.

    The random number generators of the process are left as they were.

    Args:
        parts: as `network_parts` gives them, wherever they lie now.
        sha256: what `Version.sha256` was; None takes any.

    Raises:
        UpstreamRefused: the files are others, a library is missing, the code does not run, weights do not fit, or
            outputs or gradients are not what the objective needs.
    """
    files = files_of(parts)
    try:
        contents = {name: file.read_bytes() for name, file in files.items()}
    except OSError as error:
        raise UpstreamRefused(f"{error.filename} of the checkout cannot be read: {error.strerror}") from None
    found = digest_of({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    if sha256 is not None and found != sha256:
        raise UpstreamRefused(
            f"the checkout's code or weights are not those that this training was made for: {found[:12]} in place of "
            f"{sha256[:12]}",
            hint="bring them back as they were, or submit anew",
        )
    code = _Code({n: (c, str(files[n])) for n, c in contents.items() if n.endswith(".py") and "/" not in n}, found)
    with _undisturbed(device), plain_float32(device):
        modules = code.module(MODULES.removesuffix(".py"))
        pose, seg = (_network(modules, name, files, contents, device) for name in (POSE, SEG))
        networks = Networks(Pose(pose), Seg(seg), found)
        _try(networks, device, height, width)
    return networks


class _Code:
    """The checkout's Python, in modules of private names.

    Args:
        sources: file name -> (content, path to show).
        sha256: names the modules.
    """

    def __init__(self, sources: Mapping[str, tuple[bytes, str]], sha256: str) -> None:
        self.sources = {name.removesuffix(".py"): source for name, source in sources.items()}
        self.prefix = f"_upstream_{sha256[:12]}_"
        self.made: dict[str, ModuleType] = {}

    def module(self, name: str) -> ModuleType:
        """Raises UpstreamRefused: a library is missing, or it does not run."""
        if name in self.made:
            return self.made[name]
        content, path = self.sources.get(name, (None, ""))
        if content is None:
            raise UpstreamRefused(f"the checkout has no {name}.py: its networks cannot be had")
        module = ModuleType(self.prefix + name)
        module.__file__ = path
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        self.made[name] = sys.modules[module.__name__] = module  # dataclasses look for it there
        try:
            tree = ast.parse(content, path)
            _refuse_missing(_libraries(tree) - set(self.sources), path)
            exec(compile(tree, path, "exec", dont_inherit=True), vars(module))
        except (Exception, SystemExit) as error:
            del self.made[name], sys.modules[module.__name__]
            if isinstance(error, UpstreamRefused):
                raise
            raise UpstreamRefused(f"{path} cannot be run: {type(error).__name__}: {_line(error)}") from error
        _let_gradients_through(module, self.prefix)
        return module

    def _import(
        self, name: str, names: Any = None, local: Any = None, wanted: Sequence[str] | None = (), level: int = 0
    ) -> Any:
        if level == 0 and name in self.sources:
            return self.module(name)
        return builtins.__import__(name, names, local, wanted or (), level)


def _let_gradients_through(module: ModuleType, prefix: str) -> None:
    """Take `torch.no_grad` and its like off the checkout's own functions and methods."""
    for name, value in list(vars(module).items()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            for own, method in list(vars(value).items()):
                if _bare(method) is not method:
                    setattr(value, own, _bare(method))
        elif getattr(value, "__module__", "").startswith(prefix):
            setattr(module, name, _bare(value))


def _bare(function: Any) -> Any:
    while (
        isinstance(function, FunctionType)
        and function.__code__.co_filename == _DECORATORS
        and hasattr(function, "__wrapped__")
    ):
        function = function.__wrapped__
    return function


def _libraries(tree: ast.Module) -> set[str]:
    """What a module imports as it is run, by the first part of each name."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _refuse_missing(libraries: set[str], path: str) -> None:
    missing = sorted(_CALLED.get(name, name) for name in libraries if importlib.util.find_spec(name) is None)
    if missing:
        raise UpstreamRefused(
            f"{path} needs {', '.join(missing)}, which this interpreter ({sys.executable}) has not",
            hint=f"install with `pip install {' '.join(missing)}`",
        )


def _network(
    modules: ModuleType, name: str, files: Mapping[str, Path], contents: Mapping[str, bytes], device: torch.device
) -> nn.Module:
    """One network with its weights."""
    make = getattr(modules, name, None)
    if not (isinstance(make, type) and issubclass(make, nn.Module) and hasattr(make, "preprocess_input")):
        raise UpstreamRefused(f"{modules.__file__} has no network {name} with a preprocess_input: another version")
    weights = weights_name(name, {n.removeprefix(f"{MODELS}/"): f for n, f in files.items()})
    if weights is None:
        raise UpstreamRefused(f"the checkout's {MODELS} has no weights of {name}")
    try:
        net: nn.Module = make()
    except Exception as error:
        raise UpstreamRefused(f"{name} of {modules.__file__} cannot be made: {_line(error)}") from error
    path = files[f"{MODELS}/{weights}"]
    tensors = _tensors(contents[f"{MODELS}/{weights}"], path)
    _refuse_unfit(tensors, net.state_dict(), path, name)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False).to(device)


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, without running anything in it."""
    read: Callable[[bytes], Any]
    if path.suffix == ".safetensors":
        _refuse_missing({"safetensors"}, str(path))
        read = importlib.import_module("safetensors.torch").load
    else:

        def read(content: bytes) -> Any:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    try:
        found = read(content)
    except Exception as error:
        raise UpstreamRefused(f"{path} cannot be read as weights: {_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise UpstreamRefused(f"{path} is {_said(found)}: it must be tensors by name")
    return found


def _refuse_unfit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, network: str) -> None:
    wrong = [f"no {name}" for name in wanted if name not in given]
    wrong += [f"{name}, which there is none of" for name in given if name not in wanted]
    both = [name for name in wanted if name in given]
    wrong += [
        f"{name} {tuple(given[name].shape)} in place of {tuple(wanted[name].shape)}"
        for name in both
        if given[name].shape != wanted[name].shape
    ]
    wrong += [f"{name} with values that are no numbers" for name in both if not given[name].isfinite().all()]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UpstreamRefused(f"{path} does not fit {network}: it has {'; '.join(wrong[:3])}{more}")


def _try(networks: Networks, device: torch.device, height: int, width: int) -> None:
    """Two pairs of noise: outputs, gradients, and the checkout's own measure of their difference."""
    source = torch.Generator().manual_seed(0)
    one, other = (torch.rand((2, height, width, 3), generator=source).mul(255).permute(0, 3, 1, 2) for _ in range(2))
    one, other = one.to(device).requires_grad_(), other.to(device)
    for name, network in ((POSE, networks.pose), (SEG, networks.seg)):
        try:
            made = network(one)
            (slope,) = (
                torch.autograd.grad(made.square().sum(), one, allow_unused=True) if made.requires_grad else (None,)
            )
        except (UpstreamRefused, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise UpstreamRefused(f"{name} cannot take a pair of {width}×{height}: {_line(error)}") from error
        if not made.isfinite().all():
            raise UpstreamRefused(f"{name} gives values that are no numbers for a pair of {width}×{height}")
        if slope is None or not slope.isfinite().all() or not slope.any():
            raise UpstreamRefused(f"no gradient comes through {name} to the frames: nothing could be trained with it")
    with torch.no_grad():
        outputs = [networks.pose.outputs(pair) for pair in (one, other)]
        ours = float((outputs[0][HEAD][..., :OUTPUTS] - outputs[1][HEAD][..., :OUTPUTS]).square().mean())
        try:
            theirs = float(networks.pose.net.compute_distortion(*outputs))
        except Exception as error:
            raise UpstreamRefused(f"{POSE}.compute_distortion fails: {_line(error)}") from error
    if not abs(ours - theirs) <= _CLOSE * abs(theirs):
        raise UpstreamRefused(
            f"{POSE} calls two pairs {theirs:g} apart, and its first {OUTPUTS} outputs are {ours:g} apart: it measures "
            "something else than the objective"
        )


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Networks are made with random numbers, which the training must not miss."""
    before, theirs = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(before)
            random.setstate(theirs)


def _said(made: Any) -> str:
    if isinstance(made, Tensor):
        return f"a tensor {tuple(made.shape)}"
    if isinstance(made, Mapping):
        return "{" + ", ".join(f"{name!r}: {_said(value)}" for name, value in list(made.items())[:4]) + "}"
    return f"a {type(made).__name__}"


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
