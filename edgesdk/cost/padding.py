"""Convolution windows, and the padding that TFLite writes as an operator of its own."""

from __future__ import annotations

import math

from edgesdk.graph import Op, OpGraph

_PADDED = frozenset({"avg_pool2d", "conv1d", "conv2d", "conv3d", "max_pool2d"})


def padded_elements(op: Op, graph: OpGraph) -> int:
    """Return the elements of the padded input that a TFLite file holds as a tensor of its own.

    TFLite pads inside a convolution only as "SAME" does: in all ``max((ceil(n / stride) - 1) *
    stride + (kernel - 1) * dilation + 1 - n, 0)``, the odd one at the end. Symmetric padding that
    differs becomes a PAD operator; so does every padding of an average, whose zeros PyTorch counts
    and TFLite does not. 0 where none is needed.
    """
    if op.kind not in _PADDED:
        return 0
    shape = graph.tensors[op.inputs[0]].shape
    kernel, stride, dilation, padding = window(op)
    sizes = shape[-len(kernel) :]
    differs = False
    for n, k, s, d, p in zip(sizes, kernel, stride, dilation, padding, strict=True):
        same = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        differs |= p > 0 and (2 * p != same or op.kind == "avg_pool2d")
    if not differs:
        return 0
    padded = math.prod(n + 2 * p for n, p in zip(sizes, padding, strict=True))
    return padded * math.prod(shape[: -len(kernel)])


def window(op: Op) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, stride, dilation and padding of a convolution, per spatial dimension."""
    kernel = _sizes(op.attributes["kernel_size"], 0)
    rank = len(kernel)
    stride = _sizes(op.attributes["stride"], rank)
    dilation = _sizes(op.attributes.get("dilation", 1), rank)
    padding = op.attributes.get("padding", 0)
    if isinstance(padding, str):  # "same" and "valid" mean what TFLite means by them
        return kernel, stride, dilation, (0,) * rank
    return kernel, stride, dilation, _sizes(padding, rank)


def _sizes(value: object, rank: int) -> tuple[int, ...]:
    sizes = value if isinstance(value, tuple) else (value,)
    return sizes * rank if len(sizes) == 1 and rank > 1 else sizes
