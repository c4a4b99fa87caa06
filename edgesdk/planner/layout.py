"""The program's variables: where they lie, and the equations and bounds between them.

One binary variable for each group and width. A kernel between two groups costs what the pair of
their widths costs, so each pair of widths has a variable too, and its sums over either side equal
the binaries (the local marginal polytope; Werner 2007, "A linear programming approach to max-sum
problem"): with the binaries whole the costs are exact, and these variables need not be integers.

What may be switched (a layer that departs from the network's scheme, a residual block that goes)
has a binary, and for every part of its cost a variable for every width (or pair of widths) of the
groups that the part depends on: they sum to the binary and stay below each width's own, so that
with the binaries whole the one of the chosen widths is the binary.

A layer that becomes two of lower rank has a binary for each rank, which stays below that of the
full width of every group that the layer depends on: it is split whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack

from edgesdk.planner.tables import CostTables
from edgesdk.residual import is_within

Floats = NDArray[np.float64]


class Price(NamedTuple):
    """What a switch adds to a row: a number, and for each part one number a width (or nothing)."""

    constant: float = 0.0
    parts: Sequence[Floats] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where the variables lie, and the equations and bounds between them.

    First a binary for each group and width, then one for each departure, for each block that may
    go and for each split, then one that is always 1 (what nothing changes hangs on it), then the
    variables of pairs, and of switches at widths.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    departures_at: int
    blocks_at: int
    splits_at: int
    constant_at: int
    pair_starts: Mapping[tuple[int, int], int]
    part_starts: tuple[tuple[int, ...], ...]
    size: int
    equalities: csr_array
    right_sides: Floats
    bounds: csr_array | None
    bound_sides: Floats

    @classmethod
    def of(cls, every: Sequence[CostTables]) -> Layout:
        """Return the layout of one program for tables of the same choices, one for each device."""
        tables = every[0]
        sizes = tuple(len(row) for row in tables.choices)
        starts = tuple(int(n) for n in np.cumsum((0, *sizes))[:-1])
        departures_at = sum(sizes)
        blocks_at = departures_at + len(tables.departures)
        splits_at = blocks_at + len(tables.blocks)
        constant_at = splits_at + len(tables.splits)
        size = constant_at + 1
        pair_starts = {}
        pairs = {pair for t in every for pair in (*t.latency_ms.pair, *t.weight_bytes.pair)}
        for a, b in sorted(pairs):
            pair_starts[a, b] = size
            size += sizes[a] * sizes[b]
        switches = [
            *((departure.groups,) for departure in tables.departures),
            *(tuple(part.groups for part in block.parts) for block in tables.blocks),
        ]
        part_starts = []
        for parts in switches:
            counts = [_count(sizes, groups) for groups in parts]
            part_starts.append(tuple(size + int(n) for n in np.cumsum((0, *counts))[:-1]))
            size += sum(counts)
        equal = [_choose_one(starts, sizes, size)]
        right = [np.ones(len(sizes))]
        for (a, b), start in pair_starts.items():
            equal.append(_marginals(start, (starts[a], starts[b]), (sizes[a], sizes[b]), size))
            right.append(np.zeros(sizes[a] + sizes[b]))
        below: list[coo_array] = []
        for index, (parts, at) in enumerate(zip(switches, part_starts, strict=True)):
            for groups, start in zip(parts, at, strict=True):
                count = _count(sizes, groups)
                equal.append(_follows(start, count, departures_at + index, size))
                right.append(np.zeros(1))
                below += _below_widths(start, groups, (starts, sizes), size)
        for binary, split in enumerate(tables.splits, start=splits_at):
            below += [
                _at_most(binary, starts[group] + sizes[group] - 1, size) for group in split.groups
            ]
        sides = [np.zeros(part.shape[0]) for part in below]
        exclusive = list(_exclusive(tables, departures_at, blocks_at, splits_at))
        if exclusive:
            below.append(_at_most_one(exclusive, size))
            sides.append(np.ones(len(exclusive)))
        return cls(
            starts=starts,
            sizes=sizes,
            departures_at=departures_at,
            blocks_at=blocks_at,
            splits_at=splits_at,
            constant_at=constant_at,
            pair_starts=pair_starts,
            part_starts=tuple(part_starts),
            size=size,
            equalities=csr_array(vstack(equal)),
            right_sides=np.concatenate(right),
            bounds=csr_array(vstack(below)) if below else None,
            bound_sides=np.concatenate(sides) if sides else np.zeros(0),
        )

    @property
    def integrality(self) -> NDArray[np.int64]:
        """Which variables are whole numbers."""
        whole = np.zeros(self.size, dtype=np.int64)
        whole[: self.constant_at] = 1
        return whole

    @property
    def least(self) -> Floats:
        """The least value of each variable: 0, and 1 for the constant."""
        least = np.zeros(self.size)
        least[self.constant_at] = 1
        return least

    def row(
        self, single: Sequence[Floats], pair: Mapping[tuple[int, int], Floats] | None = None,
        departures: Sequence[Price] = (), blocks: Sequence[Price] = (),
        splits: Sequence[float] = (),
    ) -> Floats:  # fmt: skip
        """Return coefficients."""
        values = np.zeros(self.size)
        for start, part in zip(self.starts, single, strict=True):
            values[start : start + len(part)] = part
        for key, matrix in (pair or {}).items():
            start = self.pair_starts[key]
            values[start : start + matrix.size] = matrix.ravel()
        self._switch(values, self.departures_at, departures)
        self._switch(values, self.blocks_at, blocks)
        values[self.splits_at : self.splits_at + len(splits)] = splits
        return values

    def _switch(self, values: Floats, first: int, prices: Sequence[Price]) -> None:
        for binary, price in enumerate(prices, start=first):
            values[binary] = price.constant
            starts = self.part_starts[binary - self.departures_at]
            for start, part in zip(starts, price.parts, strict=False):
                values[start : start + part.size] = part.ravel()

    def places(self, values: Floats) -> tuple[int, ...]:
        """Return the place of every group's width."""
        return tuple(
            int(np.argmax(values[start : start + size]))
            for start, size in zip(self.starts, self.sizes, strict=True)
        )

    def departures(self, values: Floats) -> tuple[int, ...]:
        """Return which departures were taken."""
        return _chosen(values[self.departures_at : self.blocks_at])

    def blocks(self, values: Floats) -> tuple[int, ...]:
        """Return which blocks go."""
        return _chosen(values[self.blocks_at : self.splits_at])

    def splits(self, values: Floats) -> tuple[int, ...]:
        """Return which splits were taken."""
        return _chosen(values[self.splits_at : self.constant_at])


