"""Cost tables: what every width of every group costs, apart and in pairs, for a linear program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.fusion import Kernel, activation_bytes, fuse, weight_bytes
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_file_size
from edgesdk.device import Runtime
from edgesdk.graph import OpGraph
from edgesdk.layer_format import op_schemes
from edgesdk.low_rank import Splits
from edgesdk.planner.block_costs import BlockCost, BlockPricing
from edgesdk.planner.departures import DepartureCost, Departures, departure_costs
from edgesdk.planner.kernel_tables import Costs, groups_of, members_of
from edgesdk.planner.splits import SplitCost, split_costs
from edgesdk.planner.widths import WidthModel, Widths
from edgesdk.scheme import Scheme

Floats = NDArray[np.float64]
Choices = tuple[tuple[int, ...], ...]
"""The widths each group may have, ascending; the last is the original's."""


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """A cost as ``constant + sum of single[g][i] + sum of pair[a, b][i, j]`` over chosen widths.

    Exact where every kernel depends on at most two groups; with more (a concatenation's reader) it
    is the anchored expansion around the original to second order (Sobol 1993), and what it leaves
    out shows when the chosen network is priced whole.
    """

    constant: float
    single: tuple[Floats, ...]
    pair: Mapping[tuple[int, int], Floats]

    def at(self, places: Sequence[int]) -> float:
        """Return the cost where group ``g`` has its ``places[g]``-th width."""
        total = self.constant + sum(row[i] for row, i in zip(self.single, places, strict=True))
        return float(total + sum(m[places[a], places[b]] for (a, b), m in self.pair.items()))


@dataclass(frozen=True, kw_only=True)
class CostTables:
    """Latency (ms) and stored weights (bytes) of a scheme; and the bytes alive at each operator.

    ``alive[g][i]`` is ``[T]``: what group ``g`` at its ``i``-th width holds at each of T moments,
    beside ``alive_constant``. ``resident`` (bytes) is the rest of the peak memory but for weights:
    what an allocator and a runtime keep beside the tensors, each group's share measured alone.
    ``departures`` are the layers that may have another scheme, with what each adds to latency and
    weights; in all else every layer has the network's. ``blocks`` are those that may go, and
    ``splits`` the layers that may become two.
    """

    choices: Choices
    latency_ms: CostTable
    weight_bytes: CostTable
    alive_constant: Floats
    alive: tuple[Floats, ...]
    resident: CostTable
    weights_in_ram: bool
    departures: tuple[DepartureCost, ...] = ()
    blocks: tuple[BlockCost, ...] = ()
    splits: tuple[SplitCost, ...] = ()

    def costs_at(self, places: Sequence[int], gone: Sequence[BlockCost] = ()) -> Costs:
        """Return milliseconds and bytes of weights at those widths, without some blocks."""
        saved = [block.saved(places) for block in gone]
        latency = self.latency_ms.at(places) - sum(latency for latency, _ in saved)
        return latency, self.weight_bytes.at(places) - sum(stored for _, stored in saved)


def cost_tables(
    model: WidthModel, choices: Choices, runtime: Runtime, scheme: Scheme, *,
    departures: Departures = (), blocks: Sequence[str] = (), splits: Splits = (),
) -> CostTables:  # fmt: skip
    """Return the tables of a graph in a scheme on a runtime, of layers that may depart or be split
    and of residual blocks that may go."""

    def latency(part: OpGraph, leads: frozenset[str]) -> float:
        prediction = predict_latency(part, runtime, scheme)
        return sum(op.latency_ms for op in prediction.per_op if op.op in leads)

    def stored(part: OpGraph, leads: frozenset[str]) -> float:
        own = op_schemes(part, runtime.target, scheme, {})
        kernels = (kernel for kernel in fuse(part) if kernel.op.name in leads)
        return sum(weight_bytes(kernel, own.get(kernel.op.name, scheme)) for kernel in kernels)

    def whole(graph: OpGraph) -> Costs:
        every = frozenset(kernel.op.name for kernel in fuse(graph))
        return predict_latency(graph, runtime, scheme).total.value, stored(graph, every)

    def file_bytes(graph: OpGraph) -> float:
        return predict_file_size(graph, runtime, scheme).value

    kernels = fuse(model.graph)
    latency_table = _table(model, choices, kernels, latency)
    priced = latency_table.at([len(row) - 1 for row in choices])
    weights = _table(model, choices, kernels, stored)
    live = _alive(model, choices, scheme)
    pricing = BlockPricing(
        model=model,
        choices=choices,
        price=lambda part, leads: (latency(part, leads), stored(part, leads)),
        whole=whole,
        file_bytes=file_bytes,
        alive=live[0],
    )
    return CostTables(
        choices=choices,
        # What no kernel of its own has: the inference's overhead, reshapes, inputs and outputs.
        latency_ms=CostTable(
            constant=latency_table.constant + whole(model.graph)[0] - priced,
            single=latency_table.single,
            pair=latency_table.pair,
        ),
        weight_bytes=weights,
        alive_constant=live[0],
        alive=live[1],
        resident=_resident(model, choices, live, weights, _Memory(runtime, scheme)),
        weights_in_ram=runtime.weights_in_ram,
        departures=departure_costs(model, choices, runtime, scheme, departures),
        blocks=tuple(pricing.cost(name) for name in blocks),
        splits=split_costs(model, runtime, scheme, splits),
    )


