"""Propose options: for every scheme the program's best widths under the limits, and its front."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgesdk.budget import Condition
from edgesdk.device import Runtime
from edgesdk.figure import FigureName, Figures
from edgesdk.layer_format import scheme_refusal
from edgesdk.low_rank import Splits
from edgesdk.planner.departures import (
    WORTH_DEPARTING,
    WORTH_SPLITTING,
    Departures,
    kept_departures,
    possible_departures,
)
from edgesdk.planner.limits import Asked, Key, at_share, condition_key, limits_on, needed
from edgesdk.planner.option_costs import WEIGHT_FIGURES, OptionCosts
from edgesdk.planner.options import Option, option_for
from edgesdk.planner.program import Limits, Losses, solve
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.tables import CostTables, cost_tables
from edgesdk.planner.widths import Widths
from edgesdk.scheme import Scheme

FRONT = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2)
"""Shares of the original's latency, weights or memory at which the front is looked at."""

_DEPARTED = (1.15, 1.4)
"""Further shares where single layers may depart to a wider scheme."""

_ROUNDS = 8
_CLOSE = 0.98


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """An option with its costs under the (corrected) device; ``gap`` is the program's, proven.

    ``elsewhere`` are its costs on the other devices of a fleet, by their names.
    """

    option: Option
    costs: Figures
    gap: float = 0.0
    elsewhere: Mapping[str, Figures] = field(default_factory=dict)


