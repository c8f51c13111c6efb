"""The tables of `dose-data` and `dose-views`: one row for each file that a job makes."""

from __future__ import annotations

import pyarrow as pa

DOSE_DATA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),  # train, test, half_a, half_b
        pa.field("photons", pa.float64(), nullable=False),  # asked for, the mean of a pattern
        pa.field("photons_mean", pa.float64(), nullable=False),  # drawn
        pa.field("photons_least", pa.int64(), nullable=False),
        pa.field("photons_most", pa.int64(), nullable=False),
        # Of the mean of all frames, in its own standard deviations; null for measured data.
        pa.field("deviation", pa.float64()),
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("guard_frames", pa.int32(), nullable=False),  # given to nobody
        pa.field("shared_pixels", pa.int64()),  # of the object, read by training and test patches; null: no split
        pa.field("read_pixels", pa.int64()),  # of the object, by the patches of this file; null: no split
        pa.field("patch", pa.int32(), nullable=False),  # N
        pa.field("object_size", pa.int32(), nullable=False),  # M
        pa.field("s", pa.float64(), nullable=False),  # root of photons for one unit of the simulated amplitude
        pa.field("scale", pa.float64(), nullable=False),  # root of photons for one unit of the stored amplitude
        pa.field("fraction", pa.float64()),  # of the measured photons that was kept; null: simulated
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("truth_sha256", pa.string()),  # of the true object; null: nobody knows it
        pa.field("sha256", pa.string(), nullable=False),  # of the file
    ],
    metadata={"lab.headline": "file,photons,photons_mean,deviation,frames,guard_frames,shared_pixels,patch,source"},
)

DOSE_SPACING = pa.schema(
    [
        pa.field("view", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("gridsize", pa.int32(), nullable=False),
        pa.field("overlap", pa.float64()),  # f; null: every group is kept
        pa.field("neighbours", pa.int32(), nullable=False),  # K
        pa.field("per_point", pa.int32(), nullable=False),  # groups of each point before the view chooses
        pa.field("feasible", pa.bool_(), nullable=False),
        pa.field("groups", pa.int32(), nullable=False),
        pa.field("least_groups", pa.int32(), nullable=False),  # that are needed
        pa.field("frames", pa.int32(), nullable=False),  # of the split
        pa.field("frames_used", pa.int32(), nullable=False),  # that are in a group
        # Distances of the groups' centres, each to its nearest other, px; null with fewer than two.
        pa.field("least", pa.float64()),
        pa.field("mean", pa.float64()),
        pa.field("median", pa.float64()),
        pa.field("most", pa.float64()),
        pa.field("threshold", pa.float64(), nullable=False),  # S, px; 0: none
        pa.field("accepted", pa.int32(), nullable=False),
        pa.field("rejected", pa.int32(), nullable=False),
        pa.field("rate", pa.float64(), nullable=False),
        pa.field("edges", pa.list_(pa.float64()), nullable=False),  # of the histogram of those distances, px
        pa.field("histogram", pa.list_(pa.int32()), nullable=False),
        # Means of the overlap of discs; null where there is no pair.
        pa.field("disc", pa.float64(), nullable=False),  # their diameter, px
        pa.field("overlap_in_group", pa.float64()),
        pa.field("overlap_neighbours", pa.float64()),
        pa.field("overlap_centres", pa.float64()),
        pa.field("disc_pixels", pa.int64(), nullable=False),  # of the object, in the disc of a frame that is used
        pa.field("photons_per_pixel", pa.float64()),  # photons of the frames used, for each of these; null: no counts
    ],
    metadata={
        "lab.headline": "view,split,feasible,groups,frames_used,threshold,least,rate,overlap_neighbours,"
        "photons_per_pixel"
    },
)
