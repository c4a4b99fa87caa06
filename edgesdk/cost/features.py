"""What the latency model looks at: a graph's kernels as arrays, computed once for a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.fusion import (
    VIEWS,
    Kernel,
    activation_bytes,
    decoded_bytes,
    fuse,
    weight_bytes,
)
from edgesdk.cost.kernel_class import CLASS_INDEX, kernel_class, kernel_variant, taps
from edgesdk.graph import Op, OpGraph, TensorRole
from edgesdk.precision_cost import KernelClass, KernelVariant
from edgesdk.scheme import Scheme

Floats = NDArray[np.float64]

UNKNOWN = -1
"""The class index of an operator that the model does not know."""

# Input channels that a tile takes at once: bytes of a register row of the matrix units there are.
_TILE_CHANNELS = 64

# What an unknown operator is taken for: four kernels, each of which moves all of its tensors.
_UNKNOWN_KERNELS = 4

# A step of an LSTM as NPU compilers unroll it: product, gates, cell, output.
_KERNELS_A_STEP = 4

# softmax(QK')V as kernels: the scores are written, read, written normalised and read again.
_ATTENTION_KERNELS = 3
_SCORE_PASSES = 4

_BOUNDARY: Mapping[TensorRole, KernelClass] = {"input": "input", "output": "output"}

# They read as many elements of their table as they write, not all of it.
_PARTIAL_READERS = frozenset({"embedding", "gather", "index", "index_select", "select", "slice"})


@dataclass(frozen=True, kw_only=True)
class KernelTable:
    """A graph's kernels ``[K]`` in execution order, then its reshapes, inputs and outputs.

    ``classes`` indexes ``KERNEL_CLASSES`` (``UNKNOWN`` where there is none); bytes are what a
    kernel reads of activations, writes, and streams of weights; ``dispatches`` counts how often
    the runtime starts it. ``patches`` counts output pixels times kernel taps times blocks of 64
    input channels, ``outputs`` the elements written, ``widths`` the output channels of a group that
    are computed side by side (0 without weights); ``variants`` says which kernels are special in
    their class. ``unpriced`` names the operators of no class. ``schemes`` says whose coefficients
    price each kernel: the graph's scheme, or a layer's own.
    """

    ops: tuple[str, ...]
    kinds: tuple[str, ...]
    layers: tuple[str, ...]
    classes: NDArray[np.int64]
    macs: Floats
    read_bytes: Floats
    written_bytes: Floats
    weight_bytes: Floats
    dispatches: Floats
    patches: Floats
    outputs: Floats
    widths: Floats
    variants: tuple[KernelVariant | None, ...]
    schemes: tuple[Scheme, ...]

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The operators that no class of kernels describes."""
        return tuple(op for op, index in zip(self.ops, self.classes, strict=True) if index < 0)


@dataclass(frozen=True, kw_only=True)
class _Row:
    op: str
    kind: str
    layer: str
    class_index: int
    macs: float = 0.0
    read: float = 0.0
    written: float = 0.0
    weights: float = 0.0
    dispatches: float = 1.0
    patches: float = 0.0
    outputs: float = 0.0
    width: float = 0.0
    variant: KernelVariant | None = None
    scheme: Scheme | None = None


def kernel_table(
    graph: OpGraph, scheme: Scheme, formats: Mapping[str, Scheme] = MappingProxyType({}), *,
    skips_zeros: bool = False,
) -> KernelTable:  # fmt: skip
    """Return the graph's kernels as arrays, in a scheme; ``formats`` names the operators that have
    another one (``edgesdk.layer_format``). ``skips_zeros``: sparse weights are read as stored."""
    kernels = fuse(graph)
    rows = [
        _kernel_row(kernel, graph, formats.get(kernel.op.name, scheme), skips_zeros)
        for kernel in kernels
    ]
    if scheme == "int8":
        rows += _conversion_rows(kernels, graph, formats)
    rows += [_reshape_row(op, graph, scheme) for op in graph.ops if _moves(op, graph)]
    rows += _boundary_rows(graph)
    return KernelTable(
        ops=tuple(row.op for row in rows),
        kinds=tuple(row.kind for row in rows),
        layers=tuple(row.layer for row in rows),
        classes=np.array([row.class_index for row in rows], dtype=np.int64),
        macs=np.array([row.macs for row in rows], dtype=np.float64),
        read_bytes=np.array([row.read for row in rows], dtype=np.float64),
        written_bytes=np.array([row.written for row in rows], dtype=np.float64),
        weight_bytes=np.array([row.weights for row in rows], dtype=np.float64),
        dispatches=np.array([row.dispatches for row in rows], dtype=np.float64),
        patches=np.array([row.patches for row in rows], dtype=np.float64),
        outputs=np.array([row.outputs for row in rows], dtype=np.float64),
        widths=np.array([row.width for row in rows], dtype=np.float64),
        variants=tuple(row.variant for row in rows),
        schemes=tuple(row.scheme or scheme for row in rows),
    )


def traffic_bytes(
    kernel: Kernel, graph: OpGraph, scheme: Scheme, *, skips_zeros: bool = False
) -> tuple[float, float, float]:
    """Return the bytes a kernel reads of activations, writes, and reads of weights, once each."""
    written = activation_bytes(graph, kernel.outputs, scheme)
    if kernel.op.kind in _PARTIAL_READERS:
        # A table among the parameters is not among the inputs, which are then all indices.
        indices = kernel.inputs if kernel.weights or kernel.biases else kernel.inputs[1:]
        return written + activation_bytes(graph, indices, scheme), written, 0.0
    read = activation_bytes(graph, kernel.inputs, scheme)
    weights = weight_bytes if skips_zeros else decoded_bytes
    return read, written, weights(kernel, scheme)