@dataclass
class Proposer:
    """Solves the program for one request; tables are built once a scheme, before any correction.

    ``runtimes`` are those of every device of the fleet, by what conditions call it: the first one
    has no name.
    """

    sensitivity: Sensitivity
    runtimes: Mapping[str, Runtime]
    schemes: Sequence[Scheme]
    _tables: dict[Scheme, tuple[CostTables, ...]] = field(default_factory=dict)
    _unlimited: dict[Scheme, Option | None] = field(default_factory=dict)
    _fronts: dict[tuple[Scheme, tuple[bool, ...]], list[Option]] = field(default_factory=dict)

    def propose(
        self, runtimes: Mapping[str, Runtime], conditions: Sequence[Condition],
        provable: Collection[FigureName], tried: Mapping[Option, Figures] | None = None,
    ) -> tuple[Proposed, ...]:  # fmt: skip
        """Return what to choose among on (corrected) runtimes, each option once.

        For each scheme the original, the smallest network, the front, and the best network within
        the conditions; and what was ``tried`` before, whose proven bytes correct those predicted.
        """
        prices = OptionCosts(model=self.sensitivity.widths, runtimes=runtimes, tried=tried or {})
        found: dict[Option, Proposed] = {}
        for scheme in self.schemes:
            options = [(self._option(self.sensitivity.widths.full, scheme), 0.0)]
            if self._may_shrink:
                options.append((self._smallest(scheme), 0.0))
            if self._may_shrink or scheme in self.sensitivity.mixes:
                options += [(option, 0.0) for option in self._front(scheme, conditions)]
                best = self._best(scheme, prices, conditions, provable)
                options += [best] if best else []
            options += [(option, 0.0) for option in prices.tried if option.scheme == scheme]
            for option, gap in options:
                if not self._has_a_layer(option):
                    continue
                # Tried before or on the front as well: the gap is the one the program proved.
                known = found[option].gap if option in found else 0.0
                elsewhere = prices.of(option)
                found[option] = Proposed(
                    option=option,
                    costs=elsewhere.pop(""),
                    gap=max(gap, known),
                    elsewhere=elsewhere,
                )
        return tuple(found.values())

    @property
    def _may_shrink(self) -> bool:
        found = self.sensitivity
        return bool(found.curves or found.blocks or found.splits)

    @property
    def _target(self) -> str:
        return self.runtimes[""].target

    def tables(self, scheme: Scheme) -> tuple[CostTables, ...]:
        """Return the scheme's cost tables, one for each uncorrected runtime."""
        if scheme not in self._tables:
            widths, choices = self.sensitivity.widths, self.sensitivity.choices
            departures = possible_departures(
                widths.graph, self._target, scheme, self.sensitivity.mixes.get(scheme, ())
            )
            blocks = [point.block for point in self.sensitivity.blocks]
            self._tables[scheme] = tuple(
                cost_tables(
                    widths, choices, runtime, scheme, departures=departures, blocks=blocks,
                    splits=self.sensitivity.looked_at,
                )
                for runtime in self.runtimes.values()
            )  # fmt: skip
        return self._tables[scheme]

    def _smallest(self, scheme: Scheme) -> Option:
        """Return the narrowest network without any block that may go."""
        blocks = tuple(point.block for point in self.sensitivity.blocks)
        return self._option(tuple(row[0] for row in self.sensitivity.choices), scheme, (), blocks)

    def _option(
        self, widths: Widths, scheme: Scheme, departures: Departures = (),
        blocks: tuple[str, ...] = (), splits: Splits = (),
    ) -> Option:  # fmt: skip
        """Return the option without the blocks, whose own groups then stay as they are."""
        model = self.sensitivity.widths
        kept = kept_departures(model, widths, self._target, departures) if departures else ()
        within = model.groups_within(blocks)
        pairs = zip(widths, model.full, strict=True)
        widths = tuple(full if g in within else width for g, (width, full) in enumerate(pairs))
        return option_for(widths, model.full, scheme, kept, removed_blocks=blocks, splits=splits)

    def _solve(self, scheme: Scheme, limits: Sequence[Limits]) -> tuple[Option, float] | None:
        """Return the program's network within each device's limits, with its gap, None where none
        is."""
        tables, sensitivity = self.tables(scheme), self.sensitivity
        losses = Losses(
            widths=[sensitivity.joint_scale * np.array(c.losses) for c in sensitivity.curves],
            departures=[
                sensitivity.departure_loss(scheme, cost.departure) + WORTH_DEPARTING
                for cost in tables[0].departures
            ],
            blocks=[sensitivity.block_loss(cost.block) for cost in tables[0].blocks],
            splits=[
                sensitivity.split_loss(cost.split) + WORTH_SPLITTING for cost in tables[0].splits
            ],
            network=sensitivity.format(scheme).loss,
        )
        solution = solve(tables, losses, limits)
        if solution is None:
            return None
        widths = tuple(
            row[place] for row, place in zip(sensitivity.choices, solution.places, strict=True)
        )
        departures = tuple(tables[0].departures[index].departure for index in solution.departures)
        blocks = tuple(tables[0].blocks[index].block for index in solution.blocks)
        splits = tuple(tables[0].splits[index].split for index in solution.splits)
        return self._option(widths, scheme, departures, blocks, splits), solution.gap

    def _has_a_layer(self, option: Option) -> bool:
        """Return whether a layer is left that can have the scheme: pruning may leave no inputs
        that divide into int4's groups, and such a file would be another option's."""
        graph = option.graph(self.sensitivity.widths)
        return scheme_refusal(graph, self._target, option.scheme) is None

    def _front(self, scheme: Scheme, conditions: Sequence[Condition]) -> list[Option]:
        """Return the networks of least loss at shares of what the original has of each figure
        that the conditions limit, and of its latency: on the first device."""
        figures = {condition.figure for condition in conditions}
        axes = (True, bool(figures & {*WEIGHT_FIGURES}), "memory_bytes" in figures)
        key = (scheme, axes)
        if key not in self._fronts:
            tables, *others = self.tables(scheme)
            solved = (
                self._solve(scheme, [limits, *(Limits() for _ in others)])
                for share in (*FRONT, *(_DEPARTED if tables.departures else ()))
                for limits in at_share(tables, axes, share)
            )
            self._fronts[key] = [found[0] for found in solved if found]
        return self._fronts[key]

    def best_loss(
        self, runtimes: Mapping[str, Runtime], conditions: Sequence[Condition],
        provable: Collection[FigureName], tried: Mapping[Option, Figures],
    ) -> float | None:  # fmt: skip
        """Return the least expected loss within the conditions, None where nothing fits."""
        prices = OptionCosts(model=self.sensitivity.widths, runtimes=runtimes, tried=tried)
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
        self, scheme: Scheme, prices: OptionCosts, conditions: Sequence[Condition],
        provable: Collection[FigureName],
    ) -> tuple[Option, float] | None:  # fmt: skip
        """Return the network of least loss that keeps the conditions, with its gap.

        The program's tables leave out what only the whole network shows (an allocator's gaps, a
        container's padding), so what it finds is priced whole and the limits it exceeds are
        tightened by as much. Where the original itself keeps them nothing can lose less.
        """
        asked = self._asked(scheme, prices, conditions, provable)
        if any(condition.limit <= 0 for condition in asked.conditions):
            return None
        whole = self._option(self.sensitivity.widths.full, scheme)
        if self._is_best(whole) and max(_excess(prices, whole, asked).values(), default=0.0) <= 1:
            return whole, 0.0
        slack = {condition_key(condition): 1.0 for condition in asked.conditions}
        found: tuple[Option, float] | None = None
        for _ in range(_ROUNDS):
            limits = self._limits(asked, slack)
            solved = self._solve(scheme, limits)
            if solved is None:
                break
            option, own_gap = solved
            excess = _excess(prices, option, asked)
            worst = max(excess.values(), default=0.0)
            rank = self.sensitivity.rank
            if worst <= 1.0 and (found is None or rank(option) < rank(found[0])):
                found = option, own_gap
            if _CLOSE <= worst <= 1.0 or (worst <= 1.0 and self._is_best(option)):
                break
            for key, ratio in excess.items():
                # Past a limit tighten that one; short of all loosen them, to where one binds.
                if ratio > 1.0 or worst <= 1.0:
                    slack[key] *= 0.999 / (ratio if worst > 1.0 else worst)
        return found

    def _is_best(self, option: Option) -> bool:
        """Return whether no looser limit could give less loss: it is the program's without any."""
        scheme = option.scheme
        if not self.tables(scheme)[0].departures:
            return option.is_whole(self.sensitivity.widths.full)
        if scheme not in self._unlimited:
            solved = self._solve(scheme, [Limits() for _ in self.runtimes])
            self._unlimited[scheme] = solved[0] if solved else None
        return option == self._unlimited[scheme]

    def _asked(
        self, scheme: Scheme, prices: OptionCosts, conditions: Sequence[Condition],
        provable: Collection[FigureName],
    ) -> Asked:  # fmt: skip
        ends = (self._smallest(scheme), self._option(self.sensitivity.widths.full, scheme))
        smallest, original = (prices.of(option) for option in ends)
        return Asked(
            scheme=scheme,
            conditions=[c for c in conditions if c.figure in original[c.device]],
            provable=provable,
            smallest=smallest,
            original=original,
        )

    def _limits(self, asked: Asked, slack: Mapping[Key, float]) -> list[Limits]:
        """Return the conditions in the program's terms, device by device: latency and bytes.

        What a table says and what the whole network costs are taken for a straight line through
        the smallest network and the original.
        """
        every = zip(self.runtimes, self.tables(asked.scheme), strict=True)
        return [limits_on(device, tables, asked, slack) for device, tables in every]


def _excess(prices: OptionCosts, option: Option, asked: Asked) -> dict[Key, float]:
    """Return by what an option's figures are judged over their limits, the worst of each."""
    costs = prices.of(option)
    excess: dict[Key, float] = {}
    for condition in asked.conditions:
        key = condition_key(condition)
        figure = costs[condition.device][condition.figure]
        ratio = needed(figure, condition, asked.provable)
        excess[key] = max(excess.get(key, 0.0), ratio)
    return excess
