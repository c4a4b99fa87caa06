"""The program: which width every group keeps, as a mixed-integer linear program for HiGHS.

One binary variable for each group and width. A kernel between two groups costs what the pair of
their widths costs, so each pair of widths has a variable too, and its sums over either side equal
the binaries (the local marginal polytope; Werner 2007, "A linear programming approach to max-sum
problem"): with the binaries whole the costs are exact, and these variables need not be integers.

A layer that departs from the network's scheme has a binary too, and a variable for every width (or
pair of widths) of the groups it depends on: they sum to the binary and stay below each width's own,
so that with the binaries whole the one of the chosen widths is the binary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, vstack

from edgesdk.planner.tables import CostTable, CostTables

Floats = NDArray[np.float64]

GAP = 0.01
TIME_LIMIT_S = 20.0

# Latency weighs this little beside the loss: it only decides between equal losses.
_TIE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a solution must keep; infinite where nothing is asked."""

    latency_ms: float = np.inf
    weight_bytes: float = np.inf
    memory_bytes: float = np.inf


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The chosen place in every group's choices, its loss, and how far from the best it may be.

    ``departures`` are places in ``tables.departures``, ascending. ``gap`` is the proven relative
    distance between the objective and its bound.
    """

    places: tuple[int, ...]
    departures: tuple[int, ...]
    loss: float
    gap: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Expected losses: ``widths[g][i]`` of group ``g`` at its ``i``-th width, ``departures[d]``
    what a departure changes (below 0 where a layer gets finer), ``network`` the scheme's own."""

    widths: Sequence[Floats]
    departures: Sequence[float] = ()
    network: float = 0.0

    def at(self, places: Sequence[int], departures: Sequence[int]) -> float:
        """Return the loss of chosen widths and departures."""
        widths = sum(row[i] for row, i in zip(self.widths, places, strict=True))
        return float(self.network + widths + sum(self.departures[d] for d in departures))


def solve(
    tables: Sequence[CostTables], losses: Losses, limits: Sequence[Limits]
) -> Solution | None:
    """Return the widths and departures with the least loss within the limits, None if none are.

    One table and one set of limits for each device that the same network must fit; they share
    choices and departures, and of equal losses the first device's latency decides. Deterministic.
    Stops at a gap of 1 % or after 20 seconds, and says the gap it has.
    """
    layout = _Layout.of(tables)
    loss = layout.row(losses.widths, {}, [np.array(value) for value in losses.departures])
    loss[layout.constant_at] = losses.network
    rows = [
        row
        for table, limit in zip(tables, limits, strict=True)
        for row in _rows(table, layout, limit)
    ]
    bounded = [(row, limit) for row, limit in rows if np.isfinite(limit)]
    latency = _latency_row(tables[0], layout)
    scale = max(float(np.abs(latency).max(initial=0.0)), 1e-12)
    goal = loss + _TIE * np.abs(loss).max(initial=1e-9) * latency / scale
    constraints = [LinearConstraint(layout.equalities, layout.right_sides, layout.right_sides)]
    if layout.bounds is not None:
        constraints.append(LinearConstraint(layout.bounds, ub=layout.bound_sides))
    if bounded:
        matrix = np.array([_scaled(row, limit)[0] for row, limit in bounded])
        upper = np.array([_scaled(row, limit)[1] for row, limit in bounded])
        constraints.append(LinearConstraint(csr_array(matrix), ub=upper))
    result = milp(
        goal / max(float(np.abs(goal).max(initial=0.0)), 1e-12),
        integrality=layout.integrality,
        bounds=Bounds(layout.least, 1),
        constraints=constraints,
        options={"mip_rel_gap": GAP, "time_limit": TIME_LIMIT_S, "presolve": True},
    )
    if result.x is None:
        return None
    places, departures = layout.places(result.x), layout.departures(result.x)
    return Solution(
        places=places,
        departures=departures,
        loss=losses.at(places, departures),
        gap=float(result.mip_gap or 0.0),
    )


def _latency_row(tables: CostTables, layout: _Layout) -> Floats:
    return layout.cost_row(tables.latency_ms, [d.latency_ms for d in tables.departures])


def _rows(tables: CostTables, layout: _Layout, limits: Limits) -> list[tuple[Floats, float]]:
    """Return a device's constraints: coefficients, and what their sum may be at most."""
    weights = layout.cost_row(tables.weight_bytes, [d.weight_bytes for d in tables.departures])
    rows = [
        (_latency_row(tables, layout), limits.latency_ms - tables.latency_ms.constant),
        (weights, limits.weight_bytes - tables.weight_bytes.constant),
    ]
    if np.isfinite(limits.memory_bytes):
        rows += _memory_rows(tables, layout, weights, limits.memory_bytes)
    return rows


def _memory_rows(
    tables: CostTables, layout: _Layout, weights: Floats, limit: float
) -> list[tuple[Floats, float]]:
    """Return one constraint for each moment: what is alive then, and what always is."""
    always = layout.cost_row(tables.resident, [])
    free = limit - tables.resident.constant
    if tables.weights_in_ram:
        always = always + weights
        free -= tables.weight_bytes.constant
    return [
        (layout.row([part[:, t] for part in tables.alive], {}, []) + always, free - held)
        for t, held in enumerate(tables.alive_constant)
    ]


