"""Propose options: for every scheme the program's best widths under the limits, and its front."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from edgesdk.budget import Condition
from edgesdk.device import Runtime
from edgesdk.figure import Figure, FigureName, Figures
from edgesdk.layer_format import scheme_refusal
from edgesdk.planner.departures import (
    WORTH_DEPARTING,
    Departures,
    kept_departures,
    possible_departures,
)
from edgesdk.planner.options import Option, option_for
from edgesdk.planner.prediction import predict_costs
from edgesdk.planner.program import Limits, Losses, solve
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.tables import CostTable, CostTables, cost_tables
from edgesdk.planner.widths import WidthModel, Widths
from edgesdk.scheme import Scheme

FRONT = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2)
"""Shares of the original's latency, weights or memory at which the front is looked at."""

_DEPARTED = (1.15, 1.4)
"""Further shares where single layers may depart to a wider scheme."""

# A measured latency scatters by a few percent: what is planned to the last percent misses by luck.
_AIM = 0.97
_ROUNDS = 8
_CLOSE = 0.98
_WEIGHT_FIGURES: tuple[FigureName, ...] = ("size_bytes", "flash_bytes", "download_bytes")
_BYTE_FIGURES: tuple[FigureName, ...] = (*_WEIGHT_FIGURES, "memory_bytes")


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """An option with its costs under the (corrected) device; ``gap`` is the program's, proven."""

    option: Option
    costs: Mapping[FigureName, Figure]
    gap: float = 0.0


