"""Groups of a recurrent layer's units: they go from its gates, its state and what reads them."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgesdk.compress.channel_group import ChannelGroup, Refusal
from edgesdk.compress.channel_slices import Member, find_layer, owners_of, width
from edgesdk.compress.dataflow import DataFlow


def recurrent_groups(
    model: nn.Module, flow: DataFlow
) -> tuple[dict[str, ChannelGroup], dict[str, str]]:
    """Return the groups of units of LSTMs and GRUs by layer, and the reasons for the others."""
    groups: dict[str, ChannelGroup] = {}
    refused: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.RNNBase):
            try:
                groups[name] = _group(model, flow, name, layer)
            except Refusal as reason:
                refused[name] = str(reason)
    return groups, refused


def _group(model: nn.Module, flow: DataFlow, name: str, layer: nn.RNNBase) -> ChannelGroup:
    if layer.bidirectional or layer.proj_size:
        raise Refusal("a recurrent layer of two directions or with a projection cannot be pruned")
    made = [number for call in flow.calls if call.layer == name for number in call.outputs]
    read = flow.destinations(*made)
    if flow.is_output(*made) or not read.layers:
        raise Refusal("its channels are outputs of the model")
    size = layer.hidden_size
    each = tuple((channel,) for channel in range(size))
    members = [Member(layer=name, side="out", indices=each)]
    for reader in read.layers:
        features = width(find_layer(model, reader), "in")
        if reader == name or features % size:
            raise Refusal(f"{reader} does not read its channels alone")
        # Behind a flatten every step has its features.
        steps = (tuple(range(channel, features, size)) for channel in range(size))
        members.append(Member(layer=reader, side="in", indices=tuple(steps)))
    for owner, found in owners_of(model, read.parameters).items():
        if isinstance(found, _BatchNorm | nn.LayerNorm) and width(found, "out") == size:
            members.append(Member(layer=owner, side="out", indices=each))
    return ChannelGroup(
        layer=name,
        width=size,
        units=each,
        members=tuple(members),
        traced=True,
    )
