"""What a file holds beside its weights, counted: nodes by kind, constants, pieces of a graph.

How many bytes each of them takes is in ``edgesdk/cost/size.py``; what is counted here follows how
each converter writes an operator, as the files of benchmarks/footprint.py show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgesdk.cost.executorch_memory import is_delegated
from edgesdk.cost.file_form import FileForm
from edgesdk.cost.fusion import VIEWS, Kernel, fuse
from edgesdk.cost.tflite_form import tflite_form
from edgesdk.graph import OpGraph
from edgesdk.scheme import (
    DYNAMIC_SCHEMES,
    FLOAT_SCHEMES,
    GROUP_SIZE,
    INT4_SCHEMES,
    WEIGHT_BYTES,
    Scheme,
)

Counts = Mapping[str, float]
Formats = Mapping[str, Scheme]

_ATTENTION = "scaled_dot_product_attention"
# Nodes of an operator, where they are not one.
_XNNPACK_NODES: Mapping[str, int] = {"silu": 2, _ATTENTION: 11, "matmul": 4}
_COREML_NODES: Mapping[str, int] = {"batch_norm": 0, "hardswish": 3, _ATTENTION: 4}
# Portable operators of safe softmax, on copies of query and key.
_PORTABLE_OPERATORS: Mapping[str, int] = {_ATTENTION: 12}
_EXPANDED = (
    2  # operands of a matmul, which ExecuTorch's own kernels expand before XNNPACK reads them
)
# XNNPACK computes these in float, between two conversions, in an int8 file too.
_FLOAT_IN_INT8 = frozenset(
    {
        "elu",
        "exp",
        "gelu",
        "hardswish",
        "log",
        "rsqrt",
        "sigmoid",
        "silu",
        "softmax",
        "sqrt",
        "tanh",
    }
)
_XNNPACK_ALIGNMENT = 16
_COREML_ALIGNMENT = 64
_COREML_HEADER = 64  # in weight.bin, in front of every constant
_FLATBUFFER_ALIGNMENT = 4
_SMALLEST_BLOB = 10  # elements: Core ML writes shorter constants into the program


def container_counts(
    graph: OpGraph, target_name: str, scheme: Scheme, *, integer_io: bool,
    formats: Formats = MappingProxyType({}),
) -> tuple[float, Counts] | None:  # fmt: skip
    """Return what a target's file holds, None for a target from elsewhere.

    ``formats`` names the operators that have another scheme than the network.
    """
    if target_name == "tflite":
        return tflite_counts(graph, scheme, integer_io=integer_io, formats=formats)
    if target_name == "executorch":
        return executorch_counts(graph, scheme, formats)
    return coreml_counts(graph, scheme, formats) if target_name == "coreml" else None


def tflite_counts(
    graph: OpGraph, scheme: Scheme, *, integer_io: bool,
    formats: Formats = MappingProxyType({}),
) -> tuple[float, Counts]:  # fmt: skip
    """Return the bytes that are known of a ``.tflite`` file, and what else it holds.

    Known are constants, scales and zero points (4 and 8 bytes), shapes, names (layer and a number)
    and the operators' lists of tensors.
    """
    form = tflite_form(graph, scheme, integer_io=integer_io, formats=formats)
    known = sum(_tensor_bytes(form, index) for index in range(len(form.tensors)))
    known += sum(4 * (len(op.inputs) + len(op.outputs)) for op in form.ops)
    return known, {
        "file": 1,
        "tensor": len(form.tensors),
        "constant": sum(tensor.is_constant for tensor in form.tensors),
        "quantized tensor": sum(tensor.scales > 0 for tensor in form.tensors),
    }


def executorch_counts(
    graph: OpGraph, scheme: Scheme, formats: Formats = MappingProxyType({})
) -> tuple[float, Counts]:
    """Return the bytes that are known of a ``.pte``, and what else it holds."""
    kernels = fuse(graph)
    delegated = [is_delegated(kernel) for kernel in kernels]
    changes = zip(delegated, (False, *delegated), strict=False)
    pieces = sum(own and not before for own, before in changes)
    inside = [kernel for kernel, own in zip(kernels, delegated, strict=True) if own]
    outside = [kernel for kernel, own in zip(kernels, delegated, strict=True) if not own]
    attention = sum(kernel.op.kind == _ATTENTION for kernel in outside)
    products = sum(kernel.op.kind == "matmul" for kernel in inside)
    portable = sum(_PORTABLE_OPERATORS.get(k.op.kind, 1) for k in outside)
    known = 0.0
    for kernel in _distinct(kernels):
        for size in _stored(kernel, graph, formats.get(kernel.op.name, scheme)):
            known += _up(size, _XNNPACK_ALIGNMENT)
    nodes = sum(_XNNPACK_NODES.get(k.op.kind, 1) for k in inside if not k.channels)
    nodes += attention * _XNNPACK_NODES[_ATTENTION] + _views(graph)
    counts = {
        "file": 1,
        "piece": pieces + 2 * attention,
        "convolution": _convolutions(kernels),
        "linear": _linears(kernels),
        "other node": nodes,
        "portable operator": portable + _EXPANDED * products,
    }
    if scheme == "int8":
        floats = sum(kernel.op.kind in _FLOAT_IN_INT8 for kernel in inside)
        left = sum(formats.get(kernel.op.name, scheme) != scheme for kernel in kernels)
        counts["conversion"] = 2 + 2 * floats + 2 * len(outside) + 2 * left
        counts["channel"] = sum(kernel.channels for kernel in kernels)
        return known, counts
    dynamic = [k for k in kernels if formats.get(k.op.name, scheme) in DYNAMIC_SCHEMES]
    counts["dynamic convolution"] = _convolutions(dynamic)
    counts["dynamic linear"] = _linears(dynamic)
    return known, counts


def coreml_counts(
    graph: OpGraph, scheme: Scheme, formats: Formats = MappingProxyType({})
) -> tuple[float, Counts]:
    """Return the bytes that are known of an ``.mlpackage``, and what else it holds."""
    kernels = fuse(graph)
    known = 0.0
    for kernel in _distinct(kernels):
        for size in _stored(kernel, graph, formats.get(kernel.op.name, scheme), bias_bytes=2.0):
            if size >= 2 * _SMALLEST_BLOB:
                known += _COREML_HEADER + _up(size, _COREML_ALIGNMENT)
    folded = {name for kernel in kernels for name in kernel.folded}
    clamps = sum(_COREML_NODES.get(op.kind, 1) for op in graph.ops if op.name in folded)
    nodes = sum(_COREML_NODES.get(k.op.kind, 1) for k in kernels if not k.channels)
    counts = {
        "file": 1,
        "convolution": _convolutions(kernels),
        "linear": _linears(kernels),
        "other node": nodes + clamps + _views(graph),
    }
    if scheme == "int8":
        sums = sum(kernel.op.kind == "add" for kernel in kernels)  # they read a tensor read twice
        left = [kernel for kernel in kernels if formats.get(kernel.op.name, scheme) != scheme]
        counts["conversion"] = 2 * (len(kernels) + 1 - _between(left, kernels)) + sums
        counts["channel"] = sum(kernel.channels for kernel in kernels if kernel not in left)
    return known, counts


def _between(left: Sequence[Kernel], kernels: Sequence[Kernel]) -> int:
    """Return how many tensors only kernels of other schemes than int8 write and read."""
    others = [kernel for kernel in kernels if kernel not in left]
    touched = {name for kernel in others for name in (*kernel.inputs, *kernel.outputs)}
    own = {name for kernel in left for name in (*kernel.inputs, *kernel.outputs)}
    return len(own - touched)


def _tensor_bytes(form: FileForm, index: int) -> float:
    tensor = form.tensors[index]
    size = _up(tensor.size_bytes, _FLATBUFFER_ALIGNMENT) if tensor.is_constant else 0
    return size + 12 * tensor.scales + 4 * tensor.rank + _up(len(tensor.layer) + 3, 4)


def _stored(
    kernel: Kernel, graph: OpGraph, scheme: Scheme, *, bias_bytes: float = 4.0
) -> list[float]:
    """Return the bytes of each of a kernel's constants: weights, biases and scales."""
    if not kernel.channels:
        wide = 4.0 if bias_bytes == 4.0 else bias_bytes
        return [size for size in (kernel.weights * wide, kernel.biases * wide) if size]
    sizes = [kernel.weights * WEIGHT_BYTES[scheme], kernel.biases * bias_bytes]
    if scheme in INT4_SCHEMES:  # a group's scale has two bytes everywhere, and holds for all taps
        taps = math.prod(graph.tensors[kernel.op.parameters[0]].shape[2:])
        return [*sizes, kernel.weights / (GROUP_SIZE * taps) * 2]
    return [*sizes, kernel.biases * bias_bytes] if scheme not in FLOAT_SCHEMES else sizes


def _distinct(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Return the kernels with weights, those that share them once."""
    return list({k.op.parameters: k for k in kernels if k.op.parameters}.values())


def _views(graph: OpGraph) -> int:
    return sum(op.kind in VIEWS for op in graph.ops)


def _convolutions(kernels: Sequence[Kernel]) -> int:
    return sum(k.channels > 0 and k.op.kind != "linear" for k in kernels)


def _linears(kernels: Sequence[Kernel]) -> int:
    return sum(k.op.kind == "linear" for k in kernels)


def _up(size: float, alignment: int) -> float:
    return math.ceil(size / alignment) * alignment