@dataclass
class Proposer:
    """Solves the program for one request; tables are built once a scheme, before any correction."""

    sensitivity: Sensitivity
    runtime: Runtime
    schemes: Sequence[Scheme]
    _tables: dict[Scheme, CostTables] = field(default_factory=dict)
    _unlimited: dict[Scheme, Option | None] = field(default_factory=dict)
    _fronts: dict[tuple[Scheme, tuple[bool, ...]], list[Option]] = field(default_factory=dict)

    def propose(
        self, runtime: Runtime, conditions: Sequence[Condition], provable: Collection[FigureName],
        tried: Mapping[Option, Figures] | None = None,
    ) -> tuple[Proposed, ...]:  # fmt: skip
        """Return what to choose among on a (corrected) runtime, each option once.

        For each scheme the original, the smallest network, the front, and the best network within
        the conditions; and what was ``tried`` before, whose proven bytes correct those predicted.
        """
        prices = _Prices(model=self.sensitivity.widths, runtime=runtime, tried=tried or {})
        found: dict[Option, Proposed] = {}
        for scheme in self.schemes:
            options = [(self._option(self.sensitivity.widths.full, scheme), 0.0)]
            if self.sensitivity.curves:
                smallest = tuple(row[0] for row in self.sensitivity.choices)
                options.append((self._option(smallest, scheme), 0.0))
            if self.sensitivity.curves or scheme in self.sensitivity.mixes:
                options += [(option, 0.0) for option in self._front(scheme, conditions)]
                best = self._best(scheme, prices, conditions, provable)
                options += [best] if best else []
            options += [(option, 0.0) for option in prices.tried if option.scheme == scheme]
            for option, gap in options:
                if not self._has_a_layer(option):
                    continue
                # Tried before or on the front as well: the gap is the one the program proved.
                known = found[option].gap if option in found else 0.0
                costs = prices.of(option)
                found[option] = Proposed(option=option, costs=costs, gap=max(gap, known))
        return tuple(found.values())

    def tables(self, scheme: Scheme) -> CostTables:
        """Return the scheme's cost tables on the uncorrected runtime."""
        if scheme not in self._tables:
            widths, choices = self.sensitivity.widths, self.sensitivity.choices
            departures = possible_departures(
                widths.graph, self.runtime.target, scheme, self.sensitivity.mixes.get(scheme, ())
            )
            self._tables[scheme] = cost_tables(widths, choices, self.runtime, scheme, departures)
        return self._tables[scheme]

    def _option(self, widths: Widths, scheme: Scheme, departures: Departures = ()) -> Option:
        model, target = self.sensitivity.widths, self.runtime.target
        kept = kept_departures(model, widths, target, departures) if departures else ()
        return option_for(widths, model.full, scheme, kept)

    def _solve(self, scheme: Scheme, limits: Limits) -> tuple[Option, float] | None:
        """Return the program's network within the limits, with its gap, None where none is."""
        tables, sensitivity = self.tables(scheme), self.sensitivity
        losses = Losses(
            widths=[sensitivity.joint_scale * np.array(c.losses) for c in sensitivity.curves],
            departures=[
                sensitivity.departure_loss(scheme, cost.departure) + WORTH_DEPARTING
                for cost in tables.departures
            ],
            network=sensitivity.format(scheme).loss,
        )
        solution = solve(tables, losses, limits)
        if solution is None:
            return None
        widths = tuple(
            row[place] for row, place in zip(sensitivity.choices, solution.places, strict=True)
        )
        departures = tuple(tables.departures[index].departure for index in solution.departures)
        return self._option(widths, scheme, departures), solution.gap

    def _has_a_layer(self, option: Option) -> bool:
        """Return whether a layer is left that can have the scheme: pruning may leave no inputs
        that divide into int4's groups, and such a file would be another option's."""
        graph = self.sensitivity.widths.at(option.widths)
        return scheme_refusal(graph, self.runtime.target, option.scheme) is None

    def _front(self, scheme: Scheme, conditions: Sequence[Condition]) -> list[Option]:
        """Return the networks of least loss at shares of what the original has of each figure
        that the conditions limit, and of its latency."""
        figures = {condition.figure for condition in conditions}
        axes = (True, bool(figures & {*_WEIGHT_FIGURES}), "memory_bytes" in figures)
        key = (scheme, axes)
        if key not in self._fronts:
            tables = self.tables(scheme)
            solved = (
                self._solve(scheme, limits)
                for share in (*FRONT, *(_DEPARTED if tables.departures else ()))
                for limits in _at_share(tables, axes, share)
            )
            self._fronts[key] = [found[0] for found in solved if found]
        return self._fronts[key]

    def best_loss(
        self, runtime: Runtime, conditions: Sequence[Condition], provable: Collection[FigureName],
        tried: Mapping[Option, Figures],
    ) -> float | None:  # fmt: skip
        """Return the least expected loss within the conditions, None where nothing fits."""
        prices = _Prices(model=self.sensitivity.widths, runtime=runtime, tried=tried)
        found = (self._best(scheme, prices, conditions, provable) for scheme in self.schemes)
        return min(
            (
                self.sensitivity.loss(best[0])
                for best in found
                if best and self._has_a_layer(best[0])
            ),
            default=None,
        )

    def _best(
        self, scheme: Scheme, prices: _Prices, conditions: Sequence[Condition],
        provable: Collection[FigureName],
    ) -> tuple[Option, float] | None:  # fmt: skip
        """Return the network of least loss that keeps the conditions, with its gap.

        The program's tables leave out what only the whole network shows (an allocator's gaps, a
        container's padding), so what it finds is priced whole and the limits it exceeds are
        tightened by as much.
        """
        asked = self._asked(scheme, prices, conditions, provable)
        if any(condition.limit <= 0 for condition in asked.conditions):
            return None
        slack = {condition.figure: 1.0 for condition in asked.conditions}
        found: tuple[Option, float] | None = None
        for _ in range(_ROUNDS):
            limits = self._limits(asked, slack)
            solved = self._solve(scheme, limits)
            if solved is None:
                break
            option, own_gap = solved
            costs = prices.of(option)
            excess = dict.fromkeys(slack, 0.0)
            for condition in asked.conditions:
                name = condition.figure
                excess[name] = max(excess[name], _needed(costs[name], condition, provable))
            worst = max(excess.values(), default=0.0)
            rank = self.sensitivity.rank
            if worst <= 1.0 and (found is None or rank(option) < rank(found[0])):
                found = option, own_gap
            if _CLOSE <= worst <= 1.0 or (worst <= 1.0 and self._is_best(option)):
                break
            for figure, ratio in excess.items():
                # Past a limit tighten that one; short of all loosen them, to where one binds.
                if ratio > 1.0 or worst <= 1.0:
                    slack[figure] *= 0.999 / (ratio if worst > 1.0 else worst)
        return found

    def _is_best(self, option: Option) -> bool:
        """Return whether no looser limit could give less loss: it is the program's without any."""
        scheme = option.scheme
        if not self.tables(scheme).departures:
            return option.widths == self.sensitivity.widths.full
        if scheme not in self._unlimited:
            solved = self._solve(scheme, Limits())
            self._unlimited[scheme] = solved[0] if solved else None
        return option == self._unlimited[scheme]

    def _asked(
        self, scheme: Scheme, prices: _Prices, conditions: Sequence[Condition],
        provable: Collection[FigureName],
    ) -> _Asked:  # fmt: skip
        ends = (tuple(row[0] for row in self.sensitivity.choices), self.sensitivity.widths.full)
        smallest, original = (prices.of(self._option(w, scheme)) for w in ends)
        return _Asked(
            scheme=scheme,
            conditions=[c for c in conditions if c.figure in original],
            provable=provable,
            smallest=smallest,
            original=original,
        )

    def _limits(self, asked: _Asked, slack: Mapping[FigureName, float]) -> Limits:
        """Return the conditions in the program's terms: latency by the table, and bytes.

        What a table says and what the whole network costs are taken for a straight line through
        the smallest network and the original.
        """
        tables = self.tables(asked.scheme)
        latency = weights = memory = np.inf
        for condition in asked.conditions:
            name = condition.figure
            small, full = asked.smallest[name].value, asked.original[name].value
            # What the figure itself may be, so that its upper end (or its aim) keeps the limit.
            limit = slack[name] * full / _needed(asked.original[name], condition, asked.provable)
            place = _Place(small=small, full=full, limit=limit)
            if name in _WEIGHT_FIGURES:
                weights = min(weights, place.on(tables, tables.weight_bytes))
            elif name == "memory_bytes":
                memory = min(memory, limit)
            elif name in ("latency_ms", "energy_mj"):
                latency = min(latency, place.on(tables, tables.latency_ms))
        return Limits(latency_ms=latency, weight_bytes=weights, memory_bytes=memory)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prices:
    """What options cost on a runtime, their bytes in proportion to the nearest one ``tried``."""

    model: WidthModel
    runtime: Runtime
    tried: Mapping[Option, Figures]

    def of(self, option: Option) -> Figures:
        """Return an option's figures."""
        costs = self._predicted(option)
        for name in _BYTE_FIGURES:
            nearest = self._nearest(option, name) if name in costs else None
            if nearest is None:
                continue
            expected = self._predicted(nearest)[name].value
            if expected > 0:
                costs[name] = _times(costs[name], self.tried[nearest][name].value / expected)
        return costs

    def _predicted(self, option: Option) -> dict[FigureName, Figure]:
        graph = self.model.at(option.widths)
        return predict_costs(graph, self.runtime, option.scheme, option.layer_schemes)

    def _nearest(self, option: Option, name: FigureName) -> Option | None:
        """Return the option of the same scheme whose figure is known and whose widths and
        departures differ least; of equals the latest."""

        def distance(other: Option) -> float:
            pairs = zip(option.widths, other.widths, self.model.full, strict=True)
            differing = set(option.departures) ^ set(other.departures)
            return sum(abs(a - b) / full for a, b, full in pairs) + len(differing)

        known = [
            other
            for other, figures in self.tried.items()
            if other.scheme == option.scheme and name in figures
        ]
        return min(reversed(known), key=distance, default=None)


