"""Latency before there is a file: each kernel's arithmetic, memory and dispatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.coefficients import Coefficients, kernel_seconds
from edgesdk.cost.features import Floats, KernelTable, kernel_table
from edgesdk.device import Runtime
from edgesdk.errors import UsageError
from edgesdk.figure import Figure, predicted
from edgesdk.graph import OpGraph
from edgesdk.layer_format import LayerSchemes, op_schemes
from edgesdk.precision_cost import PrecisionCost
from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class OpLatency:
    """What one kernel takes: the operator that names it, its layer, and what bounds it.

    ``latency_ms`` is ``max(compute, memory) + dispatch``; ``bound`` says which was larger.
    """

    op: str
    kind: str
    layer: str
    latency_ms: float
    bound: Literal["compute", "memory"]


@dataclass(frozen=True, kw_only=True)
class LatencyPrediction:
    """The latency of one inference, and where it goes.

    ``total`` (ms) has as its centre the sum of ``per_op`` and ``overhead_ms``, what an inference
    costs before its first kernel. Operators folded into a kernel have no entry; reshapes, and the
    network's inputs and outputs under their own names, only where the profile says that they cost.
    ``unpriced`` names the operators that the model does not know: each is priced as several kernels
    of the dearest class, and the total's interval was not checked on such.
    """

    total: Figure
    per_op: tuple[OpLatency, ...]
    overhead_ms: float
    unpriced: tuple[str, ...]


def predict_latency(
    graph: OpGraph, runtime: Runtime, scheme: Scheme,
    layer_schemes: LayerSchemes = MappingProxyType({}),
) -> LatencyPrediction:  # fmt: skip
    """Return the predicted latency of one inference in milliseconds, at the graph's batch.

    A kernel takes ``max(MACs / mac_per_s, bytes / bytes_per_s) + op_overhead_s``, the roofline of
    Williams et al. 2009 (doi:10.1145/1498765.1498785) with a dispatch cost, each class of kernels
    with its own coefficients where the profile has them. Bytes are inputs, outputs and weights,
    each moved once. The coefficients and the factor that bounds nine predictions in ten come from
    the profile, which says how they were obtained. A layer in another format than the network's
    (``layer_schemes``, or one that its target cannot have) costs what its format's entry says.

    Raises ``UsageError`` for a scheme the runtime does not compute.
    """
    cost = cost_of(runtime, scheme)
    found = Coefficients.of(cost)
    formats = op_schemes(graph, runtime.target, scheme, layer_schemes)
    table = kernel_table(graph, scheme, formats, skips_zeros=runtime.skips_zeros)
    priced = found.priced[table.classes]
    total, computes = mixed_seconds(table, runtime)
    parts = zip(*(table.ops, table.kinds, table.layers, 1e3 * total, computes, priced), strict=True)
    per_op = tuple(
        OpLatency(
            op=op,
            kind=kind,
            layer=layer,
            latency_ms=float(latency_ms),
            bound="compute" if is_compute else "memory",
        )
        for op, kind, layer, latency_ms, is_compute, is_priced in parts
        if is_priced
    )
    overhead_ms = 1e3 * found.inference_s
    return LatencyPrediction(
        total=predicted(
            sum(kernel.latency_ms for kernel in per_op) + overhead_ms,
            error_factor=max(
                cost_of(runtime, used).error_factor.value for used in {scheme, *table.schemes}
            ),
            source=f"roofline, {cost.mac_per_s.kind} coefficients",
        ),
        per_op=per_op,
        overhead_ms=overhead_ms,
        unpriced=table.unpriced,
    )


def mixed_seconds(
    table: KernelTable, runtime: Runtime, *,
    inputs: Floats | float = 1.0, outputs: Floats | float = 1.0,
) -> tuple[Floats, NDArray[np.bool_]]:  # fmt: skip
    """Return what each kernel takes in its own scheme, and whether arithmetic bounds it.

    Both are ``[K]``, or ``[N, K]`` for N variants of the graph, as in ``kernel_seconds``.
    """
    schemes = np.array(table.schemes)
    found = {
        scheme: kernel_seconds(
            table, Coefficients.of(cost_of(runtime, scheme)), inputs=inputs, outputs=outputs
        )
        for scheme in dict.fromkeys(table.schemes)
    }
    owns = [schemes == scheme for scheme in found]
    total = np.select(owns, [seconds.total for seconds in found.values()])
    bound = [np.greater(seconds.compute, seconds.memory) for seconds in found.values()]
    return total, np.select(owns, bound)


def latency_table(
    graph: OpGraph,
    runtime: Runtime,
    schemes: Sequence[Scheme],
    *,
    inputs: Floats | float = 1.0,
    outputs: Floats | float = 1.0,
) -> Mapping[Scheme, Floats]:
    """Return the latency in milliseconds of N variants of a graph, ``[N]`` for each scheme.

    Variants differ in their channels: ``inputs`` and ``outputs`` are the shares ``[N, K]`` that
    are left of each kernel's input and output channels, in the order of ``kernel_table``. One pass
    over arrays prices all of them; the centre equals ``predict_latency`` of the narrowed graph, up
    to the biases' bytes.

    Raises ``UsageError`` for a scheme the runtime does not compute.
    """
    prices = {}
    for scheme in schemes:
        found = Coefficients.of(cost_of(runtime, scheme))
        formats = op_schemes(graph, runtime.target, scheme, {})
        table = kernel_table(graph, scheme, formats, skips_zeros=runtime.skips_zeros)
        total, _ = mixed_seconds(table, runtime, inputs=inputs, outputs=outputs)
        prices[scheme] = 1e3 * (np.atleast_2d(total).sum(axis=1) + found.inference_s)
    return prices


def cost_of(runtime: Runtime, scheme: Scheme) -> PrecisionCost:
    """Return the coefficients of a scheme; ``UsageError`` where the runtime does not compute it."""
    if scheme not in runtime.precisions:
        raise UsageError(
            f"{runtime.runtime} on the {runtime.unit} does not compute {scheme}",
            expected=f"one of {', '.join(runtime.precisions)}",
        )
    return runtime.precisions[scheme]
