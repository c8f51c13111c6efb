"""What a comparison writes: the rows of its tables, its arrays, and `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.dose.compare_tables import TABLE_METRICS, empty
from jobs.dose.conditions import CONTROLS
from jobs.dose_kinds.compare import CompareParams
from kernels.diffraction.frc import HALF, SEVENTH, Curve, Reached, cutoff, half_bit
from kernels.diffraction.registration import Shifted
from kernels.diffraction.similarity import parameters

if TYPE_CHECKING:
    from jobs.dose.compare import Comparison, Measured
    from jobs.dose.compare_inputs import Exposure, Given

SCHEMA = "lab.dose-compare/1"
BOTH_HALVES = "halves"  # what the row of the two halves is called


def metric_rows(p: CompareParams, given: Given, found: Comparison, exposure: Exposure) -> list[dict[str, Any]]:
    """Rows of the table `dose_metrics`, in the order of the study."""

    def row(arm: str, status: str, reason: str | None, against: str, **known: Any) -> dict[str, Any]:
        return empty(
            TABLE_METRICS,
            **_condition(p),
            arm=arm,
            control=arm in CONTROLS or arm.startswith("untrained"),
            status=status,
            reason=reason,
            against=against,
            ms_ssim_blur=p.blur,
            frc_threshold=p.frc_threshold,
            region_top=found.region.top,
            region_left=found.region.left,
            region_height=found.region.height,
            region_width=found.region.width,
            trimmed=found.trimmed,
            part_seen=found.part_seen,
            frames=exposure.frames,
            photons_per_pixel=exposure.per_pixel,
            photons_drawn=exposure.drawn,
            **{"flags": "", **known},
        )

    holes: list[str] = []
    if found.seen is not None:
        holes.append(
            f"{1 - found.part_seen:.1%} of the region got no light: there the reference stands in every arm alike, "
            "which lifts SSIM and MS-SSIM; errors and FRC are of the rest"
        )
    rows = []
    for name in given.names:
        if name in given.missing:
            rows.append(row(name, "missing", given.missing[name], given.against))
        elif name in given.unreadable or name in found.failed:
            rows.append(row(name, "failed", {**given.unreadable, **found.failed}[name], given.against))
        else:
            rows.append(row(name, "measured", None, given.against, **_numbers(found.arms[name], p, holes)))
    if found.halves is not None:
        cuts, flags = _cutoffs(found.halves, p)
        rows.append(row(BOTH_HALVES, "measured", None, "half_a of half_b", **cuts, flags=_sentences(flags)))
    elif given.apart:
        rows.append(row(BOTH_HALVES, "failed", given.apart, "half_a of half_b"))
    return [_rounded(each) for each in rows]


def frc_rows(p: CompareParams, found: Comparison) -> list[dict[str, Any]]:
    """Rows of the table `dose_frc`: every ring of every curve."""
    curves = {name: each.curve for name, each in found.arms.items()}
    if found.halves is not None:
        curves[BOTH_HALVES] = found.halves
    rows = []
    for name, curve in curves.items():
        limits = half_bit(curve.n)
        for k, frequency in enumerate(curve.frequency):
            rows.append(
                _rounded(
                    {
                        **_condition(p),
                        "arm": name,
                        "ring": k + 1,
                        "frequency": float(frequency),
                        "frc": _finite(float(curve.frc[k])),
                        "n": int(curve.n[k]),
                        "half_bit": float(limits[k]),
                    }
                )
            )
    return rows


def aligned_arrays(found: Comparison, against: str) -> dict[str, npt.NDArray[Any]]:
    """What the aligned NPZ holds: the reference and every measured arm, complex64 (H, W), and where they lie."""
    region = found.region
    return {
        against: found.reference.astype(np.complex64),
        **{name: each.object.astype(np.complex64) for name, each in found.arms.items()},
        "region": np.asarray([region.top, region.left, region.height, region.width], dtype=np.int64),
        **({} if found.seen is None else {"seen": found.seen}),
    }


def metrics_document(
    p: CompareParams,
    given: Given,
    found: Comparison,
    exposure: Exposure,
    rows: list[dict[str, Any]],
    rings: list[dict[str, Any]],
) -> dict[str, Any]:
    """What `metrics.json` holds; plain JSON, no value that is not finite.

    `frc` is name -> {frequency, frc, n, half_bit}, lists of one length, frequencies in cycles per pixel.
    """
    curves: dict[str, dict[str, list[Any]]] = {}
    for ring in rings:
        curve = curves.setdefault(ring["arm"], {"frequency": [], "frc": [], "n": [], "half_bit": []})
        for name, values in curve.items():
            values.append(ring[name])
    region = found.region
    return {
        "schema": SCHEMA,
        "condition": _condition(p),
        "against": given.against,
        "region": {
            "top": region.top,
            "left": region.left,
            "height": region.height,
            "width": region.width,
            "trimmed": found.trimmed,
            "rule": "the largest rectangle that all arms and the reference cover, less the longest shift; where holes "
            "leave little of it, the window of their coverage with its holes",
            "part_seen": found.part_seen,
        },
        "exposure": {
            "frames": exposure.frames,
            "photons_drawn": exposure.drawn,
            "photons_per_pixel": exposure.per_pixel,
        },
        "made_with": {
            **parameters(p.blur),
            "window": f"Tukey, alpha {p.window:g}, mean removed",
            "registration": "phase_cross_correlation(upsample_factor=50, normalization=None), undone in Fourier space",
            "shift_cap_px": p.shift_cap,
        },
        "notes": list(given.notes),
        "arms": {name: _plain(arm.meta) for name, arm in given.arms.items()},
        "rows": rows,
        "frc": curves,
    }


def _numbers(measured: Measured, p: CompareParams, holes: list[str]) -> dict[str, Any]:
    """Every column of a measured arm; what is not finite is missing and told among the flags."""
    s, a = measured.similarity, measured.aligned
    cuts, flags = _cutoffs(measured.curve, p)
    flags = [*holes, *s.why, *flags]
    if a.shift.state is Shifted.OVER_CAP:
        flags.insert(
            0,
            f"not registered: the shift that was found, ({a.shift.x:g}, {a.shift.y:g}) px, is over the cap of "
            f"{p.shift_cap:g} px",
        )
    for what, value in (("phase", s.psnr_phase), ("amplitude", s.psnr_amplitude)):
        if value is not None and math.isinf(value):
            flags.append(f"the {what} is the reference's to the last digit: its PSNR is infinite and left out")
    return {
        **{
            name: getattr(s, name)
            for name in (
                "ms_ssim_phase",
                "ms_ssim_amplitude",
                "ms_ssim_phase_blurred",
                "ms_ssim_amplitude_unblurred",
                "ssim_phase",
                "ssim_amplitude",
                "peak_phase",
                "peak_amplitude",
                "range_amplitude",
                "mae_phase",
                "mae_amplitude",
                "mse_phase",
                "mse_amplitude",
                "relative_error",
            )
        },
        "ms_ssim_scales": s.scales,
        "psnr_phase": _finite(s.psnr_phase),
        "psnr_amplitude": _finite(s.psnr_amplitude),
        **cuts,
        "shift_x": a.shift.x,
        "shift_y": a.shift.y,
        "shift_state": str(a.shift.state),
        "ramp_x": a.ramp_x,
        "ramp_y": a.ramp_y,
        "scale_abs": abs(a.scale),
        "scale_angle": math.atan2(a.scale.imag, a.scale.real),
        "flags": _sentences(flags),
    }


def _cutoffs(curve: Curve, p: CompareParams) -> tuple[dict[str, Any], list[str]]:
    half = cutoff(curve, HALF)
    flags = [] if half.reached is Reached.CROSSES else [f"FRC at 0.5: {half.reached}"]
    return {
        "frc50": half.frequency,
        "frc50_of_nyquist": half.of_nyquist,
        "frc50_reached": half.reached.name.lower(),
        "frc_seventh": cutoff(curve, SEVENTH).frequency,
        "frc_half_bit": cutoff(curve, half_bit(curve.n)).frequency,
        "frc_cutoff": cutoff(curve, p.frc_threshold).frequency,
    }, flags


def _condition(p: CompareParams) -> dict[str, Any]:
    return {
        "condition": p.condition,
        "photons": p.photons,
        "view": p.view,
        "gridsize": p.gridsize,
        "seed": p.seed,
    }


def _sentences(flags: list[str]) -> str:
    return "; ".join(flags)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """To ten digits: what another processor adds up in another order does not show in a table."""
    return {name: float(f"{v:.10g}") if isinstance(v, float) else v for name, v in row.items()}


def _plain(value: Any) -> Any:
    """JSON values of somebody else's, with null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