_Live = tuple[Floats, tuple[Floats, ...]]
_Price = Callable[[OpGraph, frozenset[str]], float]


def _table(
    model: WidthModel, choices: Choices, kernels: Sequence[Kernel], price: _Price
) -> CostTable:
    """Return a cost's table: kernels of the same groups are priced together, width by width."""
    constant = 0.0
    single = tuple(np.zeros(len(row)) for row in choices)
    pair: dict[tuple[int, int], Floats] = {}
    by_groups: dict[tuple[int, ...], list[Kernel]] = {}
    for kernel in kernels:
        by_groups.setdefault(groups_of(model, [kernel]), []).append(kernel)
    for touched, part in by_groups.items():
        names = members_of(part)
        leads = frozenset(k.op.name for k in part)

        def cost(changed: Mapping[int, int], names: set[str] = names, leads=leads) -> float:  # type: ignore[no-untyped-def]
            widths = tuple(changed.get(g, full) for g, full in enumerate(model.full))
            return price(model.at(widths, names), leads)

        base = cost({})
        constant += base
        for g in touched:
            single[g][:] += [cost({g: width}) - base for width in choices[g]]
        for a, b in itertools.combinations(touched, 2):
            joint = np.array([[cost({a: i, b: j}) for j in choices[b]] for i in choices[a]])
            alone_a = np.array([cost({a: i}) for i in choices[a]])
            alone_b = np.array([cost({b: j}) for j in choices[b]])
            mixed = joint - alone_a[:, None] - alone_b[None, :] + base
            pair[a, b] = pair.get((a, b), 0.0) + mixed
    return CostTable(constant=constant, single=single, pair=pair)


def _alive(model: WidthModel, choices: Choices, scheme: Scheme) -> _Live:
    """Return the bytes of live tensors at each kernel: the constant, and by group and width."""
    kernels = fuse(model.graph)
    spans = _spans(model.graph, kernels)
    constant = np.zeros(len(kernels))
    alive = tuple(np.zeros((len(row), len(kernels))) for row in choices)
    base = model.at(model.full)
    for name, (first, last) in spans.items():
        before = activation_bytes(base, (name,), scheme)
        constant[first : last + 1] += before
        for g in model.groups_of_tensor(name):
            for i, width in enumerate(choices[g]):
                widths = (*model.full[:g], width, *model.full[g + 1 :])
                tensor = model.tensor_at(name, widths)
                share = tensor.elements / base.tensors[name].elements
                alive[g][i, first : last + 1] += before * (share - 1)
    return constant, alive


class _Memory(NamedTuple):
    """Where memory is predicted for, and in which scheme."""

    runtime: Runtime
    scheme: Scheme


def _resident(
    model: WidthModel, choices: Choices, live: _Live, weights: CostTable, memory: _Memory
) -> CostTable:
    """Return what of the predicted peak is neither a live tensor nor (in RAM) a weight."""
    constant, alive = live
    last = [len(row) - 1 for row in choices]

    def rest(places: list[int]) -> float:
        widths = tuple(row[i] for row, i in zip(choices, places, strict=True))
        peak = predict_memory(model.at(widths), memory.runtime, memory.scheme).value
        held = constant + sum((part[i] for part, i in zip(alive, places, strict=True)), 0.0)
        stored = weights.at(places) if memory.runtime.weights_in_ram else 0.0
        return float(peak - np.max(held, initial=0.0) - stored)

    base = rest(last)
    single = tuple(
        np.array([rest([*last[:g], i, *last[g + 1 :]]) - base for i in range(len(row))])
        for g, row in enumerate(choices)
    )
    return CostTable(constant=base, single=single, pair={})


def _spans(graph: OpGraph, kernels: Sequence[Kernel]) -> dict[str, tuple[int, int]]:
    """Return from which kernel to which each tensor is alive."""
    spans: dict[str, tuple[int, int]] = {}
    last = len(kernels) - 1
    for name, tensor in graph.tensors.items():
        if tensor.role == "input":
            spans[name] = (0, 0)
    for index, kernel in enumerate(kernels):
        for name in kernel.inputs:
            if name in spans:
                spans[name] = (spans[name][0], index)
        for name in kernel.outputs:
            spans[name] = (index, last if graph.tensors[name].role == "output" else index)
    return spans


def width_choices(full: Widths, units: Sequence[int], multiple: int, most: int = 8) -> Choices:
    """Return up to ``most`` widths a group may have, ascending, from an eighth of all to all.

    Whole multiples, evenly spread, and below the first one its halves: a narrow width wastes vector
    lanes there, but the float form of a small network may be nowhere faster.
    """
    rows = []
    for width, unit in zip(full, units, strict=True):
        step = int(np.lcm(unit, multiple))
        least = -(-width // 8)
        allowed = [w for w in _halves(step, unit) if least <= w < width]
        allowed += range(-(-least // step) * step, width, step)
        if len(allowed) > most - 1:
            places = np.linspace(0, len(allowed) - 1, most - 1).round().astype(int)
            allowed = [allowed[i] for i in places]
        rows.append((*allowed, width))
    return tuple(rows)


def _halves(step: int, unit: int) -> list[int]:
    """Return step / 2, step / 4 and so on, as long as they are whole units; ascending."""
    halves = []
    while step % (2 * unit) == 0:
        step //= 2
        halves.append(step)
    return halves[::-1]
