"""Which weights belong to a channel of a layer, on its output side and on its input side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

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


def is_transposed_linear(layer: object) -> bool:
    """True for the linear layer of GPT-2 in transformers, whose weight is [in, out]."""
    kind = type(layer)
    return (kind.__module__, kind.__name__) == ("transformers.pytorch_utils", "Conv1D")


def is_weighted(layer: object) -> TypeGuard[nn.Module]:
    """True for layers whose output channels each have weights of their own for what they read."""
    return isinstance(layer, _ConvNd | nn.Linear) or is_transposed_linear(layer)


def owners_of(model: nn.Module, parameters: Iterable[str]) -> dict[str, Layer]:
    """Return the layers that own those parameters by name, or the bare parameters themselves."""
    found: dict[str, Layer] = {}
    for name in parameters:
        path = name.rpartition(".")[0]
        owner = model.get_submodule(path)
        bare = not isinstance(owner, SUPPORTED_LAYERS) and not is_transposed_linear(owner)
        found[name if bare else path] = model.get_parameter(name) if bare else owner
    return found


def followers(model: nn.Module, parameters: Iterable[str], wide: int) -> Iterator[str]:
    """Yield the norms and depthwise layers of that width among the owners of parameters: layers
    that lose the channels which pass through them."""
    for name, found in owners_of(model, parameters).items():
        follows = isinstance(found, _BatchNorm | nn.LayerNorm) or is_depthwise(found)
        if follows and width(found, "out") == wide:
            yield name


def is_frozen_norm(layer: object) -> TypeGuard[nn.Module]:
    """True for a batch norm of detectors whose statistics and scales are all buffers."""
    return isinstance(layer, nn.Module) and "FrozenBatchNorm" in type(layer).__name__


def is_prunable(layer: Layer) -> bool:
    """True for the layers that channels can be cut out of."""
    own = is_weighted(layer) or is_frozen_norm(layer)
    return own or isinstance(layer, (*SUPPORTED_LAYERS, nn.RNNBase))


_BOTH = ("num_features", "num_channels", "num_parameters", "embedding_dim")
_WIDTHS: Mapping[Side, tuple[str, ...]] = {
    "in": ("in_channels", "in_features", "input_size", "nx", *_BOTH),
    "out": ("out_channels", "out_features", "hidden_size", "nf", *_BOTH),
}
"""What layers call the number of channels of a side."""


def width(layer: Layer, side: Side, dim: int = 0) -> int:
    """Return the number of channels of that side of a supported layer."""
    if isinstance(layer, nn.Parameter):
        return layer.shape[dim]
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1]
    if is_frozen_norm(layer):
        return layer.get_buffer("weight").shape[0]
    return int(next(getattr(layer, name) for name in _WIDTHS[side] if hasattr(layer, name)))


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
        elif isinstance(layer, nn.RNNBase):
            total += _sum_gates(name, value, len(total), side)
        elif isinstance(layer, nn.Embedding):
            total += _sum_except(value, 1)
        elif is_transposed_linear(layer) and name == "weight":
            total += _sum_except(value, 1 if side == "out" else 0)
        elif isinstance(layer, nn.Linear) and name == "weight":
            total += _sum_except(value, 0 if side == "out" else 1)
        elif isinstance(layer, _ConvNd) and name == "weight":
            total += _sum_filters(value, layer, side)
        elif side == "out" and value.numel() == total.numel():
            total += value
    return total


def _sum_except(value: Tensor, dim: int) -> Tensor:
    return value.movedim(dim, 0).flatten(1).sum(1) if value.dim() > 1 else value


def _sum_gates(name: str, value: Tensor, size: int, side: Side) -> Tensor:
    """Sum a recurrent layer's parameter ``[gates * units, ...]`` over its units or its inputs."""
    if side == "out":
        return value.reshape(-1, size, value[0].numel()).sum(dim=(0, 2))
    reads = name.startswith("weight_ih_l0")
    return _sum_except(value, 1) if reads else torch.zeros(size)


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
    weight = layer.weight_ih_l0 if isinstance(layer, nn.RNNBase) else layer.weight
    assert isinstance(weight, Tensor)
    mask = weight.new_ones(width(layer, "in"))
    mask[list(channels)] = 0
    if isinstance(layer, _ConvNd) and not layer.transposed:
        blocks = weight.view(layer.groups, -1, weight.shape[1], math.prod(weight.shape[2:]))
        blocks *= mask.view(layer.groups, 1, -1, 1)
    elif isinstance(layer, _ConvNd):
        weight *= mask.view(-1, *[1] * (weight.dim() - 1))
    elif is_transposed_linear(layer):
        weight *= mask[:, None]
    else:
        weight *= mask
