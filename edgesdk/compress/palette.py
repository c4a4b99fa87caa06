"""Palettes: a layer's weights as places in a small table of values, found by k-means.

Equal weights give equal tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgesdk.compress.kmeans import Floats, cluster
from edgesdk.errors import UnsupportedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Palette:
    """A table of ``2**bits`` float16 values that never fall, and each weight's place in it.

    ``places`` (uint8) have the weight's shape. Values that no weight has repeat the last one.
    ``kept`` is False for weights that are zero without a place.
    """

    table: NDArray[np.float16]
    places: NDArray[np.uint8]
    kept: NDArray[np.bool_]

    @property
    def decoded(self) -> NDArray[np.float16]:
        """The weight that the table and the places stand for."""
        return np.where(self.kept, self.table[self.places], np.float16(0))


def palettise(
    weight: NDArray[Any], bits: int, *, axis: int = 0, zeros_apart: bool = False
) -> Palette:
    """Return the palette of a weight, whose output channels are dimension ``axis``.

    The weight is rounded to float16 first, which is what a table holds. A weight of no more values
    than the table has keeps them all, so a palette's own weight gives the same one again. Where a
    channel is all zeros, zero is in the table: what pruning or a batch norm turned off stays off.
    With ``zeros_apart`` no zero has a place, nor a say in the table: a mask tells where they are.
    Raises ``UnsupportedModel`` for weights that float16 cannot hold.
    """
    with np.errstate(over="ignore"):
        halves = np.asarray(weight).astype(np.float16)
    if not np.isfinite(halves).all():
        raise UnsupportedModel(
            "a layer holds weights that are not finite in float16, so they have no palette",
            expected=f"weights of at most {np.finfo(np.float16).max:.0f}",
            next_step="choose a scheme of float32, or scale the layer",
        )
    kept = halves != 0 if zeros_apart else np.ones_like(halves, dtype=np.bool_)
    found, counts = np.unique(halves[kept] if kept.any() else halves, return_counts=True)
    values, size = found.astype(np.float64), 2**bits
    if len(values) > size:
        others = tuple(d for d in range(halves.ndim) if d != axis)
        keeps_zero = not zeros_apart and bool((halves == 0).all(axis=others).any())
        values = _clustered(values, counts, size, keeps_zero=keeps_zero)
    table = np.append(values, np.repeat(values[-1], size - len(values))).astype(np.float16)
    return Palette(table=table, places=_nearest(table, halves), kept=kept)


def _clustered(values: Floats, counts: NDArray[np.int64], size: int, *, keeps_zero: bool) -> Floats:
    """Return the table of so many values, in rising order, for weights and how often they occur."""
    if keeps_zero:
        others = values != 0
        table = cluster(values[others], counts[others], size - 1)
        return np.sort(np.append(table, 0.0))
    return cluster(values, counts, size)


def _nearest(table: NDArray[np.float16], halves: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Return the place of the nearest value, of two as near the lower, of equal ones the first."""
    exact = table.astype(np.float64)
    distinct, first = np.unique(exact, return_index=True)
    places = np.searchsorted((distinct[1:] + distinct[:-1]) / 2, halves.astype(np.float64))
    return first[places].astype(np.uint8)


def decoded_weight(
    weight: Tensor, bits: int, *, axis: int, folded: Tensor | None = None, zeros_apart: bool = False
) -> Tensor:
    """Return the weight that a layer has once its palette is decoded.

    ``folded`` is the weight with the batch norm behind it, where there is one: that is what a file
    holds, so that is what has the palette, and the norm's factors are taken out of it again.
    """
    held = weight if folded is None else folded
    palette = palettise(held.detach().cpu().numpy(), bits, axis=axis, zeros_apart=zeros_apart)
    decoded = torch.from_numpy(palette.decoded).to(weight)
    if folded is None:
        return decoded
    others = [d for d in range(weight.dim()) if d != axis]
    own, scaled = (t.detach().abs().amax(others, keepdim=True) for t in (weight, folded))
    factor = (weight * folded).sum(others, keepdim=True).sign() * scaled / own
    # A channel that the norm turns off is zero with any weight.
    return torch.where(scaled > 0, decoded / factor, weight).detach()
