"""An arena: tensors by lifetime in one block of memory, as runtimes lay them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIGNMENT_BYTES = 16
"""Of every buffer in TensorFlow Lite Micro's, LiteRT's and ExecuTorch's arenas."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Buffer:
    """Bytes that are needed from step ``first`` to step ``last``, both included."""

    size_bytes: float
    first: int
    last: int


def arena_bytes(buffers: Sequence[Buffer]) -> float:
    """Return the bytes of an arena that holds the buffers: largest first, each at its first fit.

    This is the "greedy by size" planner of Pisarchyk and Lee 2020, "Efficient memory management
    for deep neural net inference" (arXiv:2001.03288), which TensorFlow Lite Micro, LiteRT and
    XNNPACK use; of equal buffers the later one goes first. Never less than what is live at once.
    """
    order = sorted(buffers, key=lambda item: (-item.size_bytes, -item.first))
    sizes = np.array([item.size_bytes for item in order])
    firsts = np.array([item.first for item in order])
    lasts = np.array([item.last for item in order])
    starts = np.zeros(len(order))
    for index in range(len(order)):
        live = np.flatnonzero((firsts[:index] <= lasts[index]) & (lasts[:index] >= firsts[index]))
        starts[index] = _first_fit(starts[live], sizes[live], sizes[index])
    return float((starts + sizes).max(initial=0.0))


def aligned(size_bytes: float, alignment_bytes: int = ALIGNMENT_BYTES) -> float:
    """Return the bytes rounded up to the alignment."""
    return math.ceil(size_bytes / alignment_bytes) * alignment_bytes


def _first_fit(starts: np.ndarray, sizes: np.ndarray, wanted: float) -> float:
    """Return the lowest place for ``wanted`` bytes beside what lies at ``starts`` already."""
    if not len(starts):
        return 0.0
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    ends = np.maximum.accumulate(starts + sizes[order])
    before = np.concatenate(([0.0], ends[:-1]))  # what is free begins where the last one ends
    fits = np.flatnonzero(before + wanted <= starts)
    return float(before[fits[0]] if len(fits) else ends[-1])
