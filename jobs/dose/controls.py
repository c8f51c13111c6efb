"""Arms without a training: what a trained one is held against. No Keras is loaded for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.errors import BadInput
from jobs.dose.network_oracle import averaged, estimated
from jobs.dose.reconstruction import Reconstruction
from jobs.dose.samples import Samples
from jobs.dose.stitching import Canvas, stitch_weight, stitched

_AT_ONCE = 32  # groups


def mean_object(train: Samples, test: Samples, about: Mapping[str, Any]) -> tuple[Reconstruction, complex]:
    """The mean of the training object everywhere, and that number.

    Raises:
        BadInput: the data has no true patches.
    """
    data = train.data
    if data.patches is None:
        raise BadInput("the mean object needs true patches (Y), and this data has none", hint="leave this control out")
    weight, used = stitch_weight(data.probe_guess), np.unique(train.members)
    value = complex((data.patches[used] * weight).sum() / (len(used) * weight.sum()))
    frames = np.unique(test.members)
    x, y = test.data.x[frames], test.data.y[frames]
    canvas = Canvas(x, y, stitch_weight(test.data.probe_guess))
    canvas.add(np.full((len(frames), data.size, data.size), value), x, y)
    found, covered = canvas.picture()
    return Reconstruction(found, canvas.origin, covered, meta={**about, "engine": "mean"}), value


def physics_object(test: Samples, about: Mapping[str, Any]) -> Reconstruction:
    """The network's fixed layer by itself: each frame's estimate, averaged over its group, put together as patches are.

    It has no weights. What a trained network has over it is what its training adds; see `jobs.dose.architecture`.
    """
    data, members = test.data, test.members
    frames, at = np.unique(members, return_inverse=True)
    at = at.reshape(members.shape)
    own = np.concatenate(
        [estimated(data.probe_guess, data.diffraction[part]) for part in np.array_split(frames, len(frames))]
    )
    if members.shape[1] == 1:
        patches = own[at]
    else:
        spots, pad = test.positions, test.pad
        patches = np.concatenate(
            [
                averaged(own[at[i : i + _AT_ONCE]], spots[i : i + _AT_ONCE], data.probe_guess, pad)
                for i in range(0, len(members), _AT_ONCE)
            ]
        )
    index = members.ravel()
    every = patches.reshape(-1, *patches.shape[2:])
    picture, origin, covered = stitched(every, data.x[index], data.y[index], data.probe_guess)
    return Reconstruction(picture, origin, covered, meta={**about, "engine": "physics"})
