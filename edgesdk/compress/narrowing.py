"""Layers that compute over all their channels at once, made to leave some of them out."""

from __future__ import annotations

from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgesdk.compress.cutting import without


def narrow_layer(layer: nn.Module, ignored: list[int]) -> None:
    """Make a layer compute without some of the channels it reads, in place.

    A norm then gives zero for them; a convolution gives what it gives.
    """
    dim, size = _channels(layer)
    kept = torch.tensor([channel for channel in range(size) if channel not in ignored])
    forward = layer.forward
    _cut(layer, ignored)

    def narrowed(x: Tensor, *rest: Any) -> Tensor:
        at = _image_channels(layer, x, size) if dim is None else dim % x.dim()
        result: Tensor = forward(x.index_select(at, kept), *rest)
        if isinstance(layer, _ConvNd):
            return result
        return torch.zeros_like(x).index_copy(at, kept, result)

    layer.forward = narrowed


def _channels(layer: nn.Module) -> tuple[int | None, int]:
    """Return the dimension of the channels (None where that depends) and their number."""
    if isinstance(layer, _ConvNd):
        return 1, layer.in_channels
    if isinstance(layer, nn.GroupNorm):
        return 1, layer.num_channels
    if isinstance(layer, nn.LayerNorm):
        return (-1 if type(layer) is nn.LayerNorm else None), layer.normalized_shape[0]
    return -1, max(parameter.shape[-1] for parameter in layer.parameters())


def _image_channels(layer: nn.Module, x: Tensor, size: int) -> int:
    """LayerNorm normalises the last dimension; subclasses for images take [N, C, H, W]."""
    return 1 if x.dim() == 4 and x.shape[1] == size else x.dim() - 1


def _cut(layer: nn.Module, ignored: list[int]) -> None:
    if isinstance(layer, _ConvNd):
        torch_pruning.prune_conv_in_channels(layer, ignored)
    elif isinstance(layer, nn.GroupNorm):
        torch_pruning.prune_groupnorm_out_channels(layer, ignored)
    elif isinstance(layer, nn.LayerNorm):
        torch_pruning.prune_layernorm_out_channels(layer, ignored)
    else:
        for name, parameter in list(layer.named_parameters(recurse=False)):
            left = without(parameter, ignored, parameter.dim() - 1)
            setattr(layer, name, nn.Parameter(left))
        settle_norms(layer)


def settle_norms(model: nn.Module) -> None:
    """Make PyTorch's own RMSNorms normalise over as many channels as they have scales, in place."""
    for layer in model.modules():
        if isinstance(layer, nn.RMSNorm) and layer.weight is not None:
            layer.normalized_shape = tuple(layer.weight.shape)
