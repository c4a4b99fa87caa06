"""Latency before there is a file: a roofline over kernels with the profile's coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgesdk.cost.fusion import Kernel, activation_bytes, fuse, weight_bytes
from edgesdk.device import Runtime
from edgesdk.errors import UsageError
from edgesdk.figure import Figure, predicted
from edgesdk.graph import OpGraph
from edgesdk.precision_cost import PrecisionCost
from edgesdk.scheme import Scheme

# Operators that the coefficients were fitted on, or that move bytes and nothing else. All others
# are priced by the same formula and named, since nobody has checked it on them.
PRICED_KINDS = frozenset(
    {
        "abs", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "add",
        "addmm", "and", "avg_pool1d", "avg_pool2d", "batch_norm", "bmm", "cat", "chunk",
        "clamp", "constant_pad_nd", "conv1d", "conv2d", "conv_transpose1d",
        "conv_transpose2d", "cos", "div", "elu", "embedding", "eq", "exp", "flip", "gather",
        "ge", "gelu", "group_norm", "gt", "hardsigmoid", "hardswish", "hardtanh", "index",
        "index_select", "layer_norm", "le", "leaky_relu", "linear", "log", "log_softmax",
        "lt", "masked_fill", "matmul", "max_pool1d", "max_pool2d", "maximum", "mean",
        "minimum", "mish", "mm", "mul", "ne", "neg", "pad", "permute", "pixel_shuffle",
        "pow", "prelu", "relu", "relu6", "repeat", "roll", "rsqrt", "rsub",
        "scaled_dot_product_attention", "select", "sigmoid", "silu", "sin", "slice",
        "softmax", "softplus", "split", "split_with_sizes", "sqrt", "stack", "sub", "sum",
        "t", "tanh", "to", "transpose", "unbind", "upsample_bilinear2d",
        "upsample_nearest2d", "where",
    }
)  # fmt: skip
# They read as many elements of their table as they write, not all of it.
_PARTIAL_READERS = frozenset({"embedding", "gather", "index", "index_select", "select", "slice"})


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
    costs before its first kernel. Operators folded into a kernel or that only rename bytes have no
    entry. ``unpriced`` names the operators that the model has no special knowledge of: they are
    priced like the others, and the total's interval was not checked on such.
    """

    total: Figure
    per_op: tuple[OpLatency, ...]
    overhead_ms: float
    unpriced: tuple[str, ...]


def predict_latency(graph: OpGraph, runtime: Runtime, scheme: Scheme) -> LatencyPrediction:
    """Return the predicted latency of one inference in milliseconds, at the graph's batch.

    A kernel takes ``max(MACs / mac_per_s, bytes / bytes_per_s) + op_overhead_s``, the roofline of
    Williams et al. 2009 (doi:10.1145/1498765.1498785) with a dispatch cost; bytes are its inputs,
    outputs and weights, each moved once. The coefficients and the factor that bounds nine
    predictions in ten come from the profile, which says how they were obtained.

    Raises ``UsageError`` for a scheme the runtime does not compute.
    """
    cost = cost_of(runtime, scheme)
    kernels = fuse(graph)
    latencies = tuple(_price(kernel, graph, cost, scheme) for kernel in kernels)
    overhead_ms = 1e3 * cost.inference_overhead_s.value
    return LatencyPrediction(
        total=predicted(
            sum(kernel.latency_ms for kernel in latencies) + overhead_ms,
            error_factor=cost.error_factor.value,
            source=f"roofline, {cost.mac_per_s.kind} coefficients",
        ),
        per_op=latencies,
        overhead_ms=overhead_ms,
        unpriced=tuple(k.op.name for k in kernels if k.op.kind not in PRICED_KINDS),
    )


def cost_of(runtime: Runtime, scheme: Scheme) -> PrecisionCost:
    """Return the coefficients of a scheme; ``UsageError`` where the runtime does not compute it."""
    if scheme not in runtime.precisions:
        raise UsageError(
            f"{runtime.runtime} on the {runtime.unit} does not compute {scheme}",
            expected=f"one of {', '.join(runtime.precisions)}",
        )
    return runtime.precisions[scheme]


def traffic_bytes(kernel: Kernel, graph: OpGraph, scheme: Scheme) -> float:
    """Return the bytes a kernel moves: what it reads, its weights and what it writes, once each."""
    written = activation_bytes(graph, kernel.outputs, scheme)
    if kernel.op.kind in _PARTIAL_READERS:
        # A table among the parameters is not among the inputs, which are then all indices.
        indices = kernel.inputs if kernel.weights or kernel.biases else kernel.inputs[1:]
        return 2 * written + activation_bytes(graph, indices, scheme)
    read = activation_bytes(graph, kernel.inputs, scheme)
    return read + weight_bytes(kernel, scheme) + written


def _price(kernel: Kernel, graph: OpGraph, cost: PrecisionCost, scheme: Scheme) -> OpLatency:
    compute_s = kernel.op.macs / cost.mac_per_s.value
    memory_s = traffic_bytes(kernel, graph, scheme) / cost.bytes_per_s.value
    return OpLatency(
        op=kernel.op.name,
        kind=kernel.op.kind,
        layer=kernel.op.layer,
        latency_ms=1e3 * (max(compute_s, memory_s) + cost.op_overhead_s.value),
        bound="compute" if compute_s > memory_s else "memory",
    )
