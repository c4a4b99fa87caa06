"""Placement: which tensors of a float graph an int8 one quantizes, as TensorRT fuses best.

The rules are those of NVIDIA's guide ("Working with Quantized Types", Q/DQ layer placement, in the
TensorRT documentation) and of its own quantizer for ONNX (modelopt.onnx.quantization):

1. The inputs of every operator with weights are quantized, its output is not: a bias, a batch norm
   or an activation behind it is fused, and the next operator's own input is quantized anyway.
2. Where a convolution is added to something, the something is quantized and the convolution's
   result is not: the sum is fused into the convolution, in int8 throughout.
3. The inputs of average pooling are quantized: it has an int8 kernel.
4. Max pooling, concatenation and reshaping pass int8 through without being asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
WEIGHTED = CONVOLUTIONS | {"Gemm", "MatMul"}
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_POOLING = frozenset({"AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A constant of a weighted node: where it is read, and the axis of its output channels.

    ``axis`` is None where a constant of more than two dimensions multiplies a whole batch.
    """

    node: int
    position: int
    name: str
    axis: int | None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What is quantized: ``activations`` are (node, input) pairs, ``weights`` the constants."""

    activations: tuple[tuple[int, int], ...]
    weights: tuple[Weight, ...]


def place(graph: Any, ranks: Mapping[str, int]) -> Placement:
    """Return what to quantize in a graph; ``ranks`` maps its float constants to dimensions."""
    weights = [w for index, node in enumerate(graph.node) if (w := _weight(index, node, ranks))]
    chosen = [(weight.node, 1 - weight.position) for weight in weights]
    for index, node in enumerate(graph.node):
        if node.op_type in _POOLING:
            chosen.append((index, 0))
        elif node.op_type == "Add":
            position = _residual(graph, node, ranks)
            chosen += [] if position is None else [(index, position)]
    return Placement(activations=tuple(chosen), weights=tuple(weights))


def _weight(index: int, node: Any, ranks: Mapping[str, int]) -> Weight | None:
    """Return the constant that a weighted node multiplies with; None where both are computed."""
    if node.op_type not in WEIGHTED:
        return None
    operands = list(node.input[:2])
    positions = [p for p, name in enumerate(operands) if ranks.get(name, 0) >= 2]
    if len(positions) != 1 or (node.op_type in CONVOLUTIONS and positions != [1]):
        return None
    position = positions[0]
    name = operands[position]
    return Weight(node=index, position=position, name=name, axis=_axis(node, position, ranks[name]))


def _axis(node: Any, position: int, rank: int) -> int | None:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if rank > 2:
        return None
    transposed = node.op_type == "Gemm" and any(
        attribute.name == ("transA", "transB")[position] and attribute.i
        for attribute in node.attribute
    )
    return (0 if transposed else 1) if position == 1 else (1 if transposed else 0)


def _residual(graph: Any, node: Any, ranks: Mapping[str, int]) -> int | None:
    """Return which operand of a sum is quantized: the one that no convolution is fused with."""
    readers: dict[str, int] = {}
    for other in graph.node:
        for name in other.input:
            readers[name] = readers.get(name, 0) + 1
    made_at = {name: index for index, other in enumerate(graph.node) for name in other.output}
    if any(name in ranks for name in node.input) or node.input[0] == node.input[1]:
        return None
    fused = [
        position
        for position, name in enumerate(node.input)
        if name in made_at
        and graph.node[made_at[name]].op_type in CONVOLUTIONS
        and readers[name] == 1
    ]
    if not fused:
        return None
    last = max(fused, key=lambda position: made_at[node.input[position]])
    return 1 - last
