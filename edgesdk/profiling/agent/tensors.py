"""Arrays as the file has them: layout, type and batches, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def encode(values: Sequence[Any], specs: Sequence[Any]) -> list[list[Any]]:
    """Return one list of arrays per batch, in the file's layout and type.

    The last batch is filled up with its own last sample.
    """
    columns = []
    for value, spec in zip(values, specs, strict=True):
        batch = spec["shape"][0]
        missing = -len(value) % batch
        padded = np.concatenate([value, np.repeat(value[-1:], missing, axis=0)])
        array = np.transpose(padded, spec["from_torch"])
        if spec["scale"] is not None:
            info = np.iinfo(spec["dtype"])
            array = np.rint(array / spec["scale"]) + (spec["zero_point"] or 0)
            array = np.clip(array, info.min, info.max)
        array = np.ascontiguousarray(array.astype(spec["dtype"]))
        columns.append(array.reshape((-1, batch, *array.shape[1:])))
    return [list(batch) for batch in zip(*columns, strict=True)]


def decode(batches: Sequence[Sequence[Any]], specs: Sequence[Any], count: int) -> list[Any]:
    """Return the outputs of all batches as float arrays ``[N, ...]`` in PyTorch layout."""
    decoded = []
    for column, spec in zip(zip(*batches, strict=True), specs, strict=True):
        flat = np.concatenate(column)[:count]
        if spec["scale"] is not None:
            centred = flat.astype(np.float32) - (spec["zero_point"] or 0)
            flat = centred * np.float32(spec["scale"])
        decoded.append(np.transpose(flat, np.argsort(spec["from_torch"])))
    return decoded
