"""The program that is converted: the model exported by PyTorch, and the layer behind each node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.export import ExportedProgram
from torch.fx import Node

from edgesdk.compress.pt2e import fold_constants, quantize_static_int8
from edgesdk.compressed import CompressedModel
from edgesdk.export import export_model
from edgesdk.task import Tensors

_aten = torch.ops.aten

TRANSPOSED_CONVOLUTIONS = {
    _aten.conv_transpose1d.default,
    _aten.conv_transpose2d.input,
    _aten.conv_transpose3d.input,
}
WEIGHTED = TRANSPOSED_CONVOLUTIONS | {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.padding,
    _aten.linear.default,
}
"""Operators with a weight and a bias, their second and third argument."""

BATCH_NORM = _aten._native_batch_norm_legit_no_training.default
"""A batch norm in eval mode: ``(x, gamma, beta, mean, variance, momentum, epsilon)``."""

ARITHMETIC = {_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor}
"""With a constant as the other operand, converters fold it into the layer before it."""

_TAKEN_APART = [
    _aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input,
    _aten.new_ones.default, _aten.new_zeros.default, _aten.new_full.default,
]  # fmt: skip

_POOLS = {_aten.max_pool1d.default, _aten.max_pool2d.default, _aten.avg_pool2d.default}


def export_float(model: CompressedModel) -> ExportedProgram:
    """Return the module exported in float; errors are those of ``export_model``.

    What depends on no input is computed: a layer scale of shape [C] is then one of [C, 1, 1].
    """
    graph = export_model(model.module, model.example_inputs).module(check_guards=False)
    fold_constants(graph)
    with torch.no_grad():
        return _decomposed(torch.export.export(graph, _row_major(model)))


def export_int8(model: CompressedModel) -> ExportedProgram:
    """Return the calibrated int8 graph exported; errors are those of ``quantize_static_int8``."""
    graph = quantize_static_int8(model)
    with torch.no_grad():
        return _decomposed(torch.export.export(graph, _row_major(model)))


def _row_major(model: CompressedModel) -> Tensors:
    """Return the example inputs as Core ML lays tensors out."""
    return tuple(example.contiguous() for example in model.example_inputs)


def layer_of(node: Node) -> str:
    """Return the path of the module a node came from, empty for the model itself.

    A batch norm behind a convolution or linear layer, and arithmetic with a constant behind that,
    count to the layer, which they become part of in the file.
    """
    if node.target in ARITHMETIC:
        computed = [source for source in node.all_input_nodes if source.op == "call_function"]
        if len(computed) == 1 and computed[0].target in WEIGHTED | {BATCH_NORM}:
            node = computed[0]
    if node.target is BATCH_NORM and operand(node, 0).target in WEIGHTED:
        node = operand(node, 0)
    # Exporting wraps the model in modules of its own; only the model's have a path.
    stack = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(stack.values()) if path), "")


def operand(node: Node, position: int) -> Any:
    """Return the argument of a node at a position, None where it is left out."""
    return node.args[position] if position < len(node.args) else None


def number_nodes(program: ExportedProgram) -> Mapping[str, str]:
    """Give each node a debug handle, in place, and return the layer behind each handle.

    The handles survive every pass of coremltools, fusions included; names do not.
    """
    layers = {}
    for number, node in enumerate(program.graph.nodes, start=1):
        node.meta["debug_handle"] = number
        layers[str(number)] = layer_of(node) if node.op == "call_function" else ""
    return {handle: layer for handle, layer in layers.items() if layer}


def state_strides(program: ExportedProgram) -> None:
    """Write out, in place, the stride of pooling that leaves it out: coremltools fails on it."""
    for node in program.graph.nodes:
        if node.target in _POOLS and len(node.args) == 2:
            node.args = (*node.args, node.args[1])


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    """Return the program without operators that coremltools 9.0 takes wrongly or not at all."""
    decomposed: ExportedProgram = program.run_decompositions(
        {
            **get_decompositions(_TAKEN_APART),
            _aten.gelu.default: _gelu,
            _aten.__and__.Tensor: _and,
            _aten.__or__.Tensor: _or,
            _aten.where.Scalar: _where,
            _aten.where.ScalarOther: _where,
            _aten.where.ScalarSelf: _where,
        }
    )
    for node in decomposed.graph.find_nodes(op="call_function", target=_aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        decomposed.graph.erase_node(node)
    return decomposed


def _and(left: Tensor, right: Tensor) -> Tensor:
    """``left & right``, which coremltools knows of booleans, and by its other name."""
    return torch.logical_and(left, right) if left.dtype == torch.bool else NotImplemented


def _or(left: Tensor, right: Tensor) -> Tensor:
    """``left | right``, as above."""
    return torch.logical_or(left, right) if left.dtype == torch.bool else NotImplemented


def _where(condition: Tensor, chosen: Tensor | float, other: Tensor | float) -> Tensor:
    """Choose between tensors, where one or both were written as numbers."""
    like = chosen if isinstance(chosen, Tensor) else other
    dtype = like.dtype if isinstance(like, Tensor) else None
    values = [
        value if isinstance(value, Tensor) else torch.full((), value, dtype=dtype)
        for value in (chosen, other)
    ]
    return torch.where(condition, values[0], values[1])


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """GELU by tanh in its parts (Hendrycks and Gimpel 2016, section 2); the exact one stays whole.

    coremltools 9.0 takes GELU for exact whatever ``approximate`` says, but knows the parts.
    """
    if approximate != "tanh":
        return NotImplemented  # type: ignore[no-any-return]
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
