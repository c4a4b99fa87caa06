"""Structured pruning: channels and blocks go, and a plain smaller module of the same class stays.

``find_groups`` says which channels go together, ``select_channels`` (in ``selection``) which of
them to remove, and ``prune`` removes them. The choice is recorded as ``PrunedGroup``s: the same
ones on the same weights give the same module, bit for bit. No function here changes the model
it is given.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from edgesdk.compress.channel_group import ChannelGroup, Refusal
from edgesdk.compress.channel_groups import candidate_groups, describe_group
from edgesdk.compress.channel_slices import is_weighted, width
from edgesdk.compress.dependency import Dependencies, prunable_copy
from edgesdk.compress.depth import check_blocks, shortened
from edgesdk.compress.removal import (
    Removal,
    Sample,
    prove_removal,
    remove_channels,
    sample_structure,
)
from edgesdk.compress.selection import select_channels
from edgesdk.errors import UnsupportedModel, UsageError, near_names
from edgesdk.plan import PrunedGroup
from edgesdk.task import Tensors

__all__ = [
    "ChannelGroup",
    "ChannelSurvey",
    "find_groups",
    "prune",
    "select_channels",
    "survey_channels",
]

_ANOTHER_MODEL = "the model that the channels were chosen for"


@dataclass(frozen=True, kw_only=True)
class ChannelSurvey:
    """The channels of a model that can be pruned, and for every other layer the reason why not."""

    groups: tuple[ChannelGroup, ...]
    refused: Mapping[str, str]


def find_groups(model: nn.Module, example_inputs: Tensors) -> tuple[ChannelGroup, ...]:
    """Return the groups of channels that can be pruned, in the model's order; maybe none.

    ``survey_channels`` tells more: the reasons for the layers that are missing here.
    """
    return survey_channels(model, example_inputs).groups


def survey_channels(model: nn.Module, example_inputs: Tensors) -> ChannelSurvey:
    """Return the groups that can be pruned, and why the other layers' channels cannot.

    A group counts as prunable once some of its channels were removed on trial (together with
    some of every other group's) and the rest of the network went on computing what it did.

    Raises ``UnsupportedModel`` for a model that cannot be copied or that autograd cannot follow,
    ``TaskError`` for one that fails on the example inputs.
    """
    inputs = tuple(example.cpu() for example in example_inputs)
    candidates, refused = candidate_groups(Dependencies(prunable_copy(model), inputs))
    sample = sample_structure(prunable_copy(model), inputs)
    groups = _proven(sample, [], candidates, refused)
    for group in groups:
        for member in group.members:
            if member.side == "out":
                refused.pop(member.layer, None)
    return ChannelSurvey(groups=tuple(groups), refused=refused)


def prune(
    model: nn.Module, example_inputs: Tensors, groups: Sequence[PrunedGroup], *,
    blocks: Sequence[str] = (),
) -> nn.Module:  # fmt: skip
    """Return a copy of the model, on the CPU, without those channels and residual blocks; a plain
    smaller module.

    Parameters and buffers keep their names, training mode and ``requires_grad``. Without groups
    and blocks it is a plain copy. ``removal`` proves first that taking the channels out is no more
    than nothing reading them, ``depth`` that nothing but the blocks goes with them.

    Raises ``UsageError`` for groups and blocks that were not chosen for this model (unknown layer,
    other width, indices out of range, channels that cannot go alone, a block without a shortcut)
    and ``UnsupportedModel`` where a layer's channels cannot be pruned at all, besides what
    ``survey_channels`` raises.
    """
    check_groups(model, groups)
    check_blocks(model, example_inputs, blocks)
    inputs = tuple(example.cpu() for example in example_inputs)
    pruned = prunable_copy(model)
    if groups:
        dependencies = Dependencies(pruned, inputs)
        removal = removal_of(dependencies, groups)
        prove_removal(sample_structure(prunable_copy(model), inputs), removal)
        pruned = remove_channels(dependencies, inputs, removal)
    for name, module in model.named_modules():
        pruned.get_submodule(name).training = module.training
    for name, parameter in model.named_parameters():
        pruned.get_parameter(name).requires_grad_(parameter.requires_grad)
    return shortened(pruned, blocks)


def _proven(
    sample: Sample,
    proven: list[ChannelGroup],
    candidates: list[ChannelGroup],
    refused: dict[str, str],
) -> list[ChannelGroup]:
    """Return ``proven`` and those candidates that pass the trial with it; the others go to
    ``refused``. Candidates that fail together are tried in halves."""
    if not candidates:
        return proven
    together = [*proven, *candidates]
    try:
        prove_removal(sample, [(group, _part(group)) for group in together])
    except UnsupportedModel as problem:
        if len(candidates) == 1:
            coupled = [m.layer for m in candidates[0].members if m.side == "out"]
            for name in _prunable_layers(sample.model, coupled):
                refused.setdefault(name, problem.found)
            return proven
        middle = len(candidates) // 2
        proven = _proven(sample, proven, candidates[:middle], refused)
        return _proven(sample, proven, candidates[middle:], refused)
    return together


def _prunable_layers(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return those of the names that are convolutions, linear or recurrent layers."""
    layers = dict(model.named_modules())
    kinds = (name for name in names if name in layers)
    return [n for n in kinds if is_weighted(layers[n]) or isinstance(layers[n], nn.RNNBase)]


def _part(group: ChannelGroup) -> list[int]:
    """Return the channels that a group loses on trial: between a quarter and three quarters of it,
    scattered (a run of neighbours could hide errors) and never half where it has more than four
    units (two groups that lose the same share could hide that a forward takes the width of one
    for the other's). An even number where there is one: odd widths fail in shapes, and what is
    computed tells more."""
    draw, count = random.Random(group.layer), len(group.units)  # noqa: S311
    shares = [n for n in range(1, count) if count < 4 * n < 3 * count and 2 * n != count]
    even = [n for n in shares if n % 2 == 0]
    units = draw.sample(group.units, draw.choice(even or shares or [count // 2]))
    return sorted(channel for unit in units for channel in unit)


def check_groups(model: nn.Module, groups: Sequence[PrunedGroup]) -> None:
    """Raise ``UsageError`` for groups that were not chosen for this model."""
    repeated = [name for name, count in Counter(g.layer for g in groups).items() if count > 1]
    if repeated:
        raise UsageError(f"layer {repeated[0]!r} is there twice", expected="one group per layer")
    for group in groups:
        _check_request(model, group)


def _check_request(model: nn.Module, group: PrunedGroup) -> None:
    layers = dict(model.named_modules())
    known = _prunable_layers(model, layers)
    if group.layer not in known:
        near = near_names(group.layer, known)
        raise UsageError(
            f"the model has no convolution, linear or recurrent layer {group.layer!r} to prune",
            expected=_ANOTHER_MODEL,
            next_step=f"did you mean {' or '.join(near)}?" if near else "make a new plan",
        )
    channels = width(layers[group.layer], "out")
    if channels != group.width_before:
        raise UsageError(
            f"layer {group.layer!r} has {channels} output channels, and the channels to remove "
            f"were chosen from {group.width_before}",
            expected=_ANOTHER_MODEL,
            next_step="prune the original model, or make a new plan",
        )
    removed = set(group.removed)
    if len(removed) < len(group.removed) or not removed < set(range(channels)) or not removed:
        raise UsageError(
            f"layer {group.layer!r} cannot lose the channels {list(group.removed)}",
            expected=f"different indices from 0 to {channels - 1}, at least one and not all",
        )


def removal_of(dependencies: Dependencies, groups: Sequence[PrunedGroup]) -> Removal:
    """Return the full groups with the channels to remove; raises where they do not fit."""
    removal: list[tuple[ChannelGroup, Sequence[int]]] = []
    taken: dict[tuple[str, int], str] = {}
    for request in groups:
        try:
            group = describe_group(dependencies, request.layer)
        except Refusal as reason:
            raise UnsupportedModel(
                f"the output channels of layer {request.layer!r} cannot be pruned: {reason}",
                next_step="leave this layer whole",
            ) from None
        if request.heads not in (0, group.heads):
            raise UsageError(
                f"layer {request.layer!r} has {group.heads} heads that can go, and the plan says "
                f"{request.heads}",
                expected=_ANOTHER_MODEL,
            )
        removed = set(request.removed)
        torn = next(
            (unit for unit in group.units if 0 < len(removed.intersection(unit)) < len(unit)), None
        )
        if torn:
            raise UsageError(
                f"the channels {list(torn)} of layer {request.layer!r} only go together",
                expected=f"all or none of them among the removed {list(request.removed)}",
            )
        for member in group.members:
            for channel in member.matching(range(group.width)) if member.side == "out" else ():
                other = taken.setdefault((member.layer, channel), request.layer)
                if other != request.layer:
                    raise UsageError(
                        f"the channels of layers {other!r} and {request.layer!r} go together",
                        expected="one group, named by one layer, for channels that go together",
                    )
        removal.append((group, request.removed))
    return removal
