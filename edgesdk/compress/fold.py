"""Folding batch norms into the layers before them: what every quantizer does first.

Given:   y = batch_norm(layer(x, w, b), gamma, beta, mean, var, eps=e)
Result:  y = layer(x, w * s, (b - mean) * s + beta)        s = gamma / sqrt(var + e), per channel

Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", 2018, section 3.2.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgesdk.compress.program import Layer, Program, groups_of, kind_of, only_user
from edgesdk.errors import UnsupportedModel
from edgesdk.task import Tensors, output_tensors

_TOLERANCE = 1e-3


def fold_batch_norms(module: nn.Module, example_inputs: Tensors) -> nn.Module:
    """Return a copy in eval mode whose layers hold the batch norms behind them, all with a bias.

    The folded norms become ``nn.Identity``; a norm stays where its layer is read by something
    else too, or where either is used more than once. Everything that prepares for quantization
    starts from this form, and the form depends on the structure alone, so the weights of one can
    be loaded into another. Folding twice is folding once.

    Raises ``UnsupportedModel`` where the folded module does not compute what the module does (a
    ``forward`` that reads a norm's weights itself).
    """
    folded = copy.deepcopy(module).eval()
    with torch.no_grad():
        program = Program(folded, example_inputs)
        for layer in program.layers:
            _give_bias(layer.find(folded), layer.axis)
            norm = foldable_norm(program, layer, folded)
            if norm is not None:
                _fold(folded, layer, norm)
        before = output_tensors(copy.deepcopy(module).eval()(*example_inputs))
        after = output_tensors(folded(*example_inputs))
    for wanted, found in zip(before, after, strict=True):
        if float((wanted - found).abs().max()) > _TOLERANCE * float(wanted.abs().max() + 1e-6):
            raise UnsupportedModel(
                "the model computes something else once its batch norms are folded",
                expected="batch norms that are only called",
                next_step="leave the steps that prepare for quantization out of the plan",
            )
    return folded


def folded_weights(module: nn.Module, example_inputs: Tensors) -> dict[str, Tensor]:
    """Return by name the weights of convolutions as they are once batch norms are folded in.

    Convolutions without a norm to fold are not among them. Nothing is changed.
    """
    program = Program(module, example_inputs)
    found = {}
    for layer in program.layers:
        norm = None if layer.is_linear else foldable_norm(program, layer, module)
        if norm is not None:
            found[layer.name] = _folded(layer.find(module), layer, module.get_submodule(norm))[0]
    return found


def foldable_norm(program: Program, layer: Layer, module: nn.Module) -> str | None:
    """Return the name of the batch norm that can be folded into a layer, None without one."""
    norm = only_user(layer.node)
    if norm is None or kind_of(norm) != "batch_norm" or norm.args[0] is not layer.node:
        return None
    if kind_of(layer.node) == "linear" and layer.node.meta["val"].dim() != 2:
        return None
    if layer.axis == 1 and groups_of(layer.node) > 1:
        return None  # a transposed layer's weight holds the channels of one group
    return _module_of(program, norm, module)


def _module_of(program: Program, norm: fx.Node, module: nn.Module) -> str | None:
    """Return the name of the batch norm module that a node alone calls."""
    held = [arg for arg in norm.args[1:5] if isinstance(arg, fx.Node)]
    names = {program.parameter(arg).rpartition(".")[0] for arg in held}
    name = names.pop() if len(names) == 1 else ""
    found = dict(module.named_modules()).get(name)
    own = all(len(arg.users) == 1 for arg in held)
    plain = isinstance(found, _BatchNorm) and found.running_var is not None
    return name if name and own and plain else None


def _give_bias(layer: Any, axis: int) -> None:
    """Add a bias of zeros to a layer without one, trained where its weight is."""
    if layer.bias is not None:
        return
    weight: Tensor = layer.weight
    groups = getattr(layer, "groups", 1) if axis else 1  # a transposed layer's rows are of a group
    zeros = weight.new_zeros(weight.shape[axis] * groups)
    layer.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)


def _fold(module: nn.Module, layer: Layer, name: str) -> None:
    target = layer.find(module)
    weight, bias = _folded(target, layer, module.get_submodule(name))
    target.weight.copy_(weight)
    target.bias.copy_(bias)
    owner, _, last = name.rpartition(".")
    setattr(module.get_submodule(owner), last, nn.Identity())


def _folded(target: Any, layer: Layer, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a layer's weight and bias with the batch norm behind it in them."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # torch's own function, for the toolchains fold with it: the last digits are theirs then.
    weight, bias = fuse_conv_bn_weights(
        target.weight,
        target.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=layer.axis == 1,
    )
    return weight.detach(), bias.detach()


def along(values: Tensor, axis: int, like: Tensor) -> Tensor:
    """Return a vector shaped to broadcast along one dimension of ``like``."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return values.reshape(shape)
