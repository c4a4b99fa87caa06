"""Cutting channels out of layers, in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.channel_slices import Side, find_layer, is_depthwise, is_transposed_linear

_CUT_CONV: Mapping[Side, Callable[[nn.Module, list[int]], Any]] = {
    "in": torch_pruning.prune_conv_in_channels, "out": torch_pruning.prune_conv_out_channels,
}  # fmt: skip
_CUT_LINEAR: Mapping[Side, Callable[[nn.Module, list[int]], Any]] = {
    "in": torch_pruning.prune_linear_in_channels, "out": torch_pruning.prune_linear_out_channels,
}  # fmt: skip


def cut_group(model: nn.Module, group: ChannelGroup, channels: Sequence[int]) -> None:
    """Remove channels of a group from all its layers, in place, as its members say."""
    for member in group.members:
        cut_layer(model, member.layer, member.side, member.matching(channels), member.dim)
    for size in group.resized:
        left = size.before - size.per_unit * (len(channels) // group.unit)
        setattr(model.get_submodule(size.module), size.attribute, left)


def cut_layer(
    model: nn.Module, name: str, side: Side, channels: Sequence[int], dim: int = 0
) -> None:
    """Remove channels from one side of a layer, or along a dimension of a bare parameter."""
    layer = find_layer(model, name)
    if isinstance(layer, nn.Parameter):
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, nn.Parameter(without(layer, channels, dim)))
    elif isinstance(layer, nn.RNNBase):
        _cut_recurrent(layer, side, channels)
    elif is_transposed_linear(layer):
        cut_transposed_linear(layer, side, channels)
    elif isinstance(layer, _ConvNd) and is_depthwise(layer):
        torch_pruning.prune_depthwise_conv_out_channels(layer, list(channels))
    elif isinstance(layer, _ConvNd):
        _CUT_CONV[side](layer, list(channels))
    elif isinstance(layer, nn.Linear):
        _CUT_LINEAR[side](layer, list(channels))
    elif isinstance(layer, nn.Embedding):
        torch_pruning.prune_embedding_out_channels(layer, list(channels))
    elif isinstance(layer, _BatchNorm):
        torch_pruning.prune_batchnorm_out_channels(layer, list(channels))
    elif isinstance(layer, nn.LayerNorm):
        torch_pruning.prune_layernorm_out_channels(layer, list(channels))
    else:
        raise TypeError(f"{name} is a {type(layer).__name__}")


def cut_transposed_linear(layer: nn.Module, side: Side, channels: Sequence[int]) -> None:
    """Remove channels of a linear layer that keeps its weight as [in, out], in place."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    left = nn.Parameter(without(weight, channels, 0 if side == "in" else 1))
    layer.register_parameter("weight", left)
    if side == "out":
        layer.register_parameter("bias", nn.Parameter(without(bias, channels, 0)))
    # Its own names for how many channels it reads and gives.
    vars(layer).update(nx=left.shape[0], nf=left.shape[1])


def cut_frozen_norm(layer: nn.Module, channels: Sequence[int]) -> None:
    """Remove channels of a batch norm that is all buffers, in place."""
    for name, buffer in list(layer.named_buffers()):
        if buffer.dim() == 1:
            layer.register_buffer(name, without(buffer, channels, 0))


def _cut_recurrent(layer: nn.RNNBase, side: Side, channels: Sequence[int]) -> None:
    """Remove features that a recurrent layer reads, or units of all its layers, in place."""
    size = layer.hidden_size
    gates = [
        g + c
        for g in range(0, layer.get_parameter("weight_hh_l0").shape[0], size)
        for c in channels
    ]
    for name, parameter in list(layer.named_parameters()):
        is_first = name.startswith("weight_ih_l0")
        left = parameter
        if side == "out":
            left = nn.Parameter(without(left, gates, 0))
        # What a layer gives is read by itself at the next step and by the layer above.
        if name.startswith("weight") and is_first == (side == "in"):
            left = nn.Parameter(without(left, channels, 1))
        setattr(layer, name, left)
    if side == "in":
        layer.input_size -= len(channels)
    else:
        layer.hidden_size -= len(channels)


def without(tensor: Tensor, channels: Sequence[int], dim: int) -> Tensor:
    """Return a tensor without some places of a dimension."""
    gone = set(channels)
    kept = [place for place in range(tensor.shape[dim]) if place not in gone]
    return tensor.detach().index_select(dim, torch.tensor(kept, dtype=torch.long))
