"""Taps: intermediate numbers of single pixels as records, so that two programs can be compared inside.

    1 config       the effective input (`digest`), key by key, and its SHA-256
    2 omega        solid angle of each sub-pixel, of the pixel called `edge`
    3 omega        the same of the pixel called `centre`
    4 f_cell       what the lookups of the pixel met
    5 intensity    before r_e² and fluence: accumulated, steps, polar, omega, normalised
    6 scaling      after them: physical, r_e_squared, fluence, background
    7 final        the pixel of the image; and of an image of the whole detector, where one is given

The numbers are a backend's own (`probe`), not the oracle's under another name. A record is
`{tap, name, tag, place, pixel: [slow, fast], oversample, values, utc}`; of an external program's records only
tap, pixel, oversample and values are needed, in a JSON array or one object with such an array as `records`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from kernels.fcell import build, digest
from kernels.fcell import probe as probe_pixel
from kernels.fcell.plan import R_E_SQUARED, Probe, build_plan, one_pixel
from kernels.fcell.types import Experiment, FcellRefused, Grid

NAMES = {1: "config", 2: "omega", 3: "omega", 4: "f_cell", 5: "intensity", 6: "scaling", 7: "final"}
ALL = tuple(NAMES)
EDGE, CENTRE = "edge", "centre"

Pixel = tuple[int, int]
Record = dict[str, Any]


class TapsRefused(FcellRefused):
    """Taps that cannot be taken, read or compared; the message says which."""


def taps(
    experiment: Experiment,
    grid: Grid | None,
    pixels: Mapping[str, Pixel],
    tag: str,
    backend: str = "numpy",
    *,
    which: Sequence[int] = ALL,
    frame: npt.NDArray[np.float32] | None = None,
) -> list[Record]:
    """One record per tap and pixel.

    Args:
        pixels: what to call it -> (slow, fast). `edge` has tap 2 and `centre` tap 3; others have neither.
        tag: who computed this; it stands in every record.
        which: the taps to take.
        frame: an image of the whole detector by the same backend, for tap 7: a pixel computed alone (a ROI of
            one) has to be that of the whole image.

    Raises:
        TapsRefused: no pixel, an unknown tap, or a frame that is not of this detector.
        FcellRefused, DeviceMissing, ImportError: as `kernels.fcell.probe`.
    """
    _check(experiment, pixels, which, frame)
    plan = build_plan(experiment, grid)
    for slow, fast in pixels.values():
        one_pixel(plan, slow, fast)
    kernel = build(backend, 1)
    found = []
    for place, (slow, fast) in pixels.items():
        probe = probe_pixel(experiment, grid, slow, fast, backend=backend)
        alone = kernel(build_plan(experiment, grid, (slow, slow + 1, fast, fast + 1)))
        final = {"final": float(alone.image[0, 0])}
        if frame is not None:
            final["without_roi"] = float(frame[slow, fast])
        found += records(experiment, grid, place, (slow, fast), tag, probe, final, which)
    return found


def records(
    experiment: Experiment,
    grid: Grid | None,
    place: str,
    pixel: Pixel,
    tag: str,
    probe: Probe,
    final: Mapping[str, float],
    which: Sequence[int] = ALL,
) -> list[Record]:
    """The records of one pixel, from what was measured of it: `probe`, and the values of tap 7."""
    told = digest.effective_input(experiment, grid)
    values: dict[int, dict[str, Any]] = {
        1: {**told.values, "sha256": told.sha256},
        4: _f_cell(probe, grid),
        5: _intensity(probe),
        6: {
            "physical": probe.physical,
            "r_e_squared": R_E_SQUARED,
            "fluence": experiment.beam.fluence,
            "background": 0.0,
        },
        7: {**final, "from_probe": probe.final},
    }
    if place in (EDGE, CENTRE):
        values[2 if place == EDGE else 3] = _omega(probe)
    return [
        {
            "tap": tap,
            "name": NAMES[tap],
            "tag": tag,
            "place": place,
            "pixel": [int(n) for n in pixel],
            "oversample": experiment.detector.oversample,
            "values": values[tap],
            "utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        for tap in sorted(set(which) & set(values))
    ]


@dataclass(frozen=True)
class Difference:
    """One field of one tap on two sides. `status` is same, close, differs, missing or extra.

    Attributes:
        first, second: as found; None on the side that lacks it.
        relative: |second - first| / |first| of two numbers, infinite where only first is 0; else None.
    """

    tap: int
    pixel: Pixel
    field: str
    first: Any
    second: Any
    relative: float | None
    status: str

    @property
    def ok(self) -> bool:
        """Whether a comparison passes with it. An extra field does no harm; a missing one proves nothing."""
        return self.status in ("same", "close", "extra")


def compare(first: Sequence[Record], second: Sequence[Record], tolerance: float = 1e-6) -> list[Difference]:
    """Field by field, the first side's records against those of the second.

    Records belong together by tap, pixel and oversampling. What is whole or text on the first side (counts,
    bounds, words) must be equal; other numbers may differ by `tolerance`, relatively. Whatever the first side has
    and the second lacks is `missing`.

    Raises:
        TapsRefused: one side has nothing, or two records of one tap and pixel.
    """
    ours, theirs = _keyed(first, "the first side"), _keyed(second, "the second side")
    found = []
    for key, record in ours.items():
        other = theirs.get(key)
        mine = dict(leaves(record["values"]))
        yours = dict(leaves(other["values"])) if other is not None else {}
        for name in (*mine, *(n for n in yours if n not in mine)):
            found.append(_difference(key, name, mine, yours, tolerance))
    for key, record in theirs.items():
        if key not in ours:
            yours = dict(leaves(record["values"]))
            found.extend(_difference(key, name, {}, yours, tolerance) for name in yours)
    return found


@dataclass(frozen=True)
class Row:
    """One field at the edge and at the centre, and their difference and ratio where both are numbers."""

    name: str
    field: str
    edge: Any
    centre: Any
    difference: float | None
    ratio: float | None


def side_by_side(found: Sequence[Record]) -> list[Row]:
    """Edge and centre of one program, field by field. Taps 2 and 3 are the two halves of one row."""
    sides: dict[str, dict[tuple[str, str], Any]] = {EDGE: {}, CENTRE: {}}
    for record in found:
        if record.get("place") in sides:
            side = sides[record["place"]]
            side.update({(NAMES[record["tap"]], name): value for name, value in leaves(record["values"])})
    edge, centre = sides[EDGE], sides[CENTRE]
    rows = []
    for key in (*edge, *(k for k in centre if k not in edge)):
        a, b = edge.get(key), centre.get(key)
        difference = ratio = None
        if _is_number(a) and _is_number(b):
            difference, ratio = float(b - a), float(b / a) if a != 0 else None
        rows.append(Row(*key, a, b, difference, ratio))
    return rows


def write_taps(path: str | Path, found: Sequence[Record]) -> None:
    """As a JSON array. Numbers read back as the same floats."""
    Path(path).write_text(json.dumps(list(found), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_taps(path: str | Path) -> list[Record]:
    """Records of any program, checked.

    Raises:
        TapsRefused: no such file, no JSON, or a record that is none; the message names it.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_int=_parse_int)
    except OSError as error:
        raise TapsRefused(f"{path} cannot be read as taps: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise TapsRefused(f"{path} is not JSON: {error}; give an array of tap records") from None
    if isinstance(found, dict):
        found = found.get("records")
    if not isinstance(found, list) or not found:
        raise TapsRefused(f"{path} holds no tap records: give a JSON array of them, or an object with `records`")
    return [_checked(record, f"{path} record {n}") for n, record in enumerate(found)]


def table(found: Sequence[Record]) -> list[dict[str, Any]]:
    """One row a field, all rows with the same columns, for a table: numbers in `number`, words in `text`."""
    return [
        {
            "tap": record["tap"],
            "name": NAMES[record["tap"]],
            "tag": record.get("tag", ""),
            "place": record.get("place", ""),
            "slow": record["pixel"][0],
            "fast": record["pixel"][1],
            "oversample": record["oversample"],
            "field": name,
            "number": float(value) if _is_number(value) else None,
            "text": None if _is_number(value) or value is None else str(value),
            "utc": record.get("utc", ""),
        }
        for record in found
        for name, value in leaves(record["values"])
    ]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of everything that is no mapping or list: `omega[0][1]`, `grid_hkl_bounds.h[0]`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for n, inner in enumerate(value):
            yield from leaves(inner, f"{name}[{n}]")
    else:
        yield name, value


def _omega(probe: Probe) -> dict[str, Any]:
    return {
        "omega": probe.omegas.tolist(),
        "used": probe.omega,
        "mean": float(probe.omegas.mean()),
        "spread": float(probe.omegas.max() - probe.omegas.min()),
    }


def _f_cell(probe: Probe, grid: Grid | None) -> dict[str, Any]:
    counts = probe.counts
    return {
        "total_lookups": counts.lookups,
        "listed": counts.listed,
        "unlisted": counts.unlisted,
        "out_of_grid": counts.out_of_grid,
        "no_grid": counts.no_grid,
        "zero_f_count": counts.zero_f,
        "mean_f_cell": counts.mean_f,
        "sampled_hkl_bounds": _bounds(counts.bounds),
        "grid_hkl_bounds": None if grid is None else _bounds(grid.bounds),
    }


def _bounds(bounds: Sequence[tuple[int, int]]) -> dict[str, list[int]]:
    return {axis: [int(n) for n in bound] for axis, bound in zip("hkl", bounds, strict=True)}


def _intensity(probe: Probe) -> dict[str, Any]:
    return {
        "accumulated": probe.intensity,
        "steps": probe.steps,
        "polar": probe.polar,
        "omega": probe.omega,
        "normalised": probe.normalised,
    }


def _check(
    experiment: Experiment,
    pixels: Mapping[str, Pixel],
    which: Sequence[int],
    frame: npt.NDArray[np.float32] | None,
) -> None:
    if not pixels:
        raise TapsRefused("no pixel to tap: give at least one, as name -> (slow, fast)")
    for place, pixel in pixels.items():
        if len(tuple(pixel)) != 2 or not all(_is_whole(n) for n in pixel):
            raise TapsRefused(f"pixel {place} must be (slow, fast), two whole numbers, not {pixel!r}")
    unknown = [tap for tap in which if tap not in NAMES]
    if unknown:
        raise TapsRefused(f"there is no tap {unknown[0]!r}: there are {', '.join(str(t) for t in ALL)}")
    detector = experiment.detector
    if frame is not None and frame.shape != (detector.slow, detector.fast):
        raise TapsRefused(f"the frame is {frame.shape}, and the detector has {detector.slow} × {detector.fast} pixels")


def _checked(record: Any, where: str) -> Record:
    if not isinstance(record, dict):
        raise TapsRefused(f"{where} is not an object with tap, pixel, oversample and values")
    if not _is_whole(record.get("tap")) or record["tap"] not in NAMES:
        raise TapsRefused(f"{where}: tap is {record.get('tap')!r}, and taps are 1 to 7")
    pixel = record.get("pixel")
    if not isinstance(pixel, list) or len(pixel) != 2 or not all(_is_whole(n) for n in pixel):
        raise TapsRefused(f"{where}: pixel is {pixel!r}, and a pixel is [slow, fast], two whole numbers")
    if not _is_whole(record.get("oversample")):
        raise TapsRefused(f"{where}: oversample is {record.get('oversample')!r}, and it is a whole number")
    if not isinstance(record.get("values"), dict):
        raise TapsRefused(f"{where}: it has no values, which are an object")
    return record


def _keyed(given: Sequence[Record], side: str) -> dict[tuple[int, int, int, int], Record]:
    if not given:
        raise TapsRefused(f"{side} has no tap records: there is nothing to compare")
    found: dict[tuple[int, int, int, int], Record] = {}
    for record in given:
        slow, fast = record["pixel"]
        key = (record["tap"], slow, fast, record["oversample"])
        if key in found:
            raise TapsRefused(f"{side} has tap {key[0]} of pixel ({slow}, {fast}) twice")
        found[key] = record
    return found


def _difference(
    key: tuple[int, int, int, int], name: str, mine: Mapping[str, Any], yours: Mapping[str, Any], tolerance: float
) -> Difference:
    a, b = mine.get(name), yours.get(name)
    relative = None
    if name not in mine:
        status = "extra"
    elif name not in yours:
        status = "missing"
    elif _is_number(a) and _is_number(b):
        gap = abs(b - a)
        relative = 0.0 if gap == 0 else gap / abs(a) if a != 0 else math.inf
        # Counts and bounds are whole: there is no close to them. What is not a number is close to nothing.
        near = not _is_whole(a) and relative <= tolerance
        status = "same" if a == b else "close" if near else "differs"
    else:
        status = "same" if type(a) is type(b) and a == b else "differs"
    return Difference(key[0], (key[1], key[2]), name, a, b, relative, status)


def _parse_int(digits: str) -> int | float:
    # No count has twenty digits, and whole numbers beyond float64 cannot be compared with one.
    return int(digits) if len(digits) < 19 else float(digits)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