def _times(figure: Figure, ratio: float) -> Figure:
    assert figure.low is not None
    assert figure.high is not None
    return replace(
        figure,
        value=figure.value * ratio,
        low=figure.low * ratio,
        high=figure.high * ratio,
        source=f"{figure.source}, corrected",
    )


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """In which scheme and within what a network is sought; and what the extremes cost."""

    scheme: Scheme
    conditions: Sequence[Condition]
    provable: Collection[FigureName]
    smallest: Mapping[FigureName, Figure]
    original: Mapping[FigureName, Figure]


def _ends(tables: CostTables, table: CostTable) -> tuple[float, float]:
    """Return what the smallest network and the original cost by a table."""
    last = [len(row) - 1 for row in tables.choices]
    return table.at([0] * len(last)), table.at(last)


def _at_share(tables: CostTables, axes: tuple[bool, bool, bool], share: float) -> list[Limits]:
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

    def on(self, tables: CostTables, table: CostTable) -> float:
        """Return what a table says there, on the straight line through those two networks.

        In proportion to the original where no network is smaller: layers may still depart.
        """
        small, full = _ends(tables, table)
        if self.full <= self.small:
            return full * self.limit / self.full if self.full else full
        return small + (self.limit - self.small) / (self.full - self.small) * (full - small)


def _needed(figure: Figure, condition: Condition, provable: Collection[FigureName]) -> float:
    """Return what a condition is judged by, over its limit: a centre to be proven, or an end."""
    if condition.figure not in provable:
        return figure.upper / condition.limit
    aim = _AIM if condition.figure == "latency_ms" else 1.0
    return figure.value / (aim * condition.limit)
