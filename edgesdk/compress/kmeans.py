"""k-means of numbers: the cells that values in rising order are best cut into.

Every value goes to the nearest center, every center is the mean of the values that go to it (Lloyd,
"Least squares quantization in PCM", 1982). Such cells lie side by side, so the best ones are found
by dynamic programming (Wang and Song, "Ckmeans.1d.dp", 2011). Nothing is drawn at random: equal
values give equal centers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MOST_CUTS = 1024
_MOST_STEPS = 300
Bounds = NDArray[np.int64]
Floats = NDArray[np.float64]


def cluster(values: Floats, counts: NDArray[np.int64], size: int) -> Floats:
    """Return at most ``size`` centers, rising, whose squared distances to the values are least.

    ``values`` rise, and each occurs ``counts`` times; ones that are few enough are the centers. Up
    to 1024 values get the best centers there are; more are cut at as many places, and Lloyd's steps
    go on from there.
    """
    if len(values) <= size:
        return values
    cells = _Cells(values, counts)
    return cells.means(cells.settled(cells.best(_cuts(values, counts), size)))


class _Cells:
    """Values in rising order, cut into cells: ``bounds`` are where each begins, and the end."""

    def __init__(self, values: Floats, counts: NDArray[np.int64]) -> None:
        # Around their mean, for what squares of sums are worth depends on it.
        self._middle = float(np.average(values, weights=counts))
        self._values = values - self._middle
        self._mass = np.append(0.0, np.cumsum(counts))
        self._moment = np.append(0.0, np.cumsum(self._values * counts))

    def means(self, bounds: Bounds) -> Floats:
        """Return the mean of every cell that is not empty."""
        full = np.unique(bounds)
        means: Floats = np.diff(self._moment[full]) / np.diff(self._mass[full]) + self._middle
        return means

    def settled(self, bounds: Bounds) -> Bounds:
        """Return the cells that Lloyd's steps lead to."""
        for _ in range(_MOST_STEPS):
            centers = self.means(bounds) - self._middle
            inner = np.searchsorted(self._values, (centers[1:] + centers[:-1]) / 2)
            moved = np.concatenate(([0], inner, [len(self._values)]))
            if np.array_equal(moved, bounds):
                break
            bounds = moved
        return bounds

    def best(self, cuts: Bounds, size: int) -> Bounds:
        """Return the ``size`` cells that lose least, of all bounded by some of the cuts."""
        mass, moment = self._mass[cuts], self._moment[cuts]
        # What cells' means hold of the values' squares; the rest is what is lost.
        held = np.square(moment) / np.maximum(mass, 1)
        begins = []
        for _ in range(size - 1):
            held, begin = _with_one_more(held, mass, moment)
            begins.append(begin)
        last, ends = len(cuts) - 1, []
        for begin in reversed(begins):
            ends.append(last)
            last = begin[last]
        return cuts[[0, last, *reversed(ends)]]


def _with_one_more(held: Floats, mass: Floats, moment: Floats) -> tuple[Floats, Bounds]:
    """Return what is held up to each cut by one cell more, and where the last of them begins.

    Where the last cell begins never falls from one cut to a later one, so cuts are looked at by
    halves: those between two that are known look no further than these did.
    """
    best, begin = held.copy(), np.zeros(len(held), np.int64)
    low, high = np.array([0]), np.array([len(held) - 1])
    first, final = low.copy(), high.copy()
    while low.size:
        at = (low + high) // 2
        number = np.minimum(final, at) - first + 1
        starts = np.cumsum(number) - number
        segment = np.repeat(np.arange(len(at)), number)
        begins = np.arange(len(segment)) - np.repeat(starts - first, number)
        ends = at[segment]
        within = np.square(moment[ends] - moment[begins]) / np.maximum(mass[ends] - mass[begins], 1)
        total = held[begins] + within
        best[at] = np.maximum.reduceat(total, starts)
        hits = np.flatnonzero(total == best[at][segment])
        begin[at] = begins[hits[np.unique(segment[hits], return_index=True)[1]]]
        low, high = np.append(low, at + 1), np.append(at - 1, high)
        first, final = np.append(first, begin[at]), np.append(begin[at], final)
        left = low <= high
        low, high, first, final = low[left], high[left], first[left], final[left]
    return best, begin


def _cuts(values: Floats, counts: NDArray[np.int64]) -> Bounds:
    """Return where cells may be bounded: everywhere, or as densely as cells are best for many, by
    the cube root of the density (Panter and Dite, "Quantization distortion in pulse-count
    modulation", 1951)."""
    if len(values) <= _MOST_CUTS:
        return np.arange(len(values) + 1)
    share = np.cumsum(np.cbrt(counts * np.square(np.gradient(values))))
    inner = np.searchsorted(share, np.arange(1, _MOST_CUTS) / _MOST_CUTS * share[-1])
    return np.unique(np.concatenate(([0], inner, [len(values)])))
