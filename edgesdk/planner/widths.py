"""Widths: a graph whose channel counts are variables, learnt by pruning each group once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import ConfigDict
from torch import nn

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.dependency import Dependencies, prunable_copy
from edgesdk.compress.removal import remove_channels
from edgesdk.errors import UnsupportedModel
from edgesdk.graph import Attribute, Op, OpGraph, TensorInfo
from edgesdk.low_rank import LayerSplit, with_splits
from edgesdk.residual import ResidualBlock, residual_blocks, without_blocks
from edgesdk.task import Tensors
from edgesdk.trace import trace

Widths = tuple[int, ...]
"""How many channels each group keeps, in the order of ``WidthModel.groups``."""

_WEIGHTED = ("conv", "linear", "addmm")
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A number of the graph that shrinks by ``per_unit`` for every ``unit`` channels a group loses.

    Channels that only go together, as those of an attention head do, are one unit. ``place`` is
    the dimension of a tensor's shape, or the position in an operator's attribute (None where the
    attribute is a plain number); ``attribute`` is empty for a tensor.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    owner: str
    attribute: str
    place: int | None
    group: int
    per_unit: int
    unit: int = 1


@dataclass(frozen=True, kw_only=True)
class WidthModel:
    """The original graph, the layers that name its groups with their widths, and what follows."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    graph: OpGraph
    groups: tuple[str, ...]
    full: Widths
    extents: tuple[Extent, ...]

    @cached_property
    def _of_tensor(self) -> Mapping[str, tuple[Extent, ...]]:
        return _by_owner(extent for extent in self.extents if not extent.attribute)

    @cached_property
    def _of_op(self) -> Mapping[str, tuple[Extent, ...]]:
        return _by_owner(extent for extent in self.extents if extent.attribute)

    @cached_property
    def _blocks(self) -> Mapping[str, ResidualBlock]:
        return {block.name: block for block in residual_blocks(self.graph)}

    def block(self, name: str) -> ResidualBlock:
        """Return a residual block of the graph."""
        return self._blocks[name]

    def groups_within(self, blocks: Collection[str]) -> frozenset[int]:
        """Return the groups whose widths change nothing once those blocks are gone."""
        left = without_blocks(self.graph, [self.block(name) for name in blocks])
        owners = {*left.tensors, *(op.name for op in left.ops)}
        felt = {extent.group for extent in self.extents if extent.owner in owners}
        return frozenset(range(len(self.groups))) - felt if blocks else frozenset()

    def groups_of(self, op: Op) -> frozenset[int]:
        """Return the groups whose widths change what an operator computes."""
        of_shapes = (
            extent.group
            for name in (*op.inputs, *op.parameters, *op.outputs)
            for extent in self._of_tensor.get(name, ())
        )
        return frozenset(of_shapes) | {extent.group for extent in self._of_op.get(op.name, ())}

    def groups_of_tensor(self, name: str) -> frozenset[int]:
        """Return the groups whose widths change a tensor's shape."""
        return frozenset(extent.group for extent in self._of_tensor.get(name, ()))

    def tensor_at(self, name: str, widths: Widths) -> TensorInfo:
        """Return a tensor at those widths."""
        tensor = self.graph.tensors[name]
        if name not in self._of_tensor:
            return tensor
        shape = list(tensor.shape)
        for extent in self._of_tensor[name]:
            assert extent.place is not None
            shape[extent.place] -= self._lost(extent, widths)
        return replace(tensor, shape=tuple(shape))

    def at(
        self, widths: Widths, ops: Collection[str] | None = None, *,
        gone: Collection[str] = (), splits: Collection[LayerSplit] = (),
    ) -> OpGraph:  # fmt: skip
        """Return the graph at those widths: all of it, or only the operators named.

        A tensor that an operator outside reads is an output of a part. Blocks that are ``gone``
        leave their readers what they read; layers in ``splits`` are two each.
        """
        if splits:
            return with_splits(self.at(widths, ops, gone=gone), splits)
        if gone:
            blocks = [self.block(name) for name in gone]
            return without_blocks(self.at(widths, ops), blocks)
        chosen = [op for op in self.graph.ops if ops is None or op.name in ops]
        names = {n for op in chosen for n in (*op.inputs, *op.parameters, *op.outputs)}
        if ops is None:
            names = set(self.graph.tensors)
        tensors = {
            name: self.tensor_at(name, widths) for name in self.graph.tensors if name in names
        }
        if ops is not None:
            read = {n for op in self.graph.ops if op.name not in ops for n in op.inputs}
            made = {n for op in chosen for n in op.outputs}
            tensors |= {n: replace(tensors[n], role="output") for n in sorted(read & made)}
        resized = tuple(self._op(op, tensors, widths) for op in chosen)
        return OpGraph(model=self.graph.model, ops=resized, tensors=tensors)

    def _op(self, op: Op, tensors: Mapping[str, TensorInfo], widths: Widths) -> Op:
        if not self.groups_of(op):
            return op
        attributes = dict(op.attributes)
        for extent in self._of_op.get(op.name, ()):
            value = attributes[extent.attribute]
            lost = self._lost(extent, widths)
            attributes[extent.attribute] = _reduced(value, extent.place, lost)
        before = _macs_unit(op, self.graph.tensors)
        share = _macs_unit(op, tensors) / before if before else 0.0
        return replace(op, attributes=attributes, macs=round(op.macs * share))

    def _lost(self, extent: Extent, widths: Widths) -> int:
        gone = self.full[extent.group] - widths[extent.group]
        return extent.per_unit * (gone // extent.unit)


def _by_owner(extents: Iterable[Extent]) -> dict[str, tuple[Extent, ...]]:
    found: dict[str, list[Extent]] = {}
    for extent in extents:
        found.setdefault(extent.owner, []).append(extent)
    return {owner: tuple(parts) for owner, parts in found.items()}


def measure_widths(
    model: nn.Module, example_inputs: Tensors, groups: Sequence[ChannelGroup], graph: OpGraph
) -> tuple[WidthModel, tuple[str, ...]]:
    """Return the width model of a graph, and a note for each group that does not fit one.

    Each group loses half of its channels once, the smaller network is traced, and every shape and
    attribute that differs is divided by the units lost. Shapes are sums over groups (a
    concatenation's) and so linear in each width.
    """
    inputs = tuple(example.cpu() for example in example_inputs)
    kept: list[ChannelGroup] = []
    extents: list[Extent] = []
    notes: list[str] = []
    for group in groups:
        try:
            extents += _extents_of(model, inputs, group, len(kept), graph)
        except UnsupportedModel as problem:
            notes.append(f"the channels of {group.layer} stay: {problem.found}")
            continue
        kept.append(group)
    widths = WidthModel(
        graph=graph,
        groups=tuple(group.layer for group in kept),
        full=tuple(group.width for group in kept),
        extents=tuple(extents),
    )
    return widths, tuple(notes)


def _extents_of(
    model: nn.Module, inputs: Tensors, group: ChannelGroup, index: int, graph: OpGraph
) -> list[Extent]:
    removed = sorted(c for unit in group.units[: len(group.units) // 2] for c in unit)
    dependencies = Dependencies(prunable_copy(model), inputs)
    smaller = remove_channels(dependencies, inputs, [(group, removed)])
    traced = trace(smaller, inputs, name=graph.model)
    if [(op.name, op.kind) for op in traced.ops] != [(op.name, op.kind) for op in graph.ops]:
        raise UnsupportedModel("a smaller network computes with other operators")
    found: list[tuple[str, str, int | None, int]] = []
    for name, tensor in graph.tensors.items():
        pairs = zip(tensor.shape, traced.tensors[name].shape, strict=True)
        found += [(name, "", dim, before - after) for dim, (before, after) in enumerate(pairs)]
    for op, other in zip(graph.ops, traced.ops, strict=True):
        for key, value in op.attributes.items():
            found += [
                (op.name, key, place, lost)
                for place, lost in _attribute_losses(value, other.attributes[key])
            ]
    return [
        Extent(
            owner=owner,
            attribute=attribute,
            place=place,
            group=index,
            per_unit=_per_unit(lost, len(removed) // group.unit, owner),
            unit=group.unit,
        )
        for owner, attribute, place, lost in found
        if lost
    ]


def _attribute_losses(before: Attribute, after: Attribute) -> list[tuple[int | None, int]]:
    if before == after:
        return []
    if isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        return [(i, b - a) for i, (b, a) in enumerate(zip(before, after, strict=True))]
    if isinstance(before, int) and isinstance(after, int):
        return [(None, before - after)]
    raise UnsupportedModel("an attribute changes with its width in no countable way")


def _per_unit(lost: int, units: int, owner: str) -> int:
    if lost % units:
        raise UnsupportedModel(f"{owner} does not shrink by whole channels")
    return lost // units


def _reduced(value: Attribute, place: int | None, lost: int) -> Attribute:
    if place is None:
        assert isinstance(value, int)
        return value - lost
    assert isinstance(value, tuple)
    return (*value[:place], value[place] - lost, *value[place + 1 :])


def _macs_unit(op: Op, tensors: Mapping[str, TensorInfo]) -> float:
    """Return what an operator's multiply-accumulates are in proportion to."""
    if op.kind.startswith(_WEIGHTED) and op.parameters:
        # One multiplication for each weight at each position, whose number stays. A bias, which
        # some operators take first, is smaller.
        return max(tensors[name].elements for name in op.parameters)
    if op.kind in _RECURRENT:
        # As many for each step, by the matrices of all its layers.
        return sum(t.elements for t in map(tensors.__getitem__, op.parameters) if len(t.shape) == 2)
    if op.kind == "scaled_dot_product_attention":
        query, key, value = (tensors[name].shape for name in op.inputs[:3])
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    inner = tensors[op.inputs[0]].shape[-1:] if op.inputs else ()
    return tensors[op.outputs[0]].elements * math.prod(inner)
