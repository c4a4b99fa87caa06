"""Groups of hidden widths: what one layer gives and only the next ones read, as inside an MLP.

For networks that Torch-Pruning cannot follow; elsewhere it finds these groups and more.
"""

from __future__ import annotations

from torch import nn

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.channel_slices import (
    Member,
    find_layer,
    followers,
    is_depthwise,
    is_weighted,
    width,
)
from edgesdk.compress.dataflow import DataFlow


def hidden_groups(model: nn.Module, flow: DataFlow) -> dict[str, ChannelGroup]:
    """Return the groups of channels that one layer alone gives to its readers, by that layer."""
    found = {}
    for name, layer in model.named_modules():
        if is_weighted(layer) and not is_depthwise(layer):
            group = _group(model, flow, name)
            if group is not None:
                found[name] = group
    return found


def _group(model: nn.Module, flow: DataFlow, name: str) -> ChannelGroup | None:
    made = [number for call in flow.calls if call.layer == name for number in call.outputs]
    read = flow.destinations(*made)
    if not read.layers or flow.is_output(*made) or not _alone(flow, name, read.layers):
        return None
    size = width(find_layer(model, name), "out")
    if any(width(find_layer(model, reader), "in") != size for reader in read.layers):
        return None
    each = tuple((channel,) for channel in range(size))
    given = (name, *followers(model, read.parameters, size))
    return ChannelGroup(
        layer=name,
        width=size,
        units=each,
        members=(
            *(Member(layer=layer, side="out", indices=each) for layer in given),
            *(Member(layer=reader, side="in", indices=each) for reader in read.layers),
        ),
        traced=True,
    )


def _alone(flow: DataFlow, name: str, readers: tuple[str, ...]) -> bool:
    """Return whether all that the readers read was made by that layer."""
    inputs = (call.inputs[0] for call in flow.calls if call.layer in readers)
    return all(flow.origins(number).layers == (name,) for number in inputs)