def _scaled(row: Floats, limit: float) -> tuple[Floats, float]:
    """Return a constraint with coefficients of about one, which tolerances are made for."""
    scale = max(float(np.abs(row).max(initial=0.0)), 1e-12)
    return row / scale, limit / scale


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layout:
    """Where the variables lie, and the equations and bounds between them.

    First a binary for each group and width, then one for each departure, then one that is always 1
    (what nothing changes hangs on it), then the variables of pairs and of departures at widths.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    departures_at: int
    constant_at: int
    pair_starts: dict[tuple[int, int], int]
    departure_starts: tuple[int, ...]
    size: int
    equalities: csr_array
    right_sides: Floats
    bounds: csr_array | None
    bound_sides: Floats

    @classmethod
    def of(cls, every: Sequence[CostTables]) -> _Layout:
        tables = every[0]
        sizes = tuple(len(row) for row in tables.choices)
        starts = tuple(int(n) for n in np.cumsum((0, *sizes))[:-1])
        departures_at = sum(sizes)
        constant_at = departures_at + len(tables.departures)
        size = constant_at + 1
        pair_starts = {}
        pairs = {pair for t in every for pair in (*t.latency_ms.pair, *t.weight_bytes.pair)}
        for a, b in sorted(pairs):
            pair_starts[a, b] = size
            size += sizes[a] * sizes[b]
        departure_starts = []
        for cost in tables.departures:
            departure_starts.append(size)
            size += cost.latency_ms.size
        equal = [_choose_one(starts, sizes, size)]
        right = [np.ones(len(sizes))]
        for (a, b), start in pair_starts.items():
            equal.append(_marginals(start, (starts[a], starts[b]), (sizes[a], sizes[b]), size))
            right.append(np.zeros(sizes[a] + sizes[b]))
        below = []
        for index, (cost, start) in enumerate(
            zip(tables.departures, departure_starts, strict=True)
        ):
            equal.append(_departs_once(start, cost.latency_ms.size, departures_at + index, size))
            right.append(np.zeros(1))
            below += [
                _at_most_its_width(start, cost.latency_ms.shape, axis, starts[group], size)
                for axis, group in enumerate(cost.groups)
            ]
        sides = [np.zeros(part.shape[0]) for part in below]
        if tables.departures:
            below.append(_one_scheme_a_layer(tables, departures_at, size))
            sides.append(np.ones(below[-1].shape[0]))
        return cls(
            starts=starts,
            sizes=sizes,
            departures_at=departures_at,
            constant_at=constant_at,
            pair_starts=pair_starts,
            departure_starts=tuple(departure_starts),
            size=size,
            equalities=csr_array(vstack(equal)),
            right_sides=np.concatenate(right),
            bounds=csr_array(vstack(below)) if below else None,
            bound_sides=np.concatenate(sides) if sides else np.zeros(0),
        )

    @property
    def integrality(self) -> NDArray[np.int64]:
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
        self, single: Sequence[Floats], pair: dict[tuple[int, int], Floats],
        departures: Sequence[Floats],
    ) -> Floats:  # fmt: skip
        """Return coefficients; a departure's are one number, or one for each width."""
        values = np.zeros(self.size)
        for start, part in zip(self.starts, single, strict=True):
            values[start : start + len(part)] = part
        for key, matrix in pair.items():
            start = self.pair_starts[key]
            values[start : start + matrix.size] = matrix.ravel()
        for index, part in enumerate(departures):
            if part.ndim == 0:
                values[self.departures_at + index] = part
            else:
                start = self.departure_starts[index]
                values[start : start + part.size] = part.ravel()
        return values

    def cost_row(self, table: CostTable, departures: Sequence[Floats]) -> Floats:
        return self.row(table.single, dict(table.pair), departures)

    def places(self, values: Floats) -> tuple[int, ...]:
        return tuple(
            int(np.argmax(values[start : start + size]))
            for start, size in zip(self.starts, self.sizes, strict=True)
        )

    def departures(self, values: Floats) -> tuple[int, ...]:
        chosen = values[self.departures_at : self.constant_at] > 0.5
        return tuple(np.flatnonzero(chosen).tolist())


def _departs_once(start: int, count: int, binary: int, size: int) -> coo_array:
    """Return ``sum_i w[i] - z = 0``: a departure happens at one choice of widths, or not at all."""
    column = np.append(start + np.arange(count), binary)
    value = np.append(np.ones(count), -1.0)
    return coo_array((value, (np.zeros(count + 1, dtype=np.int64), column)), shape=(1, size))


def _at_most_its_width(
    start: int, shape: tuple[int, ...], axis: int, first: int, size: int
) -> coo_array:
    """Return ``sum of w with i on the axis - x[i] <= 0`` for each width i of the axis' group."""
    places = np.indices(shape)[axis].ravel()
    row = np.concatenate([places, np.arange(shape[axis])])
    column = np.concatenate([start + np.arange(places.size), first + np.arange(shape[axis])])
    value = np.concatenate([np.ones(places.size), -np.ones(shape[axis])])
    return coo_array((value, (row, column)), shape=(shape[axis], size))


def _one_scheme_a_layer(tables: CostTables, departures_at: int, size: int) -> coo_array:
    """Return ``sum of a layer's departures <= 1`` for each layer."""
    layers = list(dict.fromkeys(cost.departure.layer for cost in tables.departures))
    row = [layers.index(cost.departure.layer) for cost in tables.departures]
    column = departures_at + np.arange(len(row))
    return coo_array((np.ones(len(row)), (row, column)), shape=(len(layers), size))


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
