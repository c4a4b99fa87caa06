"""Which inputs and outputs of the file are channels-last, so that no operator has to transpose.

LiteRT convolves in [N, H, W, C] and PyTorch in [N, C, H, W]. A float input or output of four or
more dimensions is stored channels-last wherever that saves the transposition at the boundary.
Where it would cause one instead (a model that flattens its input, attention over [N, heads, T,
T]), it stays as in PyTorch. So do three-dimensional tensors: in front of a one-dimensional
convolution the converter transposes in either layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgesdk.task import Tensors, output_tensors
from edgesdk_tflite.flatbuffer import FileOperator, FileTensor, ModelFile

Permutation = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """For each input and output the permutation from PyTorch's axes to the file's."""

    inputs: tuple[Permutation, ...]
    outputs: tuple[Permutation, ...]


def channels_last_layout(module: nn.Module, inputs: Tensors) -> Layout:
    """Return the layout with every float tensor of four or more dimensions channels-last."""
    with torch.no_grad():
        outputs = output_tensors(module(*inputs))
    return Layout(inputs=_orders(inputs), outputs=_orders(outputs))


def wrap(module: nn.Module, layout: Layout) -> nn.Module:
    """Return the model in eval mode as the child of one that takes and gives the layout's order."""
    import litert_torch

    wrapped: nn.Module = litert_torch.to_channel_last_io(
        module, args=_moved(layout.inputs), outputs=_moved(layout.outputs)
    )
    return wrapped.eval()


def arrange(inputs: Tensors, orders: Sequence[Permutation]) -> Tensors:
    """Return PyTorch-layout tensors with their axes in the file's order."""
    return tuple(t.permute(o).contiguous() for t, o in zip(inputs, orders, strict=True))


def without_transpositions(layout: Layout, file: ModelFile) -> Layout:
    """Return the layout with PyTorch's order where channels-last made the file transpose.

    ``file`` was converted in ``layout`` and names its tensors in the model's order.
    """
    inputs, outputs = list(layout.inputs), list(layout.outputs)
    for position, tensor in enumerate(file.inputs.values()):
        if transposition_after(file, tensor) == _channels_first(len(tensor.shape)):
            inputs[position] = tuple(range(len(tensor.shape)))
    for position, tensor in enumerate(file.outputs.values()):
        if _transposition_before(file, tensor) == _channels_last(len(tensor.shape)):
            outputs[position] = tuple(range(len(tensor.shape)))
    return Layout(inputs=tuple(inputs), outputs=tuple(outputs))


def moves_channels(file: ModelFile, tensor: FileTensor, order: Permutation) -> bool:
    """Return whether an input stored in ``order`` is only read to move its channel axis."""
    dimensions = len(tensor.shape)
    if dimensions < 4:
        return False
    is_last = order == _channels_last(dimensions)
    moved = _channels_first(dimensions) if is_last else _channels_last(dimensions)
    return transposition_after(file, tensor) == moved


def transposition_after(file: ModelFile, tensor: FileTensor) -> Permutation | None:
    """Return the permutation that every reader of a tensor applies to it, None if one does not."""
    readers = list(file.consumers(tensor))
    found = set()
    while readers:
        op = readers.pop()
        if op.name == "QUANTIZE":
            readers += file.consumers(op.outputs[0])
        else:
            found.add(_permutation(op))
    return found.pop() if len(found) == 1 else None


def _transposition_before(file: ModelFile, tensor: FileTensor) -> Permutation | None:
    op = file.producer(tensor)
    return _permutation(op) if op is not None else None


def _permutation(op: FileOperator) -> Permutation | None:
    order = op.inputs[1] if op.name == "TRANSPOSE" else None
    if order is None or order.data is None:
        return None
    return tuple(int(axis) for axis in order.data.view(np.int32))


def _orders(tensors: Tensors) -> tuple[Permutation, ...]:
    return tuple(
        _channels_last(t.dim()) if t.is_floating_point() and t.dim() >= 4 else tuple(range(t.dim()))
        for t in tensors
    )


def _moved(orders: Sequence[Permutation]) -> list[int]:
    return [position for position, order in enumerate(orders) if order != tuple(range(len(order)))]


def _channels_last(dimensions: int) -> Permutation:
    return (0, *range(2, dimensions), 1)


def _channels_first(dimensions: int) -> Permutation:
    return (0, dimensions - 1, *range(1, dimensions - 1))
