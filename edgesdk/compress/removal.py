"""Remove channels from a copy of a model, and prove beforehand that nothing else will change.

The proof: the smaller network must give what the whole one gives when every layer that reads the
removed channels ignores them (its weights for them set to zero, its norms computed without them).
Both run and are compared, on random weights and inputs in double precision. A dependency that was
missed, or an index that was mapped wrongly through a concatenation, a flatten or a split, makes
them differ. Trained weights would hide some: a branch whose last scale is still zero, an
attention that is nearly uniform.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from edgesdk.compress.channel_groups import ChannelGroup
from edgesdk.compress.channel_slices import MIXING_NORMS, disconnect, find_layer, width
from edgesdk.compress.dependency import Dependencies
from edgesdk.compress.shared_copy import shared_copy
from edgesdk.errors import UnsupportedModel
from edgesdk.task import Tensors, output_tensors

Removal = Sequence[tuple[ChannelGroup, Sequence[int]]]

# Rounding through a deep network stays below this part of the output; the weights are random and
# of usual size, so that any channel in a wrong place moves the output by far more.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


def remove_channels(
    dependencies: Dependencies, example_inputs: Tensors, removal: Removal
) -> nn.Module:
    """Return ``dependencies.model`` without those channels, pruned in place; it has run once.

    Raises ``UnsupportedModel`` where it does not run, or where others went than were asked for.
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
    try:
        with torch.no_grad():
            pruned(*example_inputs)
    except Exception as problem:
        raise UnsupportedModel(
            f"without these channels the model fails: {type(problem).__name__}: {problem}",
            expected="a forward that takes channel counts from its tensors",
            next_step="in view() and reshape() write -1 or x.shape[1] for a channel count",
        ) from problem
    return pruned


def prove_removal(sample: Sample, removal: Removal) -> None:
    """Raise ``UnsupportedModel`` unless removing the channels only disconnects them."""
    model, inputs = sample.model, sample.inputs
    dependencies = Dependencies(shared_copy(model), inputs)  # what is pruned is assigned anew
    pruned = remove_channels(dependencies, inputs, removal)
    with torch.no_grad():
        expected = output_tensors(disconnected(model, removal)(*inputs))
        found = output_tensors(pruned(*inputs))
    for wanted, output in zip(expected, found, strict=True):
        _compare(wanted, output)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A network of the same structure with random weights, and inputs that bring it to life."""

    model: nn.Module
    inputs: Tensors


def sample_structure(model: nn.Module, example_inputs: Tensors) -> Sample:
    """Return random weights and inputs for the model's structure, in double precision.

    In single precision where the model insists on it, with its own weights and the example inputs
    where random ones give no finite outputs.
    """
    generator = torch.Generator().manual_seed(0)
    stirred = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in stirred.named_parameters():
            _stir(name, parameter, generator)
    # Zeros, a usual example input, would prove nothing.
    noisy = tuple(
        x + torch.randn(x.shape, generator=generator) if x.is_floating_point() else x
        for x in example_inputs
    )
    doubled = tuple(x.double() if x.is_floating_point() else x for x in noisy)
    samples = (
        Sample(model=copy.deepcopy(stirred).double(), inputs=doubled),
        Sample(model=stirred, inputs=noisy),
    )
    return next(filter(_runs, samples), Sample(model=model, inputs=example_inputs))


def _stir(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Fill a parameter so that signals keep about their size from layer to layer."""
    if not parameter.is_floating_point():
        return
    if parameter.dim() > 1:
        fan_in = max(1, parameter[0].numel())
        parameter.normal_(0, fan_in**-0.5, generator=generator)
    elif name.endswith("bias"):
        parameter.normal_(0, 0.5, generator=generator)
    else:
        parameter.uniform_(0.5, 1.5, generator=generator)


def _runs(sample: Sample) -> bool:
    try:
        with torch.no_grad():
            outputs = output_tensors(sample.model(*sample.inputs))
    except Exception:  # noqa: BLE001 - a forward may refuse doubles or odd values in any way
        return False
    return all(bool(torch.isfinite(output).all()) for output in outputs)


def _compare(expected: Tensor, found: Tensor) -> None:
    if found.shape != expected.shape:
        raise UnsupportedModel(
            f"without these channels an output has the shape {list(found.shape)}",
            expected=f"the original's shape {list(expected.shape)}",
        )
    if not found.is_floating_point() or found.numel() == 0:
        return
    tolerance = _TOLERANCE.get(found.dtype, 1e-2) * expected.abs().max()
    difference = (expected - found).abs().max()
    if not difference <= tolerance:
        raise UnsupportedModel(
            f"without these channels the rest of the model computes something else (an output is "
            f"off by {difference:.3g}, with random weights)",
            expected="operators that treat every channel alike and apart from the others",
            next_step="leave these layers whole",
        )


def disconnected(model: nn.Module, removal: Removal) -> nn.Module:
    """Return a copy of the same shape in which no layer reads the removed channels.

    It shares the weights of all other layers (``shared_copy``).
    """
    copied = shared_copy(model, {member.layer for group, _ in removal for member in group.members})
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
