"""The tables of `dose-compare`: one row for each arm, and one for each ring of its Fourier ring correlation."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def _field(name: str, kind: pa.DataType, unit: str = "", *, may_miss: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=may_miss, metadata={"unit": unit} if unit else None)


def _number(name: str, unit: str = "") -> pa.Field:
    """A measurement: missing where the arm is, or where it cannot be had (`flags` says why)."""
    return _field(name, pa.float64(), unit, may_miss=True)


_CONDITION = [
    _field("condition", pa.string()),
    _field("photons", pa.float64(), "a pattern, asked for"),
    _field("view", pa.string()),
    _field("gridsize", pa.int64()),
    _field("seed", pa.int64()),
    _field("arm", pa.string()),
]

TABLE_METRICS = pa.schema(
    [
        *_CONDITION,
        _field("control", pa.bool_()),  # what a trained arm must beat
        _field("status", pa.string()),  # measured; missing: none was given; failed: what was given cannot be compared
        _field("reason", pa.string(), may_miss=True),  # of missing and failed
        _field("flags", pa.string()),  # sentences that the reader of the numbers must know; empty: none
        _field("against", pa.string()),  # truth, reference (the full dose), or half_a of half_b
        _number("ms_ssim_phase"),
        _number("ms_ssim_amplitude"),  # after a Gaussian blur of the amplitude, sigma ms_ssim_blur
        _number("ms_ssim_phase_blurred"),
        _number("ms_ssim_amplitude_unblurred"),
        _field("ms_ssim_scales", pa.int64(), may_miss=True),
        _field("ms_ssim_blur", pa.float64(), "pixels"),
        _number("ssim_phase"),
        _number("ssim_amplitude"),
        _number("psnr_phase", "dB"),
        _number("psnr_amplitude", "dB"),
        _number("peak_phase", "rad"),  # of the PSNR, and the range of SSIM: greatest less least of the reference
        _number("peak_amplitude", "the reference's"),  # of the PSNR: the greatest of the reference
        _number("range_amplitude", "the reference's"),  # of SSIM: greatest less least of the reference
        _number("mae_phase", "rad"),
        _number("mae_amplitude", "the reference's"),
        _number("mse_phase", "rad²"),
        _number("mse_amplitude", "the reference's, squared"),
        _number("relative_error"),  # of the complex object
        _number("frc50", "cycles/pixel"),
        _number("frc50_of_nyquist"),
        _field("frc50_reached", pa.string(), may_miss=True),  # is it a crossing
        _number("frc_seventh", "cycles/pixel"),
        _number("frc_half_bit", "cycles/pixel"),
        _number("frc_cutoff", "cycles/pixel"),  # at frc_threshold
        _field("frc_threshold", pa.float64()),
        _number("shift_x", "pixels"),
        _number("shift_y", "pixels"),
        _field("shift_state", pa.string(), may_miss=True),
        _number("ramp_x", "rad/pixel"),
        _number("ramp_y", "rad/pixel"),
        _number("scale_abs"),
        _number("scale_angle", "rad"),
        _field("region_top", pa.int64(), "pixels"),
        _field("region_left", pa.int64(), "pixels"),
        _field("region_height", pa.int64(), "pixels"),
        _field("region_width", pa.int64(), "pixels"),
        _field("trimmed", pa.int64(), "pixels"),  # along each border, of every arm alike, for the longest shift
        _number("part_seen"),  # of the region; the rest got no light, and the reference stands there in every arm
        _field("frames", pa.int64(), may_miss=True),  # that an arm could use; null: the views were not given
        _number("photons_per_pixel", "total, mean over the region"),
        _number("photons_drawn", "a pattern"),
    ],
    metadata={
        "lab.headline": "condition,arm,status,ms_ssim_phase,ms_ssim_amplitude,ssim_phase,frc50,relative_error,"
        "photons_per_pixel",
    },
)

FRC = pa.schema(
    [
        *_CONDITION,
        _field("ring", pa.int64()),
        _field("frequency", pa.float64(), "cycles/pixel"),
        _field("frc", pa.float64(), may_miss=True),  # null: a ring of one image is empty
        _field("n", pa.int64(), "Fourier pixels"),
        _field("half_bit", pa.float64()),  # the threshold of a ring with n pixels
    ],
    metadata={"lab.headline": "condition,arm,frequency,frc,n"},
)


def empty(schema: pa.Schema, **known: Any) -> dict[str, Any]:
    """A row with what is known, and nothing else."""
    return {**dict.fromkeys(schema.names), **known}
