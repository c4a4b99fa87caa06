"""Reference weights: what the file should hold for each layer, from the PyTorch module itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgesdk_coreml.export import (
    ARITHMETIC,
    BATCH_NORM,
    TRANSPOSED_CONVOLUTIONS,
    WEIGHTED,
    layer_of,
    operand,
)

_aten = torch.ops.aten

# Matrix products in the model's own code; a converter may make linear layers of them.
_PRODUCTS = {
    _aten.matmul.default,
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.scaled_dot_product_attention.default,
}

Candidate = tuple[Tensor, Tensor | None]
"""A weight and its bias; a bias of None is all zeros."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedLayer:
    """One use of a layer's weights: weight and bias as the file may hold them.

    ``candidates`` are the module's own and, where a batch norm follows, those with it folded in
    (Jacob et al. 2018, "Quantization and training", section 3.2). There is none where the weights
    are computed, transposed or folded with something else. ``required`` is False where the file
    need not hold them so: a matrix product, or a batch norm that may become a convolution.
    """

    layer: str
    candidates: tuple[Candidate, ...]
    required: bool = True


def weighted_layers(program: ExportedProgram) -> tuple[WeightedLayer, ...]:
    """Return every use of weights in a float program, in order.

    What depends on no input is not there: converters compute it, and its result is a weight.
    """
    layers = []
    constants = _constants(program)
    for node in program.graph.nodes:
        if node in constants:
            continue
        if node.target in WEIGHTED:
            candidates = _candidates(node, program)
            layers.append(WeightedLayer(layer=layer_of(node), candidates=candidates))
        elif node.target is BATCH_NORM and operand(node, 0).target not in WEIGHTED:
            candidates = _as_depthwise(node, program)
            layers.append(
                WeightedLayer(layer=layer_of(node), candidates=candidates, required=False)
            )
        elif node.target in _PRODUCTS and not constants.isdisjoint(node.all_input_nodes):
            layers.append(WeightedLayer(layer=layer_of(node), candidates=(), required=False))
    return tuple(layers)


def _constants(program: ExportedProgram) -> set[Node]:
    """Return the nodes that depend on no input of the model."""
    inputs = set(program.graph_signature.user_inputs)
    constants: set[Node] = set()
    for node in program.graph.nodes:
        is_own = node.op != "placeholder" or node.name not in inputs
        if is_own and constants.issuperset(node.all_input_nodes):
            constants.add(node)
    return constants


def _candidates(node: Node, program: ExportedProgram) -> tuple[Candidate, ...]:
    weight, bias = _tensor(node, 1, program), _tensor(node, 2, program)
    norm = next((user for user in node.users if user.target is BATCH_NORM), None)
    if weight is None or _arithmetic_follows(norm or node, program):
        return ()
    if norm is None:
        return ((weight, bias),)
    transposed = node.target in TRANSPOSED_CONVOLUTIONS
    gamma, beta, mean, variance = (_tensor(norm, position, program) for position in range(1, 5))
    if mean is None or variance is None or (transposed and _groups(node) > 1):
        return ()
    epsilon = float(operand(norm, 6))
    folded = fuse_conv_bn_weights(
        weight, bias, mean, variance, epsilon, gamma, beta, transpose=transposed
    )
    return (weight, bias), (folded[0].detach(), folded[1].detach())


def _as_depthwise(norm: Node, program: ExportedProgram) -> tuple[Candidate, ...]:
    """Return a batch norm as a 1x1 depthwise convolution: weight [C, 1, ...], bias [C]."""
    gamma, beta, mean, variance = (_tensor(norm, position, program) for position in range(1, 5))
    if mean is None or variance is None:
        return ()
    shape = (-1, 1, *[1] * (operand(norm, 0).meta["val"].dim() - 2))
    identity = torch.ones(len(mean)).reshape(shape)
    folded = fuse_conv_bn_weights(
        identity, None, mean, variance, float(operand(norm, 6)), gamma, beta
    )
    return ((folded[0].detach(), folded[1].detach()),)


def _groups(transposed: Node) -> int:
    # (x, weight, bias, stride, padding, output_padding, groups, dilation)
    return int(operand(transposed, 6) or 1)


def _arithmetic_follows(node: Node, program: ExportedProgram) -> bool:
    return any(
        user.target in ARITHMETIC
        and any(
            not isinstance(argument, Node) or _stored(argument, program) is not None
            for argument in user.args[:2]
        )
        for user in node.users
    )


def _tensor(node: Node, position: int, program: ExportedProgram) -> Tensor | None:
    """Return the stored tensor a node takes at a position, None where it is absent or computed."""
    argument = operand(node, position)
    return _stored(argument, program) if isinstance(argument, Node) else None


def _stored(node: Node, program: ExportedProgram) -> Tensor | None:
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    name = names.get(node.name, "")
    found = program.state_dict.get(name, program.constants.get(name))
    return found.detach() if isinstance(found, Tensor) else None
