"""Which weights belong to a channel of a layer, on its output side and on its input side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

Side = Literal["in", "out"]
Layer = nn.Module | nn.Parameter

MIXING_NORMS = (nn.LayerNorm, nn.GroupNorm)
"""Norms across channels: what stays is then normalised without what went."""

SUPPORTED_LAYERS = (
    _ConvNd, nn.Linear, _BatchNorm, _InstanceNorm, *MIXING_NORMS, nn.PReLU, nn.Embedding,
    nn.Parameter,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Member:
    """A layer that loses channels when a group of channels does.

    ``layer`` is a module's path, or the name of a bare ``nn.Parameter`` whose dimension ``dim``
    is the channels. ``side`` "out": the channels it gives (all of a norm's), "in": those it reads.
    ``indices[c]`` are the channels of that side that go with channel ``c`` of the group: one, or
    several features behind a flatten.
    """

    layer: str
    side: Side
    indices: tuple[tuple[int, ...], ...]
    dim: int = 0

    def matching(self, channels: Sequence[int]) -> list[int]:
        """Return this side's channels that go with those channels of the group, sorted."""
        return sorted({index for channel in channels for index in self.indices[channel]})


def find_layer(model: nn.Module, name: str) -> Layer:
    """Return the module of that path, or the bare parameter of that name."""
    path, _, last = name.rpartition(".")
    parameter = model.get_submodule(path)._parameters.get(last)
    return model.get_submodule(name) if parameter is None else parameter


def is_depthwise(layer: object) -> bool:
    """True for a convolution that filters every channel by itself."""
    return isinstance(layer, _ConvNd) and layer.groups == layer.out_channels > 1


def width(layer: Layer, side: Side, dim: int = 0) -> int:
    """Return the number of channels of that side of a supported layer."""
    if isinstance(layer, nn.Parameter):
        return layer.shape[dim]
    if isinstance(layer, _ConvNd):
        return layer.in_channels if side == "in" else layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features if side == "in" else layer.out_features
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1]
    names = ("num_features", "num_channels", "num_parameters", "embedding_dim")
    return int(next(getattr(layer, name) for name in names if hasattr(layer, name)))


def block_count(layer: Layer) -> int:
    """Return into how many blocks a layer divides its channels; they must stay equally wide."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    return layer.groups if isinstance(layer, _ConvNd) and not is_depthwise(layer) else 1


def sum_per_channel(values: Mapping[str, Tensor], layer: Layer, side: Side, dim: int = 0) -> Tensor:
    """Return the sum of ``values`` over the weights of each channel, ``[width]``.

    ``values`` holds a tensor for each of the layer's own parameters, by name ("weight", "bias"),
    a bare parameter's under "". Biases belong to the output side; a slope or scale that all
    channels share belongs to none.
    """
    total = torch.zeros(width(layer, side, dim))
    for name, value in values.items():
        if isinstance(layer, nn.Parameter):
            total += _sum_except(value, dim)
        elif isinstance(layer, nn.Embedding):
            total += _sum_except(value, 1)
        elif isinstance(layer, nn.Linear) and name == "weight":
            total += _sum_except(value, 0 if side == "out" else 1)
        elif isinstance(layer, _ConvNd) and name == "weight":
            total += _sum_filters(value, layer, side)
        elif side == "out" and value.numel() == total.numel():
            total += value
    return total


def _sum_except(value: Tensor, dim: int) -> Tensor:
    return value.movedim(dim, 0).flatten(1).sum(1) if value.dim() > 1 else value


def _sum_filters(weight: Tensor, layer: _ConvNd, side: Side) -> Tensor:
    """Sum a weight ``[first, second / groups, *kernel]``; transposed ones have the input first."""
    if (side == "in") == layer.transposed:
        return _sum_except(weight, 0)
    return (
        weight.reshape(layer.groups, -1, weight.shape[1], math.prod(weight.shape[2:]))
        .sum(dim=(1, 3))
        .flatten()
    )


@torch.no_grad()
def disconnect(layer: Layer, channels: Sequence[int], dim: int = 0) -> None:
    """Set to zero, in place, the weights with which a layer reads those of its input channels."""
    if isinstance(layer, nn.Parameter):
        layer.index_fill_(dim, torch.tensor(channels), 0)
        return
    weight = layer.weight
    assert isinstance(weight, Tensor)
    mask = weight.new_ones(width(layer, "in"))
    mask[list(channels)] = 0
    if isinstance(layer, _ConvNd) and not layer.transposed:
        blocks = weight.view(layer.groups, -1, weight.shape[1], math.prod(weight.shape[2:]))
        blocks *= mask.view(layer.groups, 1, -1, 1)
    elif isinstance(layer, _ConvNd):
        weight *= mask.view(-1, *[1] * (weight.dim() - 1))
    else:
        weight *= mask
