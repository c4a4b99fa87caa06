"""Groups of channels: what has to go together so that the rest of the network stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from edgesdk.compress.channel_group import ChannelGroup, Refusal
from edgesdk.compress.channel_slices import (
    SUPPORTED_LAYERS,
    Member,
    block_count,
    find_layer,
    is_depthwise,
    is_prunable,
    is_weighted,
    width,
)
from edgesdk.compress.dependency import OUTPUT, Dependencies
from edgesdk.errors import UnsupportedModel


def candidate_groups(dependencies: Dependencies) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Return the groups that structure allows, in the model's order, and the reasons for the rest.

    Groups share no channel. Of layers that are coupled only in part (the branches of a
    concatenation that is added to something) the narrow ones give the groups.
    """
    order = {name: place for place, (name, _) in enumerate(dependencies.model.named_modules())}
    if dependencies.failure is not None and not dependencies.traced[0]:
        raise dependencies.failure
    roots = [(width(r, "out"), order[n], n) for n, r in dependencies.roots() if not is_depthwise(r)]
    groups, refused = _traced_groups(dependencies)
    taken = {place: name for group in groups for place, name in _outputs(group).items()}
    for channels, _, layer in sorted(roots):
        partners = {taken[layer, c] for c in range(channels) if (layer, c) in taken}
        if partners:
            if any((layer, c) not in taken for c in range(channels)):
                refused[layer] = f"only some of its channels go with those of {sorted(partners)}"
            continue
        try:
            group = describe_group(dependencies, layer)
        except (Refusal, UnsupportedModel) as reason:
            refused.setdefault(layer, str(reason))
            continue
        groups.append(group)
        taken |= _outputs(group)
    return sorted(groups, key=lambda group: order[group.layer]), refused


def _traced_groups(dependencies: Dependencies) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Return the groups that do not come from the engine, and the reasons known before it."""
    model = dependencies.model
    traced, untraced = dependencies.traced
    refused = dict(_other_layers(model))
    if dependencies.failure is not None:
        weighted = (name for name, layer in model.named_modules() if is_weighted(layer))
        refused |= dict.fromkeys(weighted, dependencies.failure.found)
    refused |= untraced
    groups = []
    for name in traced:
        try:
            group = describe_group(dependencies, name)
        except Refusal as reason:
            refused[name] = str(reason)
            continue
        groups.append(group)
        for layer, _ in _outputs(group):
            owner = layer.rpartition(".")[0]
            is_table = isinstance(find_layer(model, layer), nn.Parameter)
            refused.pop(owner if is_table else layer, None)
    return groups, refused


def _outputs(group: ChannelGroup) -> dict[tuple[str, int], str]:
    """Return the output channels that a group holds, with its name."""
    return {
        (member.layer, channel): group.layer
        for member in group.members
        if member.side == "out"
        for channel in member.matching(range(group.width))
    }


def _other_layers(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the layers with weights whose output channels nothing here prunes, and the reason."""
    for name, layer in model.named_modules():
        own = [parameter for parameter in layer._parameters.values() if parameter is not None]
        known = is_weighted(layer) or isinstance(
            layer, (*SUPPORTED_LAYERS, nn.utils.parametrize.ParametrizationList)
        )
        if not known and any(parameter.dim() == 2 for parameter in own):
            yield name, f"a {type(layer).__name__} cannot be pruned"


def describe_group(dependencies: Dependencies, layer: str) -> ChannelGroup:
    """Return the group of a layer's output channels; raises ``Refusal`` with the reason."""
    model = dependencies.model
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    traced = dependencies.traced[0].get(layer)
    if traced is not None:
        for member in traced.members:
            _check_member(model, member, owners)
        return traced
    channels = width(find_layer(model, layer), "out")
    members = dependencies.members(layer, range(channels), channels)
    members = [member for member in members if not _is_shared_slope(model, member)]
    for member in members:
        _check_member(model, member, owners)
    relations = [block for member in members for block in _blocks(model, member)]
    units = _merge(channels, [*relations, *_coupled(dependencies, layer, channels)])
    if len(units) < 2:
        raise Refusal("its channels can only go all together")
    if len({len(unit) for unit in units}) > 1:
        raise Refusal("its channels depend on each other in sets of unequal size")
    return ChannelGroup(layer=layer, width=channels, units=units, members=tuple(members))