def _kernel_row(kernel: Kernel, graph: OpGraph, scheme: Scheme, skips_zeros: bool) -> _Row:
    op = kernel.op
    read, written, weights = traffic_bytes(kernel, graph, scheme, skips_zeros=skips_zeros)
    found = kernel_class(kernel, graph)
    dispatches = 1.0
    if found is None:
        read, written = _UNKNOWN_KERNELS * read, _UNKNOWN_KERNELS * written
        dispatches = _UNKNOWN_KERNELS
    elif found == "recurrent":
        dispatches = _KERNELS_A_STEP * _steps(op, graph)
    elif op.kind == "scaled_dot_product_attention":
        read += _SCORE_PASSES * _scores(op, graph) * _element_bytes(graph, op, scheme)
        dispatches = _ATTENTION_KERNELS
    return _Row(
        op=op.name,
        kind=op.kind,
        layer=op.layer,
        class_index=UNKNOWN if found is None else CLASS_INDEX[found],
        macs=op.macs,
        read=read,
        written=written,
        weights=weights,
        dispatches=dispatches,
        patches=_patches(kernel, graph),
        outputs=graph.elements(kernel.outputs),
        width=_width(kernel, found),
        variant=kernel_variant(kernel, graph),
        scheme=scheme,
    )


def _conversion_rows(
    kernels: Sequence[Kernel], graph: OpGraph, formats: Mapping[str, Scheme]
) -> list[_Row]:
    """Return the conversions around each layer that leaves a network of static int8.

    Its inputs are read in int8 and written in float, its outputs the other way round.
    """
    rows = []
    for kernel in kernels:
        own = formats.get(kernel.op.name, "int8")
        if own != "int8":
            rows.append(_conversion_row(kernel, "dequantize", graph, kernel.inputs, ("int8", own)))
            rows.append(_conversion_row(kernel, "quantize", graph, kernel.outputs, (own, "int8")))
    return rows


def _conversion_row(
    kernel: Kernel, kind: str, graph: OpGraph, names: tuple[str, ...], way: tuple[Scheme, Scheme]
) -> _Row:
    return _Row(
        op=f"{kernel.op.name}:{kind}",
        kind=kind,
        layer=kernel.op.layer,
        class_index=CLASS_INDEX["elementwise"],
        read=activation_bytes(graph, names, way[0]),
        written=activation_bytes(graph, names, way[1]),
    )


def _patches(kernel: Kernel, graph: OpGraph) -> float:
    """Return output pixels times taps times blocks of 64 input channels; 0 without weights."""
    if not kernel.channels or not kernel.op.parameters:
        return 0.0
    pixels = graph.elements(kernel.outputs) / kernel.channels
    weight = graph.tensors[kernel.op.parameters[0]].shape
    channels = weight[1] if len(weight) > 1 else 1
    return pixels * taps(kernel.op, graph) * math.ceil(channels / _TILE_CHANNELS)


def _width(kernel: Kernel, found: KernelClass | None) -> float:
    """Return the output channels of one group, all of them for depthwise convolutions."""
    groups = kernel.op.attributes.get("groups", 1)
    return kernel.channels / (groups if found == "grouped" and isinstance(groups, int) else 1)


def _steps(op: Op, graph: OpGraph) -> int:
    """Return the steps a recurrent operator takes one after the other."""
    shape = graph.tensors[op.inputs[0]].shape
    batched = len(shape) == 3 and bool(op.attributes.get("batch_first"))
    layers = op.attributes.get("num_layers", 1)
    directions = 2 if op.attributes.get("bidirectional") else 1
    return shape[1 if batched else 0] * directions * (layers if isinstance(layers, int) else 1)


def _scores(op: Op, graph: OpGraph) -> int:
    """Return the elements of QK' for queries ``[..., N, D]`` and keys ``[..., M, D]``."""
    queries, keys = (graph.tensors[name].shape for name in op.inputs[:2])
    return math.prod(queries[:-1]) * keys[-2]


def _element_bytes(graph: OpGraph, op: Op, scheme: Scheme) -> float:
    return activation_bytes(graph, op.outputs, scheme) / max(graph.elements(op.outputs), 1)


def _moves(op: Op, graph: OpGraph) -> bool:
    """Return whether a view changes more than the number of dimensions."""
    if op.kind not in VIEWS or not op.inputs or "expand" in op.kind:
        return False
    before, after = (graph.tensors[name].shape for name in (op.inputs[0], op.outputs[0]))
    return [n for n in before if n > 1] != [n for n in after if n > 1]


def _reshape_row(op: Op, graph: OpGraph, scheme: Scheme) -> _Row:
    moved = activation_bytes(graph, op.outputs, scheme)
    return _Row(
        op=op.name,
        kind=op.kind,
        layer=op.layer,
        class_index=CLASS_INDEX["reshape"],
        read=moved,
        written=moved,
    )


def _boundary_rows(graph: OpGraph) -> list[_Row]:
    """Return the network's inputs and outputs, which an application holds in float32."""
    return [
        _Row(
            op=tensor.name,
            kind=tensor.role,
            layer="",
            class_index=CLASS_INDEX[_BOUNDARY[tensor.role]],
            read=activation_bytes(graph, (tensor.name,), "fp32"),
            dispatches=0.0,
        )
        for tensor in graph.tensors.values()
        if tensor.role in _BOUNDARY
    ]
