"""Sparse weights: half of each output channel's are zero, those of least magnitude.

By the channel, since a batch norm folded into a layer scales whole channels: the same weights are
least before and after. So no channel goes wholly, and how many are left is known from the shape
(Zhu and Gupta, "To prune, or not to prune", 2017, for magnitude as the measure).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def sparse_weight(weight: Tensor, *, axis: int) -> Tensor:
    """Return the weight with the smaller half of each output channel's at zero.

    ``axis`` is the dimension of the output channels; of an odd number the larger half stays, of
    equal magnitudes the later ones. A weight that has those zeros is returned as it is.
    """
    rows = weight.detach().movedim(axis, 0)
    flat = rows.reshape(rows.shape[0], -1)
    least = flat.abs().argsort(dim=1, stable=True)[:, : flat.shape[1] // 2]
    return flat.scatter(1, least, 0.0).reshape(rows.shape).movedim(0, axis).contiguous()


def kept_weights(shape: Sequence[int], *, axis: int) -> int:
    """Return how many weights of that shape are left, at most."""
    channel = math.prod(shape) // max(1, shape[axis])
    return shape[axis] * (channel - channel // 2)
