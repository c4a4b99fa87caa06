"""What a ``.pte`` for XNNPACK plans, and what the delegate takes beside that.

ExecuTorch plans the tensors that the program itself sees: inputs, outputs, and whatever goes in and
out of an operator that XNNPACK does not take. Everything else lives in XNNPACK's own workspace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgesdk.cost.arena import Buffer, aligned, arena_bytes
from edgesdk.cost.fusion import WEIGHTED, Kernel, activation_bytes
from edgesdk.cost.padding import window
from edgesdk.graph import OpGraph
from edgesdk.scheme import DYNAMIC_SCHEMES, Scheme

_PLAN_BYTES = 64
"""In every file of benchmarks/footprint.py beyond its tensors: XNNPACK may read past their ends."""

# Kinds that ExecuTorch 1.5's XNNPACK partitioner takes (backends/xnnpack/partition/config).
DELEGATED_KINDS = WEIGHTED - {"conv3d", "conv_transpose3d", "conv_transpose1d"} | {
    "abs", "adaptive_avg_pool2d", "add", "addmm", "avg_pool2d", "batch_norm", "bmm", "cat", "ceil",
    "clamp", "constant_pad_nd", "div", "exp", "floor", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "leaky_relu", "log", "matmul", "max_pool2d", "maximum", "minimum", "mm", "mul",
    "neg", "pad",
    "permute", "prelu", "relu", "relu6", "rsqrt", "sigmoid", "silu", "slice", "softmax", "sqrt",
    "square", "sub", "t", "tanh", "transpose", "upsample_bilinear2d",
}  # fmt: skip
_SPATIAL = ((2, 3), (-2, -1), (-1, -2), (3, 2))
_ATTENTION = "scaled_dot_product_attention"
_VALUE = 2  # its place among the inputs: query, key, value


def planned_bytes(kernels: Sequence[Kernel], graph: OpGraph, scheme: Scheme) -> float:
    """Return the bytes that the ``.pte`` tells ExecuTorch to plan, as ``benchmarks/footprint.py
    planned`` compares them with emitted files.

    A stretch of operators that XNNPACK takes is one step. Tensors at the boundary are float, but in
    static int8 one stretch hands int8 to the next, beside the float that other kernels read.
    Attention falls apart into portable operators on copies of query and key.
    """
    first = {name: 0 for name, tensor in graph.tensors.items() if tensor.role == "input"}
    inside: set[str] = set()
    read: dict[Scheme, dict[str, int]] = {"fp32": dict(first), "int8": {}}
    copies: list[Buffer] = []
    step, was_delegated = 0, True
    for kernel in kernels:
        delegated = is_delegated(kernel)
        step += not (delegated and was_delegated)
        was_delegated = delegated
        for place, name in enumerate(kernel.inputs):
            by_xnnpack = delegated or (kernel.op.kind == _ATTENTION and place == _VALUE)
            if name in first and not (by_xnnpack and name in inside and step == first[name]):
                handed_on = scheme == "int8" and by_xnnpack and name in inside
                read["int8" if handed_on else "fp32"][name] = step
        for name in kernel.outputs:
            first[name] = step
            if delegated:
                inside.add(name)
            if not delegated or graph.tensors[name].role == "output":
                read["fp32"][name] = step
        if kernel.op.kind == _ATTENTION:
            copies += [_copy(graph, name, step, "fp32") for name in kernel.inputs[:2]]
    buffers = [
        Buffer(
            size_bytes=aligned(activation_bytes(graph, (name,), form)), first=first[name], last=last
        )
        for form, found in read.items()
        for name, last in found.items()
    ]
    return arena_bytes([*buffers, *copies]) + _PLAN_BYTES


def workspace_bytes(
    kernels: Sequence[Kernel], graph: OpGraph, scheme: Scheme,
    formats: Mapping[str, Scheme] = MappingProxyType({}),
) -> float:  # fmt: skip
    """Return the bytes of XNNPACK's workspace: tensors that both begin and end inside it.

    An int8 model converts its float inputs and outputs inside, so that both forms exist. So does
    a layer in another format (``formats``, by operator) than the network's: with ranges found at
    run time its inputs exist in int8 too, and in a network of static int8 its own in float.
    """
    is_int8 = scheme == "int8"
    ends = {n for n, tensor in graph.tensors.items() if tensor.role in ("input", "output")}
    first = {name: 0 for name in ends if graph.tensors[name].role == "input" and is_int8}
    last = dict(first)
    for step, kernel in enumerate(kernels):
        last.update({name: step for name in kernel.inputs if name in first})
        delegated = is_delegated(kernel)
        for name in kernel.outputs:
            if delegated and (is_int8 or name not in ends):
                first[name] = last[name] = step
    copies = [
        _copy(graph, name, step, width)
        for step, kernel in enumerate(kernels)
        for names, width in _converted(kernel, scheme, formats.get(kernel.op.name, scheme))
        for name in names
    ]
    return arena_bytes(
        copies
        + [
            Buffer(
                size_bytes=aligned(activation_bytes(graph, (name,), scheme)),
                first=start,
                last=last[name],
            )
            for name, start in first.items()
        ]
    )


def is_delegated(kernel: Kernel) -> bool:
    """Return whether XNNPACK takes the operator; what it does not, ExecuTorch's kernels compute."""
    op = kernel.op
    if op.kind == "mean":  # of rows and columns it is a global pooling
        return op.attributes.get("dim") in _SPATIAL
    if op.kind == "avg_pool2d":  # padding with zeros that count is not for XNNPACK
        padded = any(window(op)[3]) and op.attributes.get("count_include_pad", True)
        return not padded
    return op.kind in DELEGATED_KINDS


def _converted(kernel: Kernel, scheme: Scheme, own: Scheme) -> list[tuple[tuple[str, ...], Scheme]]:
    """Return which of a kernel's tensors exist a second time while it runs, and how wide."""
    if not kernel.channels:
        return []
    found: list[tuple[tuple[str, ...], Scheme]] = []
    if own in DYNAMIC_SCHEMES:
        found.append((kernel.inputs, "int8"))
    if scheme == "int8" and own != scheme:
        found.append(((*kernel.inputs, *kernel.outputs), "fp32"))
    return found


def _copy(graph: OpGraph, name: str, step: int, scheme: Scheme) -> Buffer:
    size = aligned(activation_bytes(graph, (name,), scheme))
    return Buffer(size_bytes=size, first=step, last=step)
