"""Arrays that came back as Arrow, as NumPy sees them: the same memory, no copies, read-only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_COMPLEX = "real, imaginary"


def from_rows(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Rows of the table `arrays`: array (name), dtype, shape, values (little-endian bytes, C order)."""
    found: dict[str, npt.NDArray[Any]] = {}
    for batch in table.to_batches():
        names, dtypes, shapes = (batch.column(c).to_pylist() for c in ("array", "dtype", "shape"))
        for name, dtype, shape, values in zip(names, dtypes, shapes, _views(batch.column("values")), strict=True):
            found[name] = np.frombuffer(values, dtype=np.dtype(dtype)).reshape(shape)
    return found


def _views(column: pa.LargeBinaryArray) -> list[pa.Buffer]:
    """The bytes of each value where they lie (a scalar of Arrow's would be a copy)."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    return [data.slice(start, stop - start) for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def from_files(paths: Mapping[str, Path]) -> dict[str, npt.NDArray[Any]]:
    """Arrow tensors, mapped: nothing is read before it is looked at. A last axis that says so is a complex number's."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, path in paths.items():
        tensor = pa.ipc.read_tensor(pa.memory_map(str(path)))
        array = tensor.to_numpy()
        if tensor.dim_names and tensor.dim_names[-1] == _COMPLEX:
            array = array.view(np.result_type(array.dtype, np.complex64))[..., 0]
        array.setflags(write=False)
        found[name] = array
    return found
