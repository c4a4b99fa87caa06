"""Splits: layers that may become two of lower rank, and what that saves."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgesdk.cost.fusion import Kernel, fuse, weight_bytes
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.size import predict_file_size
from edgesdk.device import Runtime
from edgesdk.graph import Op, OpGraph
from edgesdk.layer_format import op_schemes
from edgesdk.low_rank import LayerSplit, Splits, split_limit, splittable_ops, with_splits
from edgesdk.planner.kernel_tables import Costs, groups_of, members_of
from edgesdk.planner.widths import WidthModel
from edgesdk.scheme import Scheme

_RANK_SHARES = (0.125, 0.25, 0.5, 0.75)
"""Ranks to choose from, as shares of the rank from which on two layers are no smaller than one."""

_LEAST_GAIN = 0.1
"""The share of a layer's own time, or bytes, that a split has to save to be looked at."""


@dataclass(frozen=True, kw_only=True)
class SplitCost:
    """What a split adds (below 0: saves) where every group in ``groups``, which the layer depends
    on, is whole. ``container_bytes`` is what the file says of it beside weights."""

    split: LayerSplit
    groups: tuple[int, ...]
    latency_ms: float
    weight_bytes: float
    container_bytes: float


def possible_splits(graph: OpGraph, multiple: int) -> Splits:
    """Return the splits at up to four ranks a layer, multiples of ``multiple``, that have fewer
    weights and pass on no more values than the layer reads or gives."""
    found: list[LayerSplit] = []
    for op in splittable_ops(graph):
        most = min(split_limit(graph.tensors[op.parameters[0]].shape), _most_passed(graph, op))
        ranks = {math.floor(share * most / multiple) * multiple for share in _RANK_SHARES}
        found += [LayerSplit(op.layer, rank) for rank in sorted(ranks) if rank > 0]
    return tuple(found)


def _most_passed(graph: OpGraph, op: Op) -> int:
    """Return the largest rank at which what passes between the two layers takes no more memory
    than what the layer reads or gives: the peak of an inference is then the same or lower."""
    out = graph.tensors[op.parameters[0]].shape[0]
    read, given = (graph.elements(names) for names in (op.inputs, op.outputs))
    return min(out, out * read // given)


def gaining_splits(
    graph: OpGraph, splits: Splits, runtimes: Collection[Runtime], schemes: Collection[Scheme], *,
    bytes_count: bool,
) -> Splits:  # fmt: skip
    """Return the splits that save something on some runtime in some scheme: a tenth of the layer's
    time, or where ``bytes_count`` of its weights' bytes."""
    model = WidthModel(graph=graph, groups=(), full=(), extents=())
    pricings = [
        _Pricing.of(model, runtime, scheme)
        for runtime in runtimes
        for scheme in schemes
        if scheme in runtime.precisions
    ]
    return tuple(
        split
        for split in splits
        if any(pricing.gains(split, bytes_count=bytes_count) for pricing in pricings)
    )


def split_costs(
    model: WidthModel, runtime: Runtime, scheme: Scheme, splits: Splits
) -> tuple[SplitCost, ...]:
    """Return what each split adds to the network's costs."""
    pricing = _Pricing.of(model, runtime, scheme)
    return tuple(pricing.cost(split) for split in splits)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pricing:
    """Prices layers alone, as they are and split."""

    model: WidthModel
    runtime: Runtime
    scheme: Scheme
    kernels: Sequence[Kernel]

    @classmethod
    def of(cls, model: WidthModel, runtime: Runtime, scheme: Scheme) -> _Pricing:
        return cls(model=model, runtime=runtime, scheme=scheme, kernels=fuse(model.graph))

    def gains(self, split: LayerSplit, *, bytes_count: bool) -> bool:
        part = self._part(split)
        (slow, large), (fast, small) = (self._price(g) for g in (part, with_splits(part, [split])))
        least = 1 - _LEAST_GAIN
        return fast <= least * slow or (bytes_count and small <= least * large)

    def cost(self, split: LayerSplit) -> SplitCost:
        part = self._part(split)
        after = with_splits(part, [split])
        difference = np.subtract(self._price(after), self._price(part))
        file = [predict_file_size(g, self.runtime, self.scheme).value for g in (part, after)]
        return SplitCost(
            split=split,
            groups=groups_of(self.model, self._own(split)),
            latency_ms=float(difference[0]),
            weight_bytes=float(difference[1]),
            container_bytes=file[1] - file[0] - float(difference[1]),
        )

    def _own(self, split: LayerSplit) -> list[Kernel]:
        return [kernel for kernel in self.kernels if kernel.op.layer == split.layer]

    def _part(self, split: LayerSplit) -> OpGraph:
        """Return the layer's kernels at full width, as a network of their own."""
        part = self.model.at(self.model.full, members_of(self._own(split)))
        made = {name for op in part.ops for name in op.outputs}
        read = {name for op in part.ops for name in op.inputs if name not in made}
        inputs = {name: replace(part.tensors[name], role="input") for name in read}
        return replace(part, tensors={**part.tensors, **inputs})

    def _price(self, part: OpGraph) -> Costs:
        kernels = fuse(part)
        leads = {kernel.op.name for kernel in kernels}
        prediction = predict_latency(part, self.runtime, self.scheme)
        own = op_schemes(part, self.runtime.target, self.scheme, {})
        return (
            sum(op.latency_ms for op in prediction.per_op if op.op in leads),
            sum(weight_bytes(k, own.get(k.op.name, self.scheme)) for k in kernels),
        )
