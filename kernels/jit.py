"""Numba for the kernels: one decorator for loops, one for exact scalars, and the few words LLVM needs to vectorise.

What made loops fast, and nothing else did:
- `contract` is the only fast-math flag: a·b + c becomes one instruction. Nothing is reordered, NaN stays NaN.
- A loop that reads a table at computed places and writes an array is not vectorised, because LLVM cannot know
  that the two do not overlap. `lookup` (the table) and `peek`, `poke` (the arrays of the loop) say so.
- A sum in a loop is a chain that may not be reordered; `gather_sum` allows that for this one addition.
- Division has NumPy's rules: the check for 0 that Python wants is an exit from the loop.

Nothing here is tied to a processor: these are notes to LLVM, and where they do not help they cost nothing.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.ir as ir
import numba
from numba.core import config, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

F = TypeVar("F", bound=Callable[..., Any])


def fused(function: F) -> F:
    """Compile a loop for speed: a·b + c is one rounding, the interpreter lock is not held."""
    return cast("F", _cached(numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(function), function))


def part(function: F) -> F:
    """A piece of a `fused` loop: it becomes part of its caller, and what it computes once is computed once there."""
    loop = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)
    return cast("F", loop(function))


def exact(function: F) -> F:
    """Compile scalars that round as NumPy does, operation by operation; the interpreter lock is not held."""
    return cast("F", _cached(numba.njit(nogil=True, error_model="numpy")(function), function))


def warm(run: Callable[[], object]) -> float:
    """Seconds that the first call of something takes: compilation, or reading what an earlier process compiled."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cached(dispatcher: Any, function: Callable[..., Any]) -> Any:
    folder = _cache_folder(Path(function.__code__.co_filename).parent)
    if folder is None:
        return dispatcher
    # Numba reads the folder once, here; what others compile goes where it went before.
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no source file to key it by, as in a zip
        pass
    finally:
        config.CACHE_DIR = before
    return dispatcher


_folders: dict[Path, Path | None] = {}


def _cache_folder(package: Path) -> Path | None:
    """Where compiled code of a package is kept; None where nothing can be written: then every process compiles.

    Numba keys a function by its own file. A function it calls from another file may have changed, so the folder
    is named after the text of every module of the package and of this one.
    """
    if package not in _folders:
        _folders[package] = next((found for found in _candidates(package) if _writable(found)), None)
    return _folders[package]


def _candidates(package: Path) -> list[Path]:
    digest = hashlib.sha256(f"{sys.version}\n{numba.__version__}\n".encode())
    try:
        for path in (Path(__file__), *sorted(package.glob("*.py"))):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    except OSError:  # a zip, or source that may not be read: there is nothing to key a cache by
        return []
    name = f"numba-{digest.hexdigest()[:16]}"
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR) / name]
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [package / "__pycache__" / name, Path(home).expanduser() / "lab" / name]


def _writable(folder: Path) -> bool:
    if sys.dont_write_bytecode:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


# --- words for LLVM ---------------------------------------------------------------------------------------------


# Inside the loops these are calls, whatever they are here.
_word: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


def _table_scope(builder: Any) -> Any:
    module = builder.module
    domain = module.add_metadata([ir.MetaDataString(module, "kernels.memory")])
    return module.add_metadata([module.add_metadata([ir.MetaDataString(module, "kernels.table"), domain])])


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    if index.type.width < 64:
        index = builder.sext(index, ir.IntType(64))
    return builder.gep(make_array(kind)(context, builder, array).data, [index], inbounds=True)


@_word
def lookup(_typing: Any, table: Any, index: Any) -> Any:
    """table[index] of a contiguous table that no `poke` ever writes to. No bounds are checked."""

    def code(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        value = builder.load(_place(context, builder, table, args[0], args[1]))
        value.set_metadata("alias.scope", _table_scope(builder))
        return value

    return table.dtype(table, index), code


@_word
def peek(_typing: Any, array: Any, index: Any) -> Any:
    """array[index] of a contiguous array that is no table of `lookup`. No bounds are checked."""

    def code(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        value = builder.load(_place(context, builder, array, args[0], args[1]))
        value.set_metadata("noalias", _table_scope(builder))
        return value

    return array.dtype(array, index), code


@_word
def poke(_typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value, for a contiguous array that is no table of `lookup`. No bounds are checked."""

    def code(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        store = builder.store(args[2], _place(context, builder, array, args[0], args[1]))
        store.set_metadata("noalias", _table_scope(builder))
        return context.get_dummy_value()

    return types.void(array, index, array.dtype), code


@_word
def gather_sum(_typing: Any, total: Any, term: Any) -> Any:
    """total + term, in whatever order suits the machine: the last digits of a long sum may differ between two."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1], flags=["reassoc", "nsz", "contract"])

    return types.float64(types.float64, types.float64), code


@_word
def greater(_typing: Any, first: Any, second: Any) -> Any:
    """The greater of two numbers that are not NaN."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        flags = ["nnan", "nsz"]
        return builder.select(builder.fcmp_ordered(">", args[0], args[1], flags=flags), args[0], args[1], flags=flags)

    return types.float64(types.float64, types.float64), code


@_word
def bits(_typing: Any, value: Any) -> Any:
    """The 64 bits of a float64 as an integer."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), code
