"""MIL's quantization operations in PyTorch, on activations and on stored weights.

Source: ``iOS17.quantization_ops``, ``iOS16.constexpr_ops`` and ``iOS18.compression`` in
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgesdk_coreml.elementwise import DTYPES


def quantize(
    input: Tensor,
    scale: float | Tensor,
    output_dtype: str,
    zero_point: int | Tensor = 0,
    axis: int | None = None,
) -> Tensor:
    """``clamp(round(input / scale) + zero_point)``, ties to even."""
    limits = torch.iinfo(DTYPES[output_dtype])
    steps = torch.round(input / _along(scale, axis, input)) + _along(zero_point, axis, input)
    return steps.clamp(limits.min, limits.max)


def dequantize(
    input: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor = 0,
    axis: int | None = None,
) -> Tensor:
    """``scale * (input - zero_point)``."""
    return (input.float() - _along(zero_point, axis, input)) * _along(scale, axis, input)


def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: int | Tensor, scale: float | Tensor, axis: int
) -> Tensor:
    """``scale * (quantized_data - zero_point)`` with one scale for each slice along ``axis``."""
    return dequantize(quantized_data, scale, zero_point, axis)


def constexpr_blockwise_shift_scale(
    data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensor:
    """``scale * (data - offset)``; an axis of ``scale`` divides that of ``data`` into blocks."""
    shifted = data.float() if offset is None else data.float() - spread_blocks(offset.float(), data)
    return shifted * spread_blocks(scale, data)


def _along(value: float | Tensor, axis: int | None, like: Tensor) -> float | Tensor:
    """Return a vector shaped to broadcast along ``axis`` of ``like``; a scalar as it is."""
    if not isinstance(value, Tensor) or value.dim() == 0 or axis is None:
        return value
    shape = [1] * like.dim()
    shape[axis] = -1
    return value.float().reshape(shape)


def spread_blocks(blocks: Tensor, like: Tensor) -> Tensor:
    """Return one value for each element of ``like``; an axis of ``blocks`` divides that of it."""
    for axis, size in enumerate(like.shape):
        blocks = blocks.repeat_interleave(size // blocks.shape[axis], axis)
    return blocks


QUANTIZATION: Mapping[str, Callable[..., Tensor]] = {
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "dequantize": dequantize,
    "quantize": quantize,
}
