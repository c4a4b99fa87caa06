"""Departures: single layers that have another scheme than their network, and what that costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.cost.latency import predict_latency
from edgesdk.device import Runtime
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes, Weighted, layer_format, op_schemes, weighted_of
from edgesdk.low_rank import Splits
from edgesdk.planner.kernel_tables import MOST_GROUPS, Costs, groups_of, width_tables
from edgesdk.planner.widths import WidthModel, Widths
from edgesdk.scheme import FLOAT_SCHEMES, INT4_SCHEMES, Scheme

Floats = NDArray[np.float64]
Mixes = Mapping[Scheme, tuple[Scheme, ...]]
"""For each scheme of a network those that single layers of it may have instead."""

# A float network with int8 layers is an int8 network with float layers, so networks of eight bits
# are the ones that layers depart from: to float where int8 hurts, to int4 where it does not. Static
# int8 is not among them: what passes from layer to layer stays rounded unless both of them leave,
# so what a layer alone loses does not tell what its leaving wins.
_BASES: tuple[Scheme, ...] = ("int8_dynamic", "w8")
# Of the palettes four bits alone, and with half the weights at zero, which nothing else is as small
# as: each further format is one more pass for every layer.
_ALTERNATIVES: tuple[Scheme, ...] = (*FLOAT_SCHEMES, *INT4_SCHEMES, "lut4", "lut4_sparse50")

WORTH_DEPARTING = 1e-3
"""Nats (or relative squared error) that a layer's departure has to win: each is one more thing that
a reader of the plan has to know and a runtime has to do."""

WORTH_SPLITTING = 1e-3
"""The same for a layer that becomes two."""

WORTH_WIDENING = 1e-3
"""Nats that int16 activations have to win over int8 ones, which take half the memory and are what
every kernel and accelerator has: less than a thousandth of a nat is not seen in any metric."""


class Departure(NamedTuple):
    """A layer, by its module path, and the scheme that it has instead of its network's."""

    layer: str
    scheme: Scheme


Departures = tuple[Departure, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class DepartureCost:
    """What a departure adds (or saves) at every width of the groups that its layer depends on.

    ``latency_ms`` and ``weight_bytes`` have one axis for each of ``groups``, in their order.
    """

    departure: Departure
    groups: tuple[int, ...]
    latency_ms: Floats
    weight_bytes: Floats


def planned_mixes(mixes: Mixes, schemes: Collection[Scheme]) -> Mixes:
    """Return the departures that a planner looks at, of those a target and a request allow."""
    found = {
        base: tuple(s for s in mixes.get(base, ()) if s in _ALTERNATIVES and s in schemes)
        for base in _BASES
        if base in schemes
    }
    return {base: others for base, others in found.items() if others}


def possible_departures(
    graph: OpGraph, target: str, base: Scheme, schemes: Sequence[Scheme]
) -> Departures:
    """Return every layer that has the network's scheme, with every other one it can have."""
    return tuple(
        Departure(layer, scheme)
        for layer, operators in _weighted_layers(graph).items()
        for scheme in schemes
        if _can_have(target, operators, base) and _can_have(target, operators, scheme)
    )


def _weighted_layers(graph: OpGraph) -> dict[str, list[Weighted]]:
    """Return each layer's operators with weights, in the graph's order."""
    layers: dict[str, list[Weighted]] = {}
    for op in graph.ops:
        if (weighted := weighted_of(op, graph)) is not None:
            layers.setdefault(op.layer, []).append(weighted)
    return layers


def _can_have(target: str, operators: Sequence[Weighted], scheme: Scheme) -> bool:
    return all(layer_format(target, each, scheme).scheme == scheme for each in operators)


def rank_of(
    expected_loss: float, scheme: Scheme, departures: Departures = (), splits: Splits = ()
) -> float:
    """Return what options are ranked by: the expected loss, and a little for what it takes.

    Each departure, each split, and activations twice as wide as int8's, have to win something that
    shows.
    """
    wider = WORTH_WIDENING if scheme == "w8a16" else 0.0
    changed = WORTH_DEPARTING * len(departures) + WORTH_SPLITTING * len(splits)
    return expected_loss + wider + changed


def departure_costs(
    model: WidthModel, choices: Sequence[Sequence[int]], runtime: Runtime, base: Scheme,
    departures: Departures,
) -> tuple[DepartureCost, ...]:  # fmt: skip
    """Return the cost tables of the departures whose layers depend on at most two groups."""
    kernels = fuse(model.graph)
    pricing = _Pricing(model=model, runtime=runtime, base=base)
    whole = predict_latency(model.graph, runtime, base).total.value
    found = []
    for departure in departures:
        own = [k for k in kernels if k.op.layer == departure.layer and k.channels]
        groups = groups_of(model, own)
        if len(groups) > MOST_GROUPS:
            continue
        price = partial(pricing.added, departure=departure)
        latency, stored = width_tables(model, choices, groups, own, price)
        departed = predict_latency(model.graph, runtime, base, dict([departure])).total.value
        # Conversions at its borders, as where its neighbours stay: no kernel of its own has them.
        borders = departed - whole - latency[(-1,) * len(groups)]
        found.append(
            DepartureCost(
                departure=departure,
                groups=groups,
                latency_ms=latency + borders,
                weight_bytes=stored,
            )
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pricing:
    """Prices a layer's kernels at any widths, in its network's scheme and in another."""

    model: WidthModel
    runtime: Runtime
    base: Scheme

    def added(self, part: OpGraph, leads: frozenset[str], departure: Departure) -> Costs:
        """Return the differences in milliseconds and in bytes that a departure makes."""
        departed = self._price(part, leads, dict([departure]))
        stayed = self._price(part, leads, {})
        return departed[0] - stayed[0], departed[1] - stayed[1]

    def _price(self, part: OpGraph, leads: frozenset[str], layer_schemes: LayerSchemes) -> Costs:
        prediction = predict_latency(part, self.runtime, self.base, layer_schemes)
        own = op_schemes(part, self.runtime.target, self.base, layer_schemes)
        return (
            sum(op.latency_ms for op in prediction.per_op if op.op in leads),
            sum(
                weight_bytes(kernel, own.get(kernel.op.name, self.base))
                for kernel in fuse(part)
                if kernel.op.name in leads
            ),
        )


def kept_departures(
    model: WidthModel, widths: Widths, target: str, departures: Departures
) -> Departures:
    """Return those whose layer can still have the scheme at those widths, in the graph's order.

    Pruning may leave inputs that do not divide into int4's groups.
    """
    asked = dict(departures)
    return tuple(
        Departure(layer, asked[layer])
        for layer, operators in _weighted_layers(model.at(widths)).items()
        if layer in asked and _can_have(target, operators, asked[layer])
    )
