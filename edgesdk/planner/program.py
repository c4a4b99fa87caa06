"""The program: which width every group keeps, as a mixed-integer linear program for HiGHS.

``layout`` says what its variables are. Which layers leave the network's scheme, which residual
blocks go and which layers become two of lower rank is decided at once with the widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from edgesdk.planner.block_costs import BlockCost
from edgesdk.planner.layout import Layout, Price
from edgesdk.planner.splits import SplitCost
from edgesdk.planner.tables import CostTables

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

    ``departures`` are places in ``tables.departures``, ascending, ``blocks``, which go, in
    ``tables.blocks``, and ``splits`` in ``tables.splits``. ``gap`` is the proven relative distance
    between the objective and its bound.
    """

    places: tuple[int, ...]
    departures: tuple[int, ...]
    blocks: tuple[int, ...]
    splits: tuple[int, ...]
    loss: float
    gap: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Expected losses: ``widths[g][i]`` of group ``g`` at its ``i``-th width, ``departures[d]``
    what a departure changes (below 0 where a layer gets finer), ``blocks[b]`` what is lost without
    a block, ``splits[s]`` by a split, ``network`` the scheme's own."""

    widths: Sequence[Floats]
    departures: Sequence[float] = ()
    blocks: Sequence[float] = ()
    splits: Sequence[float] = ()
    network: float = 0.0

    def at(
        self, places: Sequence[int], departures: Sequence[int], blocks: Sequence[int] = (),
        splits: Sequence[int] = (),
    ) -> float:  # fmt: skip
        """Return the loss of chosen widths, departures and splits, without some blocks."""
        widths = sum(row[i] for row, i in zip(self.widths, places, strict=True))
        switched = sum(self.departures[d] for d in departures) + sum(self.blocks[b] for b in blocks)
        return float(self.network + widths + switched + sum(self.splits[s] for s in splits))


def solve(
    tables: Sequence[CostTables], losses: Losses, limits: Sequence[Limits]
) -> Solution | None:
    """Return the widths, departures, blocks and splits with the least loss within the limits, or
    None.

    One table and one set of limits for each device that the same network must fit; they share
    choices, departures, blocks and splits, and of equal losses the first device's latency decides.
    Deterministic. Stops at a gap of 1 % or after 20 seconds, and says the gap it has.
    """
    layout = Layout.of(tables)
    loss = layout.row(
        losses.widths,
        departures=[Price(value) for value in losses.departures],
        blocks=[Price(value) for value in losses.blocks],
        splits=losses.splits,
    )
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
    blocks, splits = layout.blocks(result.x), layout.splits(result.x)
    return Solution(
        places=places,
        departures=departures,
        blocks=blocks,
        splits=splits,
        loss=losses.at(places, departures, blocks, splits),
        gap=float(result.mip_gap or 0.0),
    )


def _latency_row(tables: CostTables, layout: Layout) -> Floats:
    return layout.row(
        tables.latency_ms.single,
        tables.latency_ms.pair,
        [Price(parts=[cost.latency_ms]) for cost in tables.departures],
        [
            Price(-block.latency_ms, [-part.latency_ms for part in block.parts])
            for block in tables.blocks
        ],
        [split.latency_ms for split in tables.splits],
    )


def _weight_row(tables: CostTables, layout: Layout, *, with_containers: bool) -> Floats:
    """Return the bytes of weights; in a file what it says of a block goes with them, and what it
    says of a second layer comes."""

    def stored(cost: BlockCost | SplitCost) -> float:
        return cost.weight_bytes + (cost.container_bytes if with_containers else 0.0)

    return layout.row(
        tables.weight_bytes.single,
        tables.weight_bytes.pair,
        [Price(parts=[cost.weight_bytes]) for cost in tables.departures],
        [
            Price(-stored(block), [-part.weight_bytes for part in block.parts])
            for block in tables.blocks
        ],
        [stored(split) for split in tables.splits],
    )


def _rows(tables: CostTables, layout: Layout, limits: Limits) -> list[tuple[Floats, float]]:
    """Return a device's constraints: coefficients, and what their sum may be at most."""
    rows = [
        (_latency_row(tables, layout), limits.latency_ms - tables.latency_ms.constant),
        (
            _weight_row(tables, layout, with_containers=True),
            limits.weight_bytes - tables.weight_bytes.constant,
        ),
    ]
    if np.isfinite(limits.memory_bytes):
        rows += _memory_rows(tables, layout, limits.memory_bytes)
    return rows


def _memory_rows(tables: CostTables, layout: Layout, limit: float) -> list[tuple[Floats, float]]:
    """Return one constraint for each moment: what is alive then, and what always is.

    Where a block goes, no moment of it is left that could be too full. A split fills none further:
    what passes between its two layers is no more than the layer reads or gives.
    """
    always = layout.row(tables.resident.single)
    free = limit - tables.resident.constant
    if tables.weights_in_ram:
        always = always + _weight_row(tables, layout, with_containers=False)
        free -= tables.weight_bytes.constant
    rows = []
    for t, held in enumerate(tables.alive_constant):
        blocks = [Price(-block.alive[t]) for block in tables.blocks]
        alive = layout.row([part[:, t] for part in tables.alive], blocks=blocks)
        rows.append((alive + always, free - held))
    return rows


def _scaled(row: Floats, limit: float) -> tuple[Floats, float]:
    """Return a constraint with coefficients of about one, which tolerances are made for."""
    scale = max(float(np.abs(row).max(initial=0.0)), 1e-12)
    return row / scale, limit / scale
