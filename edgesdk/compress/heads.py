"""Groups of attention heads: a whole head goes from queries, keys, values and the reader.

Heads that share keys and values (grouped queries) go with them, and heads whose positions share a
table (relative positions) go together wherever that table is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from torch import nn

from edgesdk.compress.attention import Attention, find_attentions
from edgesdk.compress.channel_group import ChannelGroup, Refusal, Resized
from edgesdk.compress.channel_slices import (
    Layer,
    Member,
    Side,
    find_layer,
    followers,
    owners_of,
    width,
)
from edgesdk.compress.dataflow import DataFlow

_WIDTHS = (
    "all_head_size", "attn_dim", "embed_dim", "inner_dim", "out_dim_projection",
    "out_projection_input_channels", "split_size",
)  # fmt: skip
"""What modules call the width of all their heads together, where they keep it as a number."""


def head_groups(model: nn.Module, flow: DataFlow) -> tuple[dict[str, ChannelGroup], dict[str, str]]:
    """Return the groups of heads by the layer that names them, and the reasons for other layers."""
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for attention in find_attentions(flow):
        try:
            group = _Heads.of(model, flow, attention).group()
            groups = _joined(groups, group)
        except Refusal as reason:
            for origins in (attention.value, attention.key, attention.query):
                refused |= {layer: str(reason) for layer in origins.layers}
    return {group.layer: group for group in groups}, refused


@dataclass(frozen=True, kw_only=True)
class _Heads:
    """An attention whose queries, keys and values come from one layer each, or from a shared one.

    ``served`` is how many heads each head of keys and values serves.
    """

    model: nn.Module
    flow: DataFlow
    attention: Attention
    layers: tuple[str, str, str]
    pairs: int
    served: int

    @classmethod
    def of(cls, model: nn.Module, flow: DataFlow, attention: Attention) -> _Heads:
        """Return the attention's layers and heads; raises ``Refusal`` where they are not clear."""
        if attention.is_output or not attention.read.layers:
            raise Refusal("its heads are outputs of the model")
        layers = []
        for name, origins in (
            ("queries", attention.query), ("keys", attention.key), ("values", attention.value)
        ):  # fmt: skip
            if len(origins.layers) != 1:
                raise Refusal(f"the {name} of its attention do not come from one layer")
            layers.append(origins.layers[0])
        query, key, value = layers
        total = width(find_layer(model, value), "out")
        each = (attention.key_width if value == key else 0) + attention.value_width
        if value == key == query:
            total -= attention.heads * attention.key_width
        pairs, rest = divmod(total, each)
        if rest or pairs < 1 or attention.heads % pairs:
            raise Refusal(f"its {total} channels are not whole heads of {each}")
        if pairs < 2:
            raise Refusal("its attention has one head of keys and values")
        return cls(
            model=model, flow=flow, attention=attention, layers=(query, key, value), pairs=pairs,
            served=attention.heads // pairs,
        )  # fmt: skip

    def group(self) -> ChannelGroup:
        """Return the group of heads, named by the layer that gives the values."""
        root = self.layers[2]
        channels = width(self._find(root), "out")
        units = self._blocks(root)
        if sorted(c for unit in units for c in unit) != list(range(channels)):
            raise Refusal("its channels are not divided into heads alone")
        members = dict.fromkeys(self._members(root, channels, units))
        return ChannelGroup(
            layer=root,
            width=channels,
            units=units,
            members=tuple(members),
            unit_name="heads",
            traced=True,
            resized=tuple(self._resized()),
        )

    def _blocks(self, layer: str) -> tuple[tuple[int, ...], ...]:
        """Return the output channels of a layer that belong to each head of keys and values."""
        count, key, value = self.served, self.attention.key_width, self.attention.value_width
        parts = [
            size
            for name, size in zip(self.layers, (count * key, key, value), strict=True)
            if name == layer
        ]
        found: list[list[int]] = [[] for _ in range(self.pairs)]
        if self.attention.per_head:
            whole = sum(parts)
            return tuple(tuple(range(p * whole, (p + 1) * whole)) for p in range(self.pairs))
        start = 0
        for size in parts:
            for pair in range(self.pairs):
                found[pair] += range(start + pair * size, start + (pair + 1) * size)
            start += self.pairs * size
        return tuple(map(tuple, found))

    def _members(
        self, root: str, channels: int, units: Sequence[Sequence[int]]
    ) -> Iterator[Member]:
        a = self.attention

        def member(layer: str, side: Side, blocks: Sequence[Sequence[int]], dim: int = 0) -> Member:
            """A whole block goes with the first channel of its unit."""
            indices: list[tuple[int, ...]] = [()] * channels
            for unit, block in zip(units, blocks, strict=True):
                if list(unit) == list(block) or layer == root:
                    for channel in unit:
                        indices[channel] = (channel,)
                else:
                    indices[unit[0]] = tuple(block)
            return Member(layer=layer, side=side, indices=tuple(indices), dim=dim)

        yield member(root, "out", units)
        for layer, origins in zip(self.layers, (a.query, a.key, a.value), strict=True):
            blocks = self._blocks(layer)
            if layer != root:
                yield member(layer, "out", blocks)
            wide = width(self._find(layer), "out")
            for name in followers(self.model, origins.parameters, wide):
                yield member(name, "out", blocks)
        yield from self._readers(root, channels, units)
        heads = [range(p * self.served, (p + 1) * self.served) for p in range(self.pairs)]
        for mask in a.masks:
            for name, dim in self._tables(mask.parameters):
                yield member(name, "out", heads, dim)
            for name in mask.layers:
                if width(self._find(name), "out") == a.heads:
                    yield member(name, "out", heads)

    def _readers(
        self, root: str, channels: int, units: Sequence[Sequence[int]]
    ) -> Iterator[Member]:
        """Yield what reads the result: each value channel goes with its own features."""
        a = self.attention
        indices: list[tuple[int, ...]] = [()] * channels
        for pair, unit in enumerate(units):
            for place, channel in enumerate(unit[-a.value_width :]):
                first = pair * self.served
                heads = range(first, first + self.served)
                indices[channel] = tuple(head * a.value_width + place for head in heads)
        for layer in a.read.layers:
            if width(self._find(layer), "in") != a.heads * a.value_width:
                raise Refusal(f"{layer} reads more than its heads")
            yield Member(layer=layer, side="in", indices=tuple(indices))
        for name in followers(self.model, a.read.parameters, a.heads * a.value_width):
            yield Member(layer=name, side="out", indices=tuple(indices))

    def _find(self, layer: str) -> Layer:
        return find_layer(self.model, layer)

    def _tables(self, parameters: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yield the tables with an entry for each head, and the dimension of the heads."""
        for name, found in owners_of(self.model, parameters).items():
            if isinstance(found, nn.Embedding) and found.embedding_dim == self.attention.heads:
                yield name, 0
            elif isinstance(found, nn.Parameter) and self.attention.heads in found.shape:
                # Looked up by position, [heads, positions] gives [heads, ...] and its transpose
                # [..., heads]; the table's own shape does not tell where it is square.
                first = any(s[:1] == (self.attention.heads,) for s in self.flow.looked_up(name))
                yield name, found.shape.index(self.attention.heads) if first else found.dim() - 1

    def _resized(self) -> Iterator[Resized]:
        """Yield the numbers of heads and widths that the attention's own module keeps."""
        a = self.attention
        inner = _shared_path(self.layers)
        outer = _shared_path((*self.layers, *a.read.layers))
        counts = {a.heads: self.served, self.pairs: 1}
        widths = {a.heads * a.key_width: self.served * a.key_width,
                  a.heads * a.value_width: self.served * a.value_width}  # fmt: skip
        for depth in range(len(outer), len(inner) + 1):
            owner = ".".join(inner[:depth])
            for key, value in vars(self.model.get_submodule(owner)).items():
                known = counts if _is_count(key) else widths if key in _WIDTHS else {}
                if type(value) is int and value in known:
                    yield Resized(module=owner, attribute=key, before=value, per_unit=known[value])


def _shared_path(layers: Sequence[str]) -> list[str]:
    """Return the path of the innermost module that holds all of the layers."""
    paths = [name.split(".")[:-1] for name in layers]
    return [parts[0] for parts in takewhile(lambda p: len(set(p)) == 1, zip(*paths, strict=False))]


def _is_count(attribute: str) -> bool:
    return "head" in attribute and not any(p in attribute for p in ("dim", "size", "group"))


def _joined(groups: list[ChannelGroup], group: ChannelGroup) -> list[ChannelGroup]:
    """Return the groups with another one; those that share a layer become one."""
    own = {member.layer for member in group.members}
    first = next((g for g in groups if own & {member.layer for member in g.members}), None)
    if first is None:
        return [*groups, group]
    if (first.width, first.units) != (group.width, group.units):
        raise Refusal(f"its heads go with those of {first.layer}, which are others")
    both = replace(
        first,
        members=tuple(dict.fromkeys((*first.members, *group.members))),
        resized=tuple(dict.fromkeys((*first.resized, *group.resized))),
    )
    rest = [g for g in groups if g is not first]
    return _joined(rest, both)
