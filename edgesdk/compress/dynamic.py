"""Layers that find the range of what they read at run time, in a graph that XNNPACK takes.

Given:   y = linear(x, w, b)                       w float
Result:  y = linear(dq(q(x, r)), dq(w'), b)        w' int8 or int4, r = range(x) while it runs

Weights are symmetric: int8 with one scale per output channel, int4 with one for each group of 32
inputs of an output channel. Activations are int8 with scale and zero point: one pair a row for
linear layers, one a sample for convolutions. Between two such layers everything is float.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgesdk.compressed import CompressedModel
from edgesdk.layer_format import Weighted, layer_format
from edgesdk.scheme import DYNAMIC_SCHEMES, GROUP_SIZE, Scheme

_TARGET = "executorch"
_LAYERS = ("conv2d", "linear")
_GROUPS_ARGUMENT = 6
_INT8 = (-128, 127)
_INT8_WEIGHTS = (-127, 127)
_INT4_WEIGHTS = (-8, 7)
_LEAST_SCALE = 1e-7


def round_dynamic_layers(graph: GraphModule, model: CompressedModel) -> None:
    """Round, in place, every layer of the graph whose scheme finds its ranges at run time."""
    for node in list(graph.graph.nodes):
        scheme = _scheme(graph, node, model)
        if scheme in DYNAMIC_SCHEMES:
            _round_weight(graph, node, scheme)
            _round_input(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _scheme(graph: GraphModule, node: Node, model: CompressedModel) -> Scheme:
    """Return what the target makes of a layer; "fp32" for what is no layer with a constant."""
    kind = _kind(node)
    weight = node.args[1] if kind in _LAYERS else None
    if not isinstance(weight, Node) or weight.op != "get_attr":
        return "fp32"
    groups = node.args[_GROUPS_ARGUMENT] if len(node.args) > _GROUPS_ARGUMENT else 1
    layer = Weighted(
        kind=kind,
        shape=tuple(_tensor(graph, weight).shape),
        groups=groups if isinstance(groups, int) else 1,
    )
    stack = node.meta.get("nn_module_stack", {})
    path = next((str(path) for path, _ in reversed(stack.values())), "")
    return layer_format(_TARGET, layer, model.scheme_of(path)).scheme


def _kind(node: Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0] if _is_call(node) else ""


def _is_call(node: Node) -> bool:
    return node.op == "call_function" and str(node.target).startswith("aten.")


def _round_weight(graph: GraphModule, node: Node, scheme: Scheme) -> None:
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        quantize_affine,
    )

    held: Any = node.args[1]
    arguments: tuple[Any, ...]
    weight = _tensor(graph, held).detach()
    narrow = scheme == "int4_dynamic"
    low, high = _INT4_WEIGHTS if narrow else _INT8_WEIGHTS
    block = [1, GROUP_SIZE] if narrow else [1, *weight.shape[1:]]
    scale, zero = choose_qparams_affine(
        weight, MappingType.SYMMETRIC, block, torch.int8, low, high, eps=_LEAST_SCALE,
        scale_dtype=torch.float32, zero_point_dtype=torch.int8,
    )  # fmt: skip
    if narrow:  # XNNPACK keeps the scales of groups in bfloat16
        scale = scale.bfloat16().float()
    integers = quantize_affine(weight, block, scale, zero, torch.int8, low, high)
    with graph.graph.inserting_before(node):
        if narrow:
            held = [
                _constant(graph, node, *named)
                for named in (("weight", integers), ("scale", scale), ("zero", zero))
            ]
            target = torch.ops.torchao.dequantize_affine.default
            arguments = (held[0], block, held[1], held[2], torch.int8, low, high)
        else:
            held = [
                _constant(graph, node, *named)
                for named in (
                    ("weight", integers),
                    ("scale", scale.reshape(-1)),
                    ("zero", zero.reshape(-1).long()),
                )
            ]
            target = torch.ops.quantized_decomposed.dequantize_per_channel.default
            arguments = (*held, 0, low, high, torch.int8)
        node.update_arg(1, _call(graph, node, target, arguments))


def _round_input(graph: GraphModule, node: Node) -> None:
    source: Any = node.args[0]
    with graph.graph.inserting_before(node):
        if _kind(node) == "linear":
            torchao = torch.ops.torchao
            columns = _tensor(graph, _integers(node)).shape[1]
            block = [1] * (node.meta["val"].dim() - 1) + [columns]
            find, arguments = (
                torchao.choose_qparams_affine.default,
                (source, "ASYMMETRIC", block, torch.int8, *_INT8, None, None, torch.int8),
            )
            scale, zero = _pair(graph, node, find, arguments)
            common: tuple[Any, ...] = (block, scale, zero, torch.int8, *_INT8)
            forth, back = torchao.quantize_affine.default, torchao.dequantize_affine.default
        else:
            decomposed = torch.ops.quantized_decomposed
            find = decomposed.choose_qparams.tensor
            scale, zero = _pair(graph, node, find, (source, *_INT8, _LEAST_SCALE, torch.int8))
            common = (scale, zero, *_INT8, torch.int8)
            forth, back = (
                decomposed.quantize_per_tensor.tensor,
                decomposed.dequantize_per_tensor.tensor,
            )
        rounded = _call(graph, node, forth, (source, *common))
        node.update_arg(0, _call(graph, node, back, (rounded, *common)))


def _integers(node: Node) -> Node:
    """Return the constant behind a layer's rounded weight."""
    decoder: Any = node.args[1]
    held: Node = decoder.args[0]
    return held


def _pair(graph: GraphModule, node: Node, find: Any, arguments: tuple[Any, ...]) -> list[Node]:
    found = _call(graph, node, find, arguments)
    return [_call(graph, node, operator.getitem, (found, index)) for index in range(2)]


def _call(graph: GraphModule, like: Node, target: Any, arguments: tuple[Any, ...]) -> Node:
    """Insert a call that counts to the same layer."""
    made: Node = graph.graph.call_function(target, arguments)
    made.meta = {name: value for name, value in like.meta.items() if name != "val"}
    return made


def _constant(graph: GraphModule, node: Node, what: str, tensor: Tensor) -> Node:
    name = f"_{node.name}_{what}"
    graph.register_buffer(name, tensor)
    return graph.graph.get_attr(name)


def _tensor(graph: GraphModule, node: Node) -> Tensor:
    """Return the tensor that a ``get_attr`` node reads."""
    owner, _, name = str(node.target).rpartition(".")
    tensor: Tensor = getattr(graph.get_submodule(owner), name)
    return tensor
