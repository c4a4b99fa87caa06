"""Cross-layer equalisation: channels of equal weight ranges, the same function.

Given:   y = layer2(f(layer1(x)))          f(s * v) = s * f(v) for s > 0, channel by channel
Result:  the same y; row i of layer1 (weights and bias) divided by s_i, column i of layer2 times s_i

with ``s_i = sqrt(r1_i / r2_i)`` of the two ranges (largest magnitudes) of channel i, after which
both are ``sqrt(r1_i * r2_i)``. Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization
through weight equalization and bias correction", 2019, section 4.1, eq. 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from edgesdk.compress.fold import along, fold_batch_norms
from edgesdk.compress.program import (
    CLAMPS,
    TRANSPOSED,
    Layer,
    Program,
    groups_of,
    kind_of,
)
from edgesdk.plan import Equalize
from edgesdk.task import Tensors

# Positively homogeneous, channel by channel: f(s * v) = s * f(v) for s > 0.
_HOMOGENEOUS = (
    "relu", "leaky_relu", "dropout", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "flatten", "clone",
    "contiguous", "alias",
)  # fmt: skip
_SETTLED = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Equalized:
    """``pairs`` are the layers that share equalised channels, in order; ``left_out`` says of each
    other layer why its output channels stay as they are."""

    module: nn.Module
    pairs: tuple[tuple[str, str], ...]
    left_out: Mapping[str, str]


def equalize(module: nn.Module, example_inputs: Tensors, step: Equalize) -> Equalized:
    """Return a copy of the module, batch norms folded, whose channels' ranges are equalised.

    Pairs are found on the traced graph: a convolution or linear layer whose result goes through
    nothing but ReLU, leaky ReLU, dropout, pooling or a flatten into one other such layer,
    depthwise ones included. ReLU6 and other clamps cut at a value of their own, which scaling
    would move, so layers in front of them are left out. Pairs are equalised in order, again and
    again, until no scale is further than 0.1 % from one, ``step.sweeps`` times at most.

    A channel is never scaled beyond the reach of the layer's widest one (its bias and the norm
    of its weights): a channel whose weights are next to nothing and whose bias is not would
    otherwise stretch the range of the activations that all channels share. Data-free.
    """
    equalized = fold_batch_norms(module, example_inputs)
    pairs, left_out = find_pairs(equalized, example_inputs)
    reaches = [_reach(first, equalized) for first, _, _ in pairs]
    peaks = [float(reach.max()) for reach in reaches]
    with torch.no_grad():
        for _ in range(step.sweeps):
            moved = 0.0
            for (first, second, repeats), peak in zip(pairs, peaks, strict=True):
                scale = _scales(first, second, repeats, equalized, peak)
                scale_channels(first, second, repeats, equalized, scale)
                moved = max(moved, float((scale - 1).abs().max()))
            if moved < _SETTLED:
                break
    names = tuple((first.name, second.name) for first, second, _ in pairs)
    return Equalized(module=equalized, pairs=names, left_out=left_out)


Pair = tuple[Layer, Layer, int]
"""First layer, second layer, and how many neighbouring input columns of the second hold one
channel (more than one behind a flatten)."""


def find_pairs(module: nn.Module, example_inputs: Tensors) -> tuple[list[Pair], dict[str, str]]:
    """Return the pairs that can be equalised, and for other layers what keeps theirs apart."""
    program = Program(module, example_inputs)
    by_node = {layer.node: layer for layer in program.layers}
    pairs: list[Pair] = []
    left_out: dict[str, str] = {}
    for layer in program.layers:
        reader, reason = _reader(layer.node)
        second = by_node.get(reader) if reader is not None else None
        if second is None:
            left_out[layer.name] = reason or "the layer behind it shares its weights"
            continue
        rows, columns = _width(layer, module), _columns(second, module)
        if kind_of(layer.node) in TRANSPOSED or kind_of(second.node) in TRANSPOSED:
            left_out[layer.name] = "transposed convolutions are not equalised"
        elif kind_of(layer.node) == "linear" and layer.node.meta["val"].dim() != 2:
            left_out[layer.name] = "its channels are not the second dimension"
        elif kind_of(second.node) == "linear" and _input(second.node).meta["val"].dim() != 2:
            left_out[layer.name] = f"{second.name} reads another dimension than its channels"
        elif columns % rows:
            left_out[layer.name] = f"{columns} inputs of {second.name} do not hold {rows} channels"
        else:
            pairs.append((layer, second, columns // rows))
    return pairs, left_out


def _input(node: fx.Node) -> fx.Node:
    read = node.args[0]
    assert isinstance(read, fx.Node)
    return read


def _reader(node: fx.Node) -> tuple[fx.Node | None, str]:
    """Return the layer that alone reads a node through homogeneous operators, or why none does."""
    while True:
        users = list(node.users)
        if len(users) != 1:
            return None, f"{len(users)} operators read what it computes"
        node = users[0]
        kind = kind_of(node)
        if node.op == "output":
            return None, "it computes an output of the model"
        if kind in ("conv1d", "conv2d", "conv3d", "linear", *TRANSPOSED):
            return node, ""
        if kind in CLAMPS and kind != "relu":
            return None, f"{kind} cuts at a value that scaling would move"
        if kind not in _HOMOGENEOUS or (kind == "flatten" and _start(node) != 1):
            return None, f"{kind or node.op} is behind it"


def _start(flatten: fx.Node) -> int:
    start = flatten.args[1] if len(flatten.args) > 1 else 0
    assert isinstance(start, int)
    return start


def _width(layer: Layer, module: nn.Module) -> int:
    return int(layer.find(module).weight.shape[0])


def _columns(layer: Layer, module: nn.Module) -> int:
    return int(layer.find(module).weight.shape[1]) * groups_of(layer.node)


def _reach(layer: Layer, module: nn.Module) -> Tensor:
    """Return about how far each output channel goes, for inputs of unit variance."""
    weight = layer.find(module).weight.detach()
    reach: Tensor = layer.find(module).bias.detach().abs() + weight.flatten(1).norm(dim=1)
    return reach


def _scales(first: Layer, second: Layer, repeats: int, module: nn.Module, peak: float) -> Tensor:
    """Return what each channel between two layers is divided by; 1 where either side is zero."""
    rows = first.find(module).weight.detach().flatten(1).abs().amax(dim=1)
    weight, groups = second.find(module).weight.detach(), groups_of(second.node)
    blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    columns = blocks.abs().amax(dim=(1, 3)).reshape(-1, repeats).amax(dim=1)
    scale = torch.sqrt(rows / columns)
    scale = torch.maximum(scale, _reach(first, module) / peak)
    return torch.where((rows > 0) & (columns > 0), scale, torch.ones_like(scale))


def scale_channels(
    first: Layer, second: Layer, repeats: int, module: nn.Module, scale: Tensor
) -> None:
    """Divide the channels between two layers by ``scale``, in place; the function stays."""
    ahead, behind = first.find(module), second.find(module)
    ahead.weight.div_(along(scale, 0, ahead.weight))
    ahead.bias.div_(scale)
    groups, outputs = groups_of(second.node), behind.weight.shape[0]
    columns = scale.repeat_interleave(repeats).reshape(groups, 1, -1)
    blocks = behind.weight.reshape(groups, outputs // groups, behind.weight.shape[1], -1)
    behind.weight.copy_((blocks * columns[..., None]).reshape(behind.weight.shape))
