"""Which linear layer a kernel is: told by its values, because the converter's names may not tell.

Layers that read one tensor (query, key and value of attention) share their names in the converted
file, so a kernel may carry another one's. A scheme asked for one layer would go to the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

_ALIKE = 1e-4
_ROUNDS = 20

Floats = NDArray[np.float32]


def linear_weights(module: nn.Module) -> Mapping[str, Floats]:
    """Return the weight ``[C_out, C_in]`` of every linear layer by its path."""
    return {
        path: layer.weight.detach().numpy()
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


def layer_of_kernel(kernel: Floats, weights: Mapping[str, Floats], named: str) -> str:
    """Return the layer whose weight the kernel is, ``named`` where values do not tell."""
    same = [path for path, weight in weights.items() if is_scaled(kernel, weight)]
    return same[0] if len(same) == 1 else named


def is_scaled(kernel: Floats, weight: Floats) -> bool:
    """Return whether a kernel is the weight but for a factor of each row and each column.

    The converter folds in what comes behind a layer (a batch norm, attention's scale: rows) and
    what comes before it (the gain of a layer norm: columns).
    """
    if kernel.shape != weight.shape or min(weight.shape) < 2:
        return False  # a single row or column is any other one's multiple
    reference = int(np.count_nonzero(weight, axis=1).argmax())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = kernel / weight
        of_rows = ratios / ratios[reference]
    # Where the weight is zero there is no ratio, and the kernel is zero too.
    if not bool((kernel[weight == 0] == 0).all()):
        return False
    of_rows = np.where(np.isfinite(of_rows), of_rows, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rows that are zero throughout
        low, high = np.nanmin(of_rows, axis=1), np.nanmax(of_rows, axis=1)
    return not bool((high - low > _ALIKE * np.abs(high)).any())


def scaled_to(kernel: Floats, weight: Floats) -> Floats:
    """Return the weight with the factor of each row and column that brings it closest to a rounded
    kernel: least squares, rows and columns in turn."""
    scaled = weight.copy()
    for axis in (0, 1) * _ROUNDS:
        squares = (scaled * scaled).sum(axis, keepdims=True)
        products = (kernel * scaled).sum(axis, keepdims=True)
        scaled = scaled * np.divide(
            products, squares, out=np.ones_like(products), where=squares > 0
        )
    return scaled
