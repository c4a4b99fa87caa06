"""Conditions in the program's terms: what each device's tables may come to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgesdk.budget import Condition
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.planner.kernel_tables import Costs
from edgesdk.planner.option_costs import WEIGHT_FIGURES
from edgesdk.planner.program import Limits
from edgesdk.planner.tables import CostTables
from edgesdk.scheme import Scheme

# A measured latency scatters by a few percent: what is planned to the last percent misses by luck.
AIM = 0.97

Key = tuple[str, FigureName]
"""What a condition is on: the device (empty for the first one) and the figure."""


def is_provable(condition: Condition, provable: Collection[FigureName]) -> bool:
    """Return whether compiling establishes the figure: only on the first device of a fleet, but
    for the bytes of the file that they share."""
    here = not condition.device or condition.figure == "flash_bytes"
    return here and condition.figure in provable


@dataclass(frozen=True, kw_only=True)
class Asked:
    """In which scheme and within what a network is sought; and what the extremes cost."""

    scheme: Scheme
    conditions: Sequence[Condition]
    provable: Collection[FigureName]
    smallest: Mapping[str, Figures]
    original: Mapping[str, Figures]


def condition_key(condition: Condition) -> Key:
    """Return what a condition is on."""
    return condition.device, condition.figure


def limits_on(device: str, tables: CostTables, asked: Asked, slack: Mapping[Key, float]) -> Limits:
    """Return what one device's tables may come to."""
    latency = weights = memory = np.inf
    least, most = _ends(tables)
    for condition in (c for c in asked.conditions if c.device == device):
        name = condition.figure
        smallest, original = asked.smallest[device][name], asked.original[device][name]
        small, full = smallest.value, original.value
        # What the figure itself may be, so that its upper end (or its aim) keeps the limit.
        limit = slack[condition_key(condition)] * full / needed(original, condition, asked.provable)
        place = _Place(small=small, full=full, limit=limit)
        if name in WEIGHT_FIGURES:
            weights = min(weights, place.between(least[1], most[1]))
        elif name == "memory_bytes":
            memory = min(memory, limit)
        elif name in ("latency_ms", "energy_mj"):
            latency = min(latency, place.between(least[0], most[0]))
    return Limits(latency_ms=latency, weight_bytes=weights, memory_bytes=memory)


def _ends(tables: CostTables) -> tuple[Costs, Costs]:
    """Return milliseconds and bytes of weights of the smallest network and of the original; what
    the file says of blocks beside their weights goes with them."""
    last = [len(row) - 1 for row in tables.choices]
    latency, stored = tables.costs_at([0] * len(last), tables.blocks)
    containers = sum(block.container_bytes for block in tables.blocks)
    return (latency, stored - containers), tables.costs_at(last)


def at_share(tables: CostTables, axes: tuple[bool, bool, bool], share: float) -> list[Limits]:
    """Return one limit for each axis (latency, weights, memory) asked for, at a share of the
    original's."""
    last = [len(row) - 1 for row in tables.choices]
    latency, weights = (t.at(last) for t in (tables.latency_ms, tables.weight_bytes))
    resident = tables.resident.at(last) + (weights if tables.weights_in_ram else 0.0)
    alive = tables.alive_constant + sum(part[-1] for part in tables.alive)
    memory = resident + float(np.max(alive, initial=0.0))
    limits = (
        Limits(latency_ms=share * latency),
        Limits(weight_bytes=share * weights),
        Limits(memory_bytes=share * memory),
    )
    return [limit for limit, asked in zip(limits, axes, strict=True) if asked]


class _Place(NamedTuple):
    """A limit between what the smallest network and the original cost, in a figure's own terms."""

    small: float
    full: float
    limit: float

    def between(self, small: float, full: float) -> float:
        """Return what a table says there, on the straight line through those two networks, of which
        it says ``small`` and ``full``.

        In proportion to the original where no network is smaller: layers may still depart.
        """
        if self.full <= self.small:
            return full * self.limit / self.full if self.full else full
        return small + (self.limit - self.small) / (self.full - self.small) * (full - small)


def needed(figure: Figure, condition: Condition, provable: Collection[FigureName]) -> float:
    """Return what a condition is judged by, over its limit: a centre to be proven, or an end."""
    if not is_provable(condition, provable):
        return figure.upper / condition.limit
    aim = AIM if condition.figure == "latency_ms" else 1.0
    return figure.value / (aim * condition.limit)
