"""Kernels: what a runtime executes as one piece of work, after the fusions all of them do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import (
    ACTIVATION_BYTES,
    GROUP_SIZE,
    INT4_SCHEMES,
    KEPT_AS,
    PALETTE_BITS,
    WEIGHT_BYTES,
    Scheme,
)

# Where the channels of an operator's output are, counted from its last dimension.
_CHANNEL_AXIS = {
    "linear": -1,
    "conv1d": -2, "conv2d": -3, "conv3d": -4,
    "conv_transpose1d": -2, "conv_transpose2d": -3, "conv_transpose3d": -4,
}  # fmt: skip
WEIGHTED = frozenset(_CHANNEL_AXIS)

# Another name for the same bytes; runtimes resolve these at load time or copy nothing.
VIEWS = frozenset(
    {
        "alias", "detach", "expand", "expand_as", "flatten", "ravel", "reshape", "squeeze",
        "unflatten", "unsqueeze", "view", "view_as",
    }
)  # fmt: skip
# Clamps, which TFLite, XNNPACK, Core ML and the NPU compilers all write with the producer's
# result; other activations are kernels of their own on most of them.
CLAMPS = frozenset({"clamp", "hardtanh", "relu", "relu6"})
_TAKES_CLAMP = WEIGHTED | {"add", "avg_pool2d", "div", "max_pool2d", "mul", "sub"}
INTEGER_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8}
BIAS_BYTES: Mapping[Scheme, float] = {
    "fp32": 4.0, "fp16": 2.0, "int8": 4.0, "w8a16": 8.0, "int8_dynamic": 4.0, "int4_dynamic": 4.0,
    "w8": 2.0, "w4": 2.0, "lut8": 2.0, "lut6": 2.0, "lut4": 2.0,
    "w8_sparse50": 2.0, "lut4_sparse50": 2.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """An operator with those folded into it.

    ``op`` leads and gives the kernel its name; ``folded`` names the batch norm and the clamp that
    cost nothing beside it. ``inputs`` and ``outputs`` name the buffers read and written, with views
    resolved to the tensor whose bytes they show. ``weights`` and ``biases`` count elements;
    convolutions and linear layers have one bias per output channel, which is what a folded batch
    norm leaves and what converters write where the model has none.
    """

    op: Op
    folded: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int
    biases: int

    @property
    def channels(self) -> int:
        """Output channels of a weighted operator, 0 for others: one scale and one bias each."""
        return self.biases if self.op.kind in WEIGHTED else 0


def fuse(graph: OpGraph) -> tuple[Kernel, ...]:
    """Return the graph's kernels in execution order.

    Given ``conv -> batch_norm -> relu -> flatten -> linear``, the result is ``conv`` (with
    ``batch_norm`` and ``relu`` folded) and ``linear``, which reads the buffer of ``relu``. An
    operator is folded only where it is the sole reader of what it is folded into.
    """
    readers = Counter(name for op in graph.ops for name in op.inputs)
    readers.update(name for name, tensor in graph.tensors.items() if tensor.role == "output")
    groups: list[list[Op]] = []
    group_of: dict[str, int] = {}
    buffer_of: dict[str, str] = {}
    for op in graph.ops:
        if op.kind in VIEWS:
            buffer_of[op.outputs[0]] = buffer_of.get(op.inputs[0], op.inputs[0])
            continue
        index = group_of.get(op.inputs[0]) if op.inputs else None
        if index is not None and readers[op.inputs[0]] == 1 and _folds(op, groups[index]):
            groups[index].append(op)
        else:
            index = len(groups)
            groups.append([op])
        group_of[op.outputs[0]] = index
    return tuple(_kernel(group, graph, buffer_of) for group in groups)


def activation_bytes(graph: OpGraph, names: tuple[str, ...], scheme: Scheme) -> float:
    """Return the bytes of those tensors under a scheme; integer tensors keep their own width."""
    total = 0.0
    for name in names:
        tensor = graph.tensors[name]
        total += tensor.elements * INTEGER_BYTES.get(tensor.dtype, ACTIVATION_BYTES[scheme])
    return total


def weight_bytes(kernel: Kernel, scheme: Scheme) -> float:
    """Return the bytes of a kernel's weights and biases; int8 keeps its biases in int32, w8a16 in
    int64, int4 has a scale of two bytes for each group of weights, a palette a table of such."""
    beside = kernel.weights / GROUP_SIZE * 2 if scheme in INT4_SCHEMES else 0.0
    if scheme in PALETTE_BITS and kernel.channels:
        beside = 2.0 * 2 ** PALETTE_BITS[scheme]
    return kernel.weights * WEIGHT_BYTES[scheme] + kernel.biases * BIAS_BYTES[scheme] + beside


def decoded_bytes(kernel: Kernel, scheme: Scheme) -> float:
    """Return the bytes of a kernel's weights and biases as a unit without sparse kernels reads
    them: with the zeros, in float16, for nothing says that it decodes them while it reads."""
    return weight_bytes(kernel, "fp16" if scheme in KEPT_AS else scheme)


def _folds(op: Op, group: list[Op]) -> bool:
    kinds = [member.kind for member in group]
    if op.kind == "batch_norm":
        return len(kinds) == 1 and kinds[0] in WEIGHTED
    return op.kind in CLAMPS and kinds[0] in _TAKES_CLAMP and kinds[-1] not in CLAMPS


def _kernel(group: list[Op], graph: OpGraph, buffer_of: dict[str, str]) -> Kernel:
    op, last = group[0], group[-1]
    weights, biases = _weights(op, graph)
    return Kernel(
        op=op,
        folded=tuple(member.name for member in group[1:]),
        inputs=tuple(dict.fromkeys(buffer_of.get(name, name) for name in op.inputs)),
        outputs=last.outputs,
        weights=weights,
        biases=biases,
    )


def _weights(op: Op, graph: OpGraph) -> tuple[int, int]:
    """Return the elements of an operator's weights, and of its vectors (biases, norms' scales)."""
    weights = biases = 0
    for name in op.parameters:
        tensor = graph.tensors[name]
        if len(tensor.shape) > 1:
            weights += tensor.elements
        else:
            biases += tensor.elements
    if op.kind in WEIGHTED:
        biases = graph.tensors[op.outputs[0]].shape[_CHANNEL_AXIS[op.kind]]
    return weights, biases
