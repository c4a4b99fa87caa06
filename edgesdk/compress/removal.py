"""Remove channels from a copy of a model, and prove that nothing else about it changed.

The proof: the smaller network must give what the whole one gives when every layer that reads the
removed channels ignores them (its weights for them set to zero, its norms computed without them).
Both run and are compared. A dependency that was missed, or an index that was mapped wrongly
through a concatenation, a flatten or a split, makes them differ.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgesdk.compress.channel_groups import ChannelGroup
from edgesdk.compress.channel_slices import MIXING_NORMS, disconnect, find_layer, width
from edgesdk.compress.dependency import Dependencies
from edgesdk.errors import UnsupportedModel
from edgesdk.task import Tensors, output_tensors

Removal = Sequence[tuple[ChannelGroup, Sequence[int]]]

# Rounding in float32 through a deep network stays below the first (of the output's size); a
# wrongly mapped channel is of the size of the removal's own effect, far above the second.
_ROUNDING = 1e-4
_OF_THE_EFFECT = 1e-2


def remove_channels(
    original: nn.Module, dependencies: Dependencies, example_inputs: Tensors, removal: Removal
) -> nn.Module:
    """Return ``dependencies.model`` without those channels, pruned in place and proven.

    ``original`` is another copy of the same model; it, too, is in eval mode. Raises
    ``UnsupportedModel`` where the smaller network does not run, has other output shapes or
    computes something else than the network with those channels disconnected.
    """
    pruned = dependencies.model
    for group, channels in removal:
        dependencies.remove(group.layer, channels)
        left = width(find_layer(pruned, group.layer), "out")
        if left != group.width - len(channels):
            raise UnsupportedModel(
                f"of the {group.width} channels of layer {group.layer!r} {left} are left",
                expected=f"{group.width - len(channels)} after removing {len(channels)}",
                next_step="leave this layer whole",
            )
    inputs = _varied(example_inputs)
    with torch.no_grad():
        before = output_tensors(original(*inputs))
        if not all(bool(torch.isfinite(output).all()) for output in before):
            inputs = example_inputs  # a model may take no others
            before = output_tensors(original(*inputs))
        try:
            after = output_tensors(pruned(*inputs))
        except Exception as problem:
            raise UnsupportedModel(
                f"without these channels the model fails: {type(problem).__name__}: {problem}",
                expected="a forward that takes channel counts from its tensors",
                next_step="in view() and reshape() write -1 or x.shape[1] for a channel count",
            ) from problem
        expected = output_tensors(disconnected(original, removal)(*inputs))
    for whole, wanted, found in zip(before, expected, after, strict=True):
        _compare(whole, wanted, found)
    return pruned


def _varied(example_inputs: Tensors) -> Tensors:
    """Return the inputs with noise on the floating-point ones: zeros would prove nothing."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        x + torch.randn(x.shape, generator=generator) if x.is_floating_point() else x
        for x in example_inputs
    )


def _compare(before: Tensor, expected: Tensor, found: Tensor) -> None:
    if found.shape != before.shape:
        raise UnsupportedModel(
            f"without these channels an output has the shape {list(found.shape)}",
            expected=f"the original's shape {list(before.shape)}",
        )
    if not found.is_floating_point() or found.numel() == 0:
        return
    before, expected, found = before.double(), expected.double(), found.double()
    tolerance = _ROUNDING * expected.abs().max() + _OF_THE_EFFECT * (before - expected).abs().max()
    difference = (expected - found).abs().max()
    if not difference <= tolerance:
        raise UnsupportedModel(
            f"without these channels the rest of the model computes something else (an output is "
            f"off by {difference:.3g}, tolerance {tolerance:.3g})",
            expected="operators that treat every channel alike and apart from the others",
            next_step="leave these layers whole",
        )


def disconnected(model: nn.Module, removal: Removal) -> nn.Module:
    """Return a copy of the same shape in which no layer reads the removed channels."""
    copied = copy.deepcopy(model)
    ignored: dict[str, set[int]] = {}
    for group, channels in removal:
        for member in group.members:
            layer = find_layer(copied, member.layer)
            if member.side == "in" or isinstance(layer, nn.Parameter):
                disconnect(layer, member.matching(channels), member.dim)
            elif isinstance(layer, MIXING_NORMS):
                ignored.setdefault(member.layer, set()).update(member.matching(channels))
    for name, channels_out in ignored.items():
        _narrow(copied.get_submodule(name), sorted(channels_out))
    return copied


def _narrow(norm: nn.Module, ignored: list[int]) -> None:
    """Make a norm across channels leave some out, in place; it then gives zero there."""
    grouped = isinstance(norm, nn.GroupNorm)
    size: int = norm.num_channels if grouped else norm.normalized_shape[0]  # type: ignore[assignment, index]
    kept = torch.tensor([channel for channel in range(size) if channel not in ignored])
    if grouped:
        torch_pruning.prune_groupnorm_out_channels(norm, ignored)
    else:
        torch_pruning.prune_layernorm_out_channels(norm, ignored)

    def dimension(x: Tensor) -> int:
        # LayerNorm normalises the last dimension; subclasses for images take [N, C, H, W].
        first = grouped or (type(norm) is not nn.LayerNorm and x.dim() == 4 and x.shape[1] == size)
        return 1 if first else x.dim() - 1

    def narrowed(x: Tensor, *rest: Any) -> Tensor:
        dim = dimension(x)
        result = torch.zeros_like(x)
        return result.index_copy(dim, kept, forward(x.index_select(dim, kept), *rest))

    forward = norm.forward
    norm.forward = narrowed