def _chosen(binaries: Floats) -> tuple[int, ...]:
    return tuple(np.flatnonzero(binaries > 0.5).tolist())


def _follows(start: int, count: int, binary: int, size: int) -> coo_array:
    """Return ``sum_i w[i] - z = 0``: a switch is on at one choice of widths, or not at all."""
    column = np.append(start + np.arange(count), binary)
    value = np.append(np.ones(count), -1.0)
    return coo_array((value, (np.zeros(count + 1, dtype=np.int64), column)), shape=(1, size))


def _count(sizes: Sequence[int], groups: Sequence[int]) -> int:
    """Return how many choices of widths some groups have together."""
    return math.prod(sizes[group] for group in groups)


def _below_widths(
    start: int, groups: Sequence[int], widths: tuple[Sequence[int], Sequence[int]], size: int
) -> list[coo_array]:
    """Return for each of the groups the bounds of a part's variables by its widths' binaries."""
    starts, sizes = widths
    shape = tuple(sizes[group] for group in groups)
    return [
        _at_most_its_width(start, shape, axis, starts[group], size)
        for axis, group in enumerate(groups)
    ]


def _at_most_its_width(
    start: int, shape: tuple[int, ...], axis: int, first: int, size: int
) -> coo_array:
    """Return ``sum of w with i on the axis - x[i] <= 0`` for each width i of the axis' group."""
    places = np.indices(shape)[axis].ravel()
    row = np.concatenate([places, np.arange(shape[axis])])
    column = np.concatenate([start + np.arange(places.size), first + np.arange(shape[axis])])
    value = np.concatenate([np.ones(places.size), -np.ones(shape[axis])])
    return coo_array((value, (row, column)), shape=(shape[axis], size))


def _at_most(binary: int, other: int, size: int) -> coo_array:
    """Return ``z - x <= 0``: one binary is on only where the other one is."""
    return coo_array(([1.0, -1.0], ([0, 0], [binary, other])), shape=(1, size))


def _exclusive(
    tables: CostTables, departures_at: int, blocks_at: int, splits_at: int
) -> Iterator[list[int]]:
    """Yield the binaries of which one at most is on: a layer has one scheme or one rank, and none
    where its block goes."""
    layers: dict[str, list[int]] = {}
    for binary, cost in enumerate(tables.departures, start=departures_at):
        layers.setdefault(cost.departure.layer, []).append(binary)
    for binary, priced in enumerate(tables.splits, start=splits_at):
        layers.setdefault(priced.split.layer, []).append(binary)
    for layer, binaries in layers.items():
        gone = [
            binary
            for binary, block in enumerate(tables.blocks, start=blocks_at)
            if is_within(layer, block.block)
        ]
        if len(binaries) + len(gone) > 1:
            yield [*binaries, *gone]


def _at_most_one(sets: Sequence[Sequence[int]], size: int) -> coo_array:
    """Return ``sum of a set's binaries <= 1`` for each set."""
    row = [index for index, binaries in enumerate(sets) for _ in binaries]
    column = [binary for binaries in sets for binary in binaries]
    return coo_array((np.ones(len(row)), (row, column)), shape=(len(sets), size))


def _choose_one(starts: Sequence[int], sizes: Sequence[int], columns: int) -> coo_array:
    row = [g for g, size in enumerate(sizes) for _ in range(size)]
    column = [start + i for start, size in zip(starts, sizes, strict=True) for i in range(size)]
    return coo_array((np.ones(len(row)), (row, column)), shape=(len(sizes), columns))


def _marginals(
    start: int, singles: tuple[int, int], sizes: tuple[int, int], size: int
) -> coo_array:
    """Return ``sum_j y[i, j] - x_a[i] = 0`` for each i, then ``sum_i y[i, j] - x_b[j] = 0``."""
    (first, second), (rows, columns) = singles, sizes
    i, j = np.divmod(np.arange(rows * columns), columns)
    y = start + np.arange(rows * columns)
    row = np.concatenate([i, rows + j, np.arange(rows), rows + np.arange(columns)])
    column = np.concatenate([y, y, first + np.arange(rows), second + np.arange(columns)])
    value = np.concatenate([np.ones(2 * rows * columns), -np.ones(rows + columns)])
    return coo_array((value, (row, column)), shape=(rows + columns, size))
