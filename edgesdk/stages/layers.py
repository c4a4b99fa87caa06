"""Compare the original with the artifact, layer by layer, by the cost model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgesdk.cost.fusion import Kernel, activation_bytes, fuse, weight_bytes
from edgesdk.cost.latency import LatencyPrediction, predict_latency
from edgesdk.device import Runtime
from edgesdk.graph import OpGraph
from edgesdk.layer_change import LayerChange, LayerChanges, LayerCost
from edgesdk.layer_format import op_schemes
from edgesdk.low_rank import HALVES, LayerSplit
from edgesdk.plan import Plan, Prune
from edgesdk.planner.departures import Departure
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.residual import is_within
from edgesdk.scheme import FLOAT_SCHEMES, WEIGHT_BYTES, Scheme


def compare_layers(
    before: OpGraph, after: OpGraph, plan: Plan, runtime: Runtime,
    sensitivity: Sensitivity | None = None,
) -> LayerChanges:  # fmt: skip
    """Return each layer's cost in the float original and in what the plan made of it.

    Without a ``sensitivity`` (a replayed plan) what the layers lose is not known.
    """
    float_scheme = runtime.float_scheme
    priced_before = predict_latency(before, runtime, float_scheme)
    priced_after = predict_latency(after, runtime, plan.scheme, plan.layer_schemes)
    own = op_schemes(after, runtime.target, plan.scheme, plan.layer_schemes)
    costs_before = _layer_costs(before, priced_before, float_scheme, {})
    halves = {f"{name}.{half}": name for name in plan.ranks for half in HALVES}
    costs_after = _layer_costs(after, priced_after, plan.scheme, own, halves)
    losses = {} if sensitivity is None else _losses(plan, sensitivity, list(costs_before))
    kinds = _kinds(before, after, halves)
    return LayerChanges(
        scheme_before=float_scheme,
        scheme_after=plan.scheme,
        overhead_ms_before=priced_before.overhead_ms,
        overhead_ms_after=priced_after.overhead_ms,
        layers=tuple(
            LayerChange(
                layer=layer,
                kinds=kinds.get(layer, ()),
                before=costs_before.get(layer),
                after=costs_after.get(layer),
                expected_loss=losses.get(layer),
            )
            for layer in dict.fromkeys([*costs_before, *costs_after])
        ),
        format_loss=None if sensitivity is None else _format_loss(plan, sensitivity),
    )


def _layer_costs(
    graph: OpGraph, priced: LatencyPrediction, scheme: Scheme, own: Mapping[str, Scheme],
    halves: Mapping[str, str] = MappingProxyType({}),
) -> Mapping[str, LayerCost]:  # fmt: skip
    """Return the cost of every layer that has a kernel or a price, in order of execution.

    ``own`` names the operators that have another scheme than the network, ``halves`` the layers
    that count as the one that was split into them.
    """
    kernels: dict[str, list[Kernel]] = {}
    for kernel in fuse(graph):
        layer = halves.get(kernel.op.layer, kernel.op.layer)
        kernels.setdefault(layer, []).append(kernel)
    spent_ms = dict.fromkeys(kernels, 0.0)
    for op in priced.per_op:
        layer = halves.get(op.layer, op.layer)
        spent_ms[layer] = spent_ms.get(layer, 0.0) + op.latency_ms
    return {
        layer: _cost(graph, kernels.get(layer, []), latency_ms, scheme, own)
        for layer, latency_ms in spent_ms.items()
    }


def _cost(
    graph: OpGraph, kernels: list[Kernel], latency_ms: float, scheme: Scheme,
    own: Mapping[str, Scheme],
) -> LayerCost:  # fmt: skip
    widths = [kernel.channels for kernel in kernels if kernel.channels]
    schemes = [own.get(kernel.op.name, scheme) for kernel in kernels]
    weighted = [own[kernel.op.name] for kernel in kernels if kernel.op.name in own]
    stored = map(weight_bytes, kernels, schemes)
    return LayerCost(
        width=widths[-1] if widths else None,
        weight_bits=round(8 * WEIGHT_BYTES[weighted[-1] if weighted else scheme]),
        macs=sum(kernel.op.macs for kernel in kernels),
        weight_bytes=sum(stored),
        activation_bytes=sum(activation_bytes(graph, k.outputs, scheme) for k in kernels),
        predicted_ms=latency_ms,
    )


def _format_loss(plan: Plan, sensitivity: Sensitivity) -> float | None:
    """Return what the formats were expected to lose, None where an edited plan has others."""
    known = {(point.layer, point.scheme) for point in sensitivity.layers}
    departures = tuple(Departure(*item) for item in plan.layer_schemes.items())
    if any(d.scheme not in FLOAT_SCHEMES and d not in known for d in departures):
        return None
    if any((d.layer, plan.scheme) not in known for d in departures):
        return None
    return sensitivity.format_loss(plan.scheme, departures)


def _kinds(
    before: OpGraph, after: OpGraph, halves: Mapping[str, str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the operators that each layer's kernels are named by."""
    found: dict[str, dict[str, None]] = {}
    for kernel in (kernel for graph in (before, after) for kernel in fuse(graph)):
        layer = halves.get(kernel.op.layer, kernel.op.layer)
        found.setdefault(layer, {})[kernel.op.kind] = None
    return {layer: tuple(kinds) for layer, kinds in found.items()}


def _losses(plan: Plan, sensitivity: Sensitivity, layers: Sequence[str]) -> Mapping[str, float]:
    """Return what each narrowed group was expected to lose, by the layer that names it, each block
    that went, by its first one, and each layer that was split.

    A width that no curve has, or a rank that was not looked at (an edited plan's), has no known
    loss.
    """
    curves = {curve.layer: curve for curve in sensitivity.curves}
    known = {point.block for point in sensitivity.blocks}
    losses: dict[str, float] = {}
    for step in (step for step in plan.steps if isinstance(step, Prune)):
        for group in step.groups:
            curve = curves.get(group.layer)
            if curve is not None and group.width_after in curve.choices:
                losses[group.layer] = sensitivity.joint_scale * curve.loss(group.width_after)
        for block in known.intersection(step.removed_blocks):
            first = next((layer for layer in layers if is_within(layer, block)), None)
            if first is not None:
                losses[first] = losses.get(first, 0.0) + sensitivity.block_loss(block)
    for split in (LayerSplit(*item) for item in plan.ranks.items()):
        if split in sensitivity.looked_at:
            losses[split.layer] = losses.get(split.layer, 0.0) + sensitivity.split_loss(split)
    return losses