def _is_shared_slope(model: nn.Module, member: Member) -> bool:
    """True for a PReLU with one slope for all channels, which no pruning touches."""
    layer = None if member.layer == OUTPUT else find_layer(model, member.layer)
    return isinstance(layer, nn.PReLU) and layer.num_parameters == 1


def _check_member(model: nn.Module, member: Member, owners: Mapping[int, int]) -> None:
    if member.layer == OUTPUT:
        raise Refusal("its channels are outputs of the model")
    layer, name = find_layer(model, member.layer), member.layer
    if not is_prunable(layer):
        raise Refusal(f"they go with {name}, and a {type(layer).__name__} cannot be pruned")
    own = [layer] if isinstance(layer, nn.Parameter) else list(layer._parameters.values())
    if any(owners[id(parameter)] > 1 for parameter in own if parameter is not None):
        raise Refusal(f"{name} shares its weights with another layer")
    if isinstance(layer, nn.Module) and (
        nn.utils.parametrize.is_parametrized(layer) or layer._forward_pre_hooks
    ):
        raise Refusal(f"the weights of {name} are computed by a parametrization or hook")
    if isinstance(layer, _ConvNd) and layer.groups > 1 and not _is_plain(layer):
        raise Refusal(f"{name} is a kind of grouped convolution that cannot be pruned")
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) != 1:
        raise Refusal(f"{name} normalises over more than the channels")
    if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
        raise Refusal(f"{name} keeps running statistics, which cannot be pruned")
    used = [index for indices in member.indices for index in indices]
    if len(set(used)) < len(used) or max(used, default=0) >= width(layer, member.side, member.dim):
        raise Refusal(f"several of its channels meet the same channel of {name}")
    if len({len(indices) for indices in member.indices if indices}) > 1:
        raise Refusal(f"{name} reads its channels as differently many features")


def _is_plain(layer: _ConvNd) -> bool:
    """True for the grouped convolutions that Torch-Pruning handles: depthwise, or ordinary."""
    if layer.groups == layer.out_channels:
        return layer.in_channels == layer.out_channels
    return not layer.transposed


def _blocks(model: nn.Module, member: Member) -> Iterable[Sequence[int]]:
    """Yield the channels that a layer divided into equal blocks ties together.

    Taking the same position out of every block keeps the blocks equal.
    """
    layer = find_layer(model, member.layer)
    count = block_count(layer)
    if count == 1:
        return
    size = width(layer, member.side)
    if sorted(member.indices) != [(index,) for index in range(size)]:
        raise Refusal(f"{member.layer} divides other channels too into its {count} groups")
    channel_at = {indices[0]: channel for channel, indices in enumerate(member.indices)}
    for position in range(size // count):
        yield [channel_at[index] for index in range(position, size, size // count)]


def _coupled(dependencies: Dependencies, layer: str, channels: int) -> Iterable[Sequence[int]]:
    """Yield channels of one layer that meet elsewhere, as the two halves of a gated unit do."""

    def partners(channel: int) -> Sequence[int]:
        members = dependencies.members(layer, [channel], channels)
        own = [m for m in members if m.layer == layer and m.side == "out"]
        return sorted({index for member in own for index in member.indices[channel]})

    # Asking for every channel is slow, and where the first and last are free all are.
    if any(len(partners(channel)) > 1 for channel in (0, channels - 1)):
        yield from (partners(channel) for channel in range(channels))


def _merge(channels: int, relations: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the finest division of the channels in which related ones stay together."""
    root = list(range(channels))

    def find(channel: int) -> int:
        while root[channel] != channel:
            root[channel] = root[root[channel]]
            channel = root[channel]
        return channel

    for relation in relations:
        for channel in relation[1:]:
            root[find(channel)] = find(relation[0])
    units: dict[int, list[int]] = {}
    for channel in range(channels):
        units.setdefault(find(channel), []).append(channel)
    return tuple(tuple(unit) for unit in units.values())
