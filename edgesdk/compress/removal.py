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

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.channel_slices import (
    MIXING_NORMS,
    Layer,
    Side,
    disconnect,
    find_layer,
    width,
)
from edgesdk.compress.cutting import cut_group
from edgesdk.compress.dependency import Dependencies, forget
from edgesdk.compress.narrowing import narrow_layer, settle_norms
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
        if group.traced:
            cut_group(pruned, group, channels)
        else:
            dependencies.remove(group.layer, channels)
        left = width(find_layer(pruned, group.layer), "out")
        if left != group.width - len(channels):
            raise UnsupportedModel(
                f"of the {group.width} channels of layer {group.layer!r} {left} are left",
                expected=f"{group.width - len(channels)} after removing {len(channels)}",
                next_step="leave this layer whole",
            )
    forget(pruned)
    settle_norms(pruned)
    try:
        with torch.no_grad():
            pruned(*example_inputs)
        forget(pruned)
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
    smaller = shared_copy(model)  # channels are removed by assigning other weights
    forget(smaller)
    pruned = remove_channels(Dependencies(smaller, inputs), inputs, removal)
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

    Where a layer computes over all its channels first (a norm across them, a weight that is
    standardised) it does so without those that go. Other layers' weights are the model's own
    (``shared_copy``).
    """
    copied = shared_copy(model, {member.layer for group, _ in removal for member in group.members})
    narrow: dict[str, set[int]] = {}
    for group, channels in removal:
        for member in group.members:
            layer, gone = find_layer(copied, member.layer), member.matching(channels)
            own_norm = _norm_of(copied, member.layer)
            if isinstance(layer, nn.RNNBase) and member.side == "out":
                _disconnect_state(layer, gone)
            elif own_norm is not None:
                narrow.setdefault(own_norm, set()).update(gone)
            elif isinstance(layer, MIXING_NORMS) or _computes_weight(layer, member.side):
                narrow.setdefault(member.layer, set()).update(gone)
            elif member.side == "in" or isinstance(layer, nn.Parameter):
                disconnect(layer, gone, member.dim)
    for name, ignored in narrow.items():
        narrow_layer(copied.get_submodule(name), sorted(ignored))
    return copied


def _norm_of(model: nn.Module, name: str) -> str | None:
    """Return the module that a bare scale belongs to, where that is an RMSNorm or the like."""
    owner, _, last = name.rpartition(".")
    module = model.get_submodule(owner)
    if last in module._parameters and type(module).__name__.endswith(("RMSNorm", "LayerNorm")):
        return None if isinstance(module, MIXING_NORMS) else owner
    return None


def _computes_weight(layer: Layer, side: Side) -> bool:
    """True for the reading side of a convolution with a forward of its own."""
    own = isinstance(layer, _ConvNd) and not type(layer).forward.__module__.startswith("torch.")
    return own and side == "in"


@torch.no_grad()
def _disconnect_state(layer: nn.RNNBase, units: list[int]) -> None:
    """Make all steps and layers of a recurrent layer ignore some of its units, in place."""
    for name, parameter in layer.named_parameters():
        if name.startswith("weight") and not name.startswith("weight_ih_l0"):
            parameter[:, units] = 0
