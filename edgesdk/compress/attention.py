"""Attentions of a network: where queries, keys, values and masks come from and who reads the sum.

Found in the calls of one forward pass: PyTorch's ``scaled_dot_product_attention``, or a softmax
between two matrix products. Nothing here looks at names of classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgesdk.compress.dataflow import Call, DataFlow, Origins

_PRODUCTS = ("matmul", "__matmul__", "bmm", "einsum", "baddbmm")


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One attention of ``heads`` heads, each of ``key_width`` and ``value_width`` channels.

    ``per_head``: the layer that gives queries, keys and values stores them head by head; else
    all queries come before all keys. ``read``: the layers that read the result. ``masks``: what
    is added to the scores.
    """

    heads: int
    key_width: int
    value_width: int
    query: Origins
    key: Origins
    value: Origins
    masks: tuple[Origins, ...]
    read: Origins
    per_head: bool
    is_output: bool


def find_attentions(flow: DataFlow) -> Iterator[Attention]:
    """Yield the attentions of a network in the order in which they run."""
    for call in flow.calls:
        if call.name == "scaled_dot_product_attention":
            query, key, value, *masks = call.inputs
            added = [flow.origins(mask) for mask in masks]
            yield _attention(flow, (query, key, value), added, call.outputs[0])
        elif call.name == "softmax":
            yield from _around_softmax(flow, call)


def _around_softmax(flow: DataFlow, softmax: Call) -> Iterator[Attention]:
    """Yield the attention that a softmax is the middle of, if it is one."""
    before = [c for c in flow.back(softmax.inputs[0], until=_is_product) if _is_product(c)]
    after = [c for c in flow.forth(softmax.outputs[0], until=_is_product) if _is_product(c)]
    if len(before) != 1 or len(after) != 1 or len(after[0].inputs) != 2:
        return
    path = {n for c in flow.forth(softmax.outputs[0], until=_is_product) for n in c.outputs}
    values = [n for n in after[0].inputs if n not in path | {softmax.outputs[0]}]
    if len(values) != 1:
        return
    *added, query, key = before[0].inputs
    masks = [flow.origins(softmax.inputs[0], until=_is_product), *map(flow.origins, added)]
    yield _attention(flow, (query, key, values[0]), masks, after[0].outputs[0])


def _is_product(call: Call) -> bool:
    return call.name in _PRODUCTS and call.layer is None


def _attention(
    flow: DataFlow, parts: tuple[int, int, int], masks: list[Origins], result: int
) -> Attention:
    query, key, value = parts
    heads, _, key_width = (1, 1, *flow.shapes[query])[-3:]
    return Attention(
        heads=heads,
        key_width=key_width,
        value_width=flow.shapes[value][-1],
        query=flow.origins(query),
        key=flow.origins(key),
        value=flow.origins(value),
        masks=tuple(masks),
        read=flow.destinations(result),
        per_head=_is_per_head(flow, value, heads),
        is_output=flow.is_output(result),
    )


def _is_per_head(flow: DataFlow, value: int, heads: int) -> bool:
    """Return whether the layer's channels are first divided into heads, then into keys and so on.

    Given: ``[..., heads * parts * width]``, result: ``[..., heads, parts * width]``.
    """
    calls = list(flow.back(value))
    layers = [call for call in calls if call.layer is not None]
    if len(layers) != 1:
        return False
    channels = flow.shapes[layers[0].outputs[0]][-1]
    shapes = [flow.shapes[number] for call in calls for number in call.outputs]
    return any(shape[-2:] == (heads, channels // heads) for shape in shapes)
