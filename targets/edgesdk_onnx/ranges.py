"""Ranges: how far from zero each activation is quantized, found by running the float graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edgesdk.task import Tensors
from edgesdk_onnx.session import create_session

_STEPS = 127
_BINS = 4096
_CANDIDATES = np.linspace(0.2, 1.0, 81)  # shares of the largest magnitude to cut off at


def largest_magnitudes(
    proto_bytes: bytes, names: tuple[str, ...], batches: Iterable[Tensors]
) -> dict[str, float]:
    """Return the largest finite magnitude of each named tensor over all batches.

    ``proto_bytes`` is a graph that gives those tensors as outputs (``with_outputs``).
    """
    largest = dict.fromkeys(names, 0.0)
    for arrays in _run(proto_bytes, names, batches):
        for name, array in arrays.items():
            largest[name] = max(largest[name], float(np.abs(array).max(initial=0.0)))
    return largest


def find_ranges(
    proto_bytes: bytes, names: tuple[str, ...], batches: list[Tensors]
) -> dict[str, float]:
    """Return for each tensor the magnitude that becomes the integer 127.

    It is the one that loses least: of the cuts at 20 % to 100 % of the largest magnitude, the one
    with the least sum of squared differences between the values and their quantized ones, over a
    histogram of all batches (Shin, Hwang & Sung 2016, "Fixed-point performance analysis of
    recurrent neural networks", take the same measure). Exact zeros count for none of them.
    """
    largest = largest_magnitudes(proto_bytes, names, batches)
    counts = {name: np.zeros(_BINS) for name in names}
    for arrays in _run(proto_bytes, names, batches):
        for name, array in arrays.items():
            if largest[name] > 0:
                seen, _ = np.histogram(np.abs(array[array != 0]), _BINS, (0.0, largest[name]))
                counts[name] += seen
    return {
        name: _best_cut(counts[name], largest[name]) if largest[name] > 0 else 1.0 for name in names
    }


def _best_cut(counts: NDArray[np.float64], largest: float) -> float:
    centers = (np.arange(_BINS) + 0.5) * (largest / _BINS)
    losses = []
    for share in _CANDIDATES:
        step = share * largest / _STEPS
        decoded = np.minimum(np.round(centers / step), _STEPS) * step
        losses.append(float((counts * (centers - decoded) ** 2).sum()))
    return float(_CANDIDATES[int(np.argmin(losses))] * largest)


def _run(
    proto_bytes: bytes, names: tuple[str, ...], batches: Iterable[Tensors]
) -> Iterator[Mapping[str, NDArray[np.generic]]]:
    session = create_session(proto_bytes, threads=1, fuse=True)
    inputs = [value.name for value in session.get_inputs()]
    for batch in batches:
        feed = {name: tensor.numpy() for name, tensor in zip(inputs, batch, strict=True)}
        yield dict(zip(names, session.run(list(names), feed), strict=True))
