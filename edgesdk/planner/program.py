"""The program: which width every group keeps, as a mixed-integer linear program for HiGHS.

One binary variable for each group and width. A kernel between two groups costs what the pair of
their widths costs, so each pair of widths has a variable too, and its sums over either side equal
the binaries (the local marginal polytope; Werner 2007, "A linear programming approach to max-sum
problem"): with the binaries whole the costs are exact, and these variables need not be integers.
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

    ``gap`` is the proven relative distance between the objective and its bound.
    """

    places: tuple[int, ...]
    loss: float
    gap: float


def solve(tables: CostTables, losses: Sequence[Floats], limits: Limits) -> Solution | None:
    """Return the widths with the least loss within the limits, None if none are.

    ``losses[g][i]`` is the expected loss of group ``g`` at its ``i``-th width. Deterministic.
    Stops at a gap of 1 % or after 20 seconds, and says the gap it has.
    """
    layout = _Layout.of(tables)
    loss = layout.row(losses, {})
    latency = layout.cost_row(tables.latency_ms)
    weights = layout.cost_row(tables.weight_bytes)
    rows = [
        (latency, limits.latency_ms - tables.latency_ms.constant),
        (weights, limits.weight_bytes - tables.weight_bytes.constant),
    ]
    if np.isfinite(limits.memory_bytes):
        rows += _memory_rows(tables, layout, weights, limits.memory_bytes)
    bounded = [(row, limit) for row, limit in rows if np.isfinite(limit)]
    scale = max(float(np.abs(latency).max(initial=0.0)), 1e-12)
    goal = loss + _TIE * loss.max(initial=1e-9) * latency / scale
    constraints = [LinearConstraint(layout.equalities, layout.right_sides, layout.right_sides)]
    if bounded:
        matrix = np.array([_scaled(row, limit)[0] for row, limit in bounded])
        upper = np.array([_scaled(row, limit)[1] for row, limit in bounded])
        constraints.append(LinearConstraint(csr_array(matrix), ub=upper))
    result = milp(
        goal / max(float(np.abs(goal).max(initial=0.0)), 1e-12),
        integrality=layout.integrality,
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": GAP, "time_limit": TIME_LIMIT_S, "presolve": True},
    )
    if result.x is None:
        return None
    places = layout.places(result.x)
    return Solution(
        places=places,
        loss=float(sum(row[i] for row, i in zip(losses, places, strict=True))),
        gap=float(result.mip_gap or 0.0),
    )


def _memory_rows(
    tables: CostTables, layout: _Layout, weights: Floats, limit: float
) -> list[tuple[Floats, float]]:
    """Return one constraint for each moment: what is alive then, and what always is."""
    always = layout.cost_row(tables.resident)
    free = limit - tables.resident.constant
    if tables.weights_in_ram:
        always = always + weights
        free -= tables.weight_bytes.constant
    return [
        (layout.row([part[:, t] for part in tables.alive], {}) + always, free - held)
        for t, held in enumerate(tables.alive_constant)
    ]


def _scaled(row: Floats, limit: float) -> tuple[Floats, float]:
    """Return a constraint with coefficients of about one, which tolerances are made for."""
    scale = max(float(np.abs(row).max(initial=0.0)), 1e-12)
    return row / scale, limit / scale


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layout:
    """Where each group's and each pair's variables lie, and the equations between them."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    pair_starts: dict[tuple[int, int], int]
    size: int
    equalities: csr_array
    right_sides: Floats

    @classmethod
    def of(cls, tables: CostTables) -> _Layout:
        sizes = tuple(len(row) for row in tables.choices)
        starts = tuple(int(n) for n in np.cumsum((0, *sizes))[:-1])
        size = sum(sizes)
        pair_starts = {}
        for a, b in sorted({*tables.latency_ms.pair, *tables.weight_bytes.pair}):
            pair_starts[a, b] = size
            size += sizes[a] * sizes[b]
        parts = [_choose_one(starts, sizes, size)]
        right = [np.ones(len(sizes))]
        for (a, b), start in pair_starts.items():
            parts.append(_marginals(start, (starts[a], starts[b]), (sizes[a], sizes[b]), size))
            right.append(np.zeros(sizes[a] + sizes[b]))
        return cls(
            starts=starts,
            sizes=sizes,
            pair_starts=pair_starts,
            size=size,
            equalities=csr_array(vstack(parts)),
            right_sides=np.concatenate(right),
        )

    @property
    def integrality(self) -> NDArray[np.int64]:
        whole = np.zeros(self.size, dtype=np.int64)
        whole[: sum(self.sizes)] = 1
        return whole

    def row(self, single: Sequence[Floats], pair: dict[tuple[int, int], Floats]) -> Floats:
        values = np.zeros(self.size)
        for start, part in zip(self.starts, single, strict=True):
            values[start : start + len(part)] = part
        for key, matrix in pair.items():
            start = self.pair_starts[key]
            values[start : start + matrix.size] = matrix.ravel()
        return values

    def cost_row(self, table: CostTable) -> Floats:
        return self.row(table.single, dict(table.pair))

    def places(self, values: Floats) -> tuple[int, ...]:
        return tuple(
            int(np.argmax(values[start : start + size]))
            for start, size in zip(self.starts, self.sizes, strict=True)
        )


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
