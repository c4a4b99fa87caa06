"""Low-rank splits: one layer with weights becomes two with fewer weights together.

Given:   x -> [layer: weight [out, in, *K]] -> y
Result:  x -> [layer.0: [rank, in, *K], no bias] -> [layer.1: [out, rank, 1...], bias] -> y

The first half has the layer's kernel, stride and padding, the second one mixes channels alone
(Zhang et al. 2016, "Accelerating Very Deep Convolutional Networks for Classification and
Detection", section 3.1). Weights are saved below the rank ``out * in * K / (out + in * K)``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from edgesdk.graph import Attribute, Op, OpGraph, TensorInfo

# Where the channels of an operator's output are, counted from its last dimension.
_CHANNEL_AXIS = {"linear": -1, "conv1d": -2, "conv2d": -3}

MOST_OUTPUTS = 4096
"""Layers of more stay whole: which directions their answers lie in would take minutes to find."""

HALVES = ("0", "1")
"""What the two layers are called within the module that stands where the layer was."""


class LayerSplit(NamedTuple):
    """A layer, by its module path, and the rank of the two layers that it becomes."""

    layer: str
    rank: int


Splits = tuple[LayerSplit, ...]


def splittable_ops(graph: OpGraph) -> tuple[Op, ...]:
    """Return the linear layers and ungrouped convolutions whose weights they alone read, of not
    too many outputs."""
    readers: dict[str, int] = {}
    calls: dict[str, int] = {}
    for op in graph.ops:
        calls[op.layer] = calls.get(op.layer, 0) + (op.kind in _CHANNEL_AXIS)
        for name in op.parameters:
            readers[name] = readers.get(name, 0) + 1
    return tuple(
        op
        for op in graph.ops
        if _is_plain(op)
        and graph.tensors[op.parameters[0]].shape[0] <= MOST_OUTPUTS
        and calls[op.layer] == 1
        and all(readers[name] == 1 for name in op.parameters)
    )


def _is_plain(op: Op) -> bool:
    own = (f"{op.layer}.weight", f"{op.layer}.bias")
    is_module = bool(op.layer) and op.parameters in (own, own[:1])
    return is_module and op.kind in _CHANNEL_AXIS and op.attributes.get("groups", 1) == 1


def split_limit(shape: tuple[int, ...]) -> int:
    """Return the largest rank at which two layers have fewer weights than the one of that shape."""
    out, read = shape[0], math.prod(shape[1:])
    return max(0, math.ceil(out * read / (out + read)) - 1)


def with_splits(graph: OpGraph, splits: Collection[LayerSplit]) -> OpGraph:
    """Return the graph with two operators for each split layer; layers that it lacks are passed
    over, as a part of a graph lacks most."""
    ranks = dict(splits)
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        if op.layer in ranks and op.kind in _CHANNEL_AXIS:
            ops += _halves(op, ranks[op.layer], tensors)
        else:
            ops.append(op)
    return OpGraph(model=graph.model, ops=tuple(ops), tensors=tensors)


def _halves(op: Op, rank: int, tensors: dict[str, TensorInfo]) -> tuple[Op, Op]:
    """Return the two operators; their tensors are added, and the layer's own parameters go."""
    weight, given = tensors[op.parameters[0]], tensors[op.outputs[0]]
    out, read = weight.shape[0], math.prod(weight.shape[1:])
    ones = (1,) * (len(weight.shape) - 2)
    shape = list(given.shape)
    shape[_CHANNEL_AXIS[op.kind]] = rank
    for name in op.parameters:
        del tensors[name]
    first, second = (f"{op.layer}.{half}" for half in HALVES)
    between = replace(given, name=f"{op.name}.low", shape=tuple(shape), role="activation")
    weights = [
        replace(weight, name=f"{first}.weight", shape=(rank, *weight.shape[1:])),
        replace(weight, name=f"{second}.weight", shape=(out, rank, *ones)),
        replace(weight, name=f"{second}.bias", shape=(out,)),
    ]
    tensors |= {tensor.name: tensor for tensor in (between, *weights)}
    low = replace(
        op,
        name=between.name,
        parameters=(weights[0].name,),
        outputs=(between.name,),
        macs=op.macs * rank // out,
        layer=first,
    )
    high = replace(
        op,
        inputs=(between.name,),
        parameters=(weights[1].name, weights[2].name),
        macs=op.macs * rank // read,
        layer=second,
        attributes=_pointwise(op, ones),
    )
    return low, high


def _pointwise(op: Op, ones: tuple[int, ...]) -> Mapping[str, Attribute]:
    """Return the attributes of an operator that mixes channels alone."""
    plain: dict[str, Attribute] = {
        "stride": ones,
        "padding": (0,) * len(ones),
        "dilation": ones,
        "groups": 1,
        "kernel_size": ones,
    }
    return {**op.attributes, **plain} if ones else op.attributes
