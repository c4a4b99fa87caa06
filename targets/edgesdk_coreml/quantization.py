"""MIL's quantization operations in PyTorch, on activations and on stored weights.

Source: ``iOS17.quantization_ops``, ``iOS16.constexpr_ops`` and ``iOS18.compression`` in
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edgesdk_coreml.blobs import unpack_bits
from edgesdk_coreml.elementwise import DTYPES

_TABLES = (2, 4, 8, 16, 64, 256)


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


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Sequence[int] | None = None
) -> Tensor:
    """The value of the table ``lut`` at each of ``indices``.

    As iOS 16 has it, ``lut`` is ``[2^n]`` and ``indices`` are bytes of packed places that make
    ``shape``. As iOS 18 has it, ``indices`` have the shape and ``lut`` is ``[*groups, 2^n, 1]``: an
    axis of ``groups`` divides that of ``indices``, and every group has its own table.
    """
    if shape is None:
        groups, values = lut.shape[:-2], lut.shape[-2:]
        sizes = zip(indices.shape, groups, strict=True)
        fits = all(part > 0 and size % part == 0 for size, part in sizes)
        if not fits or values[1] != 1 or values[0] not in _TABLES:
            raise ValueError(f"a table {list(lut.shape)} for places {list(indices.shape)}")
        numbers = torch.arange(math.prod(groups)).reshape(groups)
        return lut.reshape(-1, values[0])[spread_blocks(numbers, indices), indices.long()]
    bits, count = lut.numel().bit_length() - 1, math.prod(shape)
    if lut.dim() != 1 or len(lut) not in _TABLES or len(indices) != math.ceil(bits * count / 8):
        raise ValueError(f"a table {list(lut.shape)} and {len(indices)} bytes for {list(shape)}")
    places = torch.from_numpy(unpack_bits(indices.numpy(), bits, count))
    return lut[places.long()].reshape(tuple(shape))


def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor) -> Tensor:
    """Zeros of the mask's shape, with ``nonzero_data`` in order where the mask is one."""
    if nonzero_data.dim() != 1 or len(nonzero_data) != int(mask.sum()) or bool((mask > 1).any()):
        raise ValueError(
            f"{list(nonzero_data.shape)} values for a mask of {int(mask.sum())} of {mask.numel()}"
        )
    return torch.zeros(mask.shape, dtype=nonzero_data.dtype).masked_scatter(
        mask.bool(), nonzero_data
    )


def constexpr_lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor
) -> tuple[Tensor, Tensor]:
    """The mask, and the values of ``constexpr_lut_to_dense`` where it is one."""
    places = constexpr_sparse_to_dense(indices_nonzero_data, indices_mask)
    return indices_mask, constexpr_lut_to_dense(places, lut)[indices_mask.bool()]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask, and the values of ``constexpr_blockwise_shift_scale`` where it is one."""
    data = constexpr_sparse_to_dense(nonzero_data, data_mask)
    return data_mask, constexpr_blockwise_shift_scale(data, scale, offset)[data_mask.bool()]


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


QUANTIZATION: Mapping[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "constexpr_lut_to_sparse": constexpr_lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": constexpr_sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": constexpr_sparse_to_dense,
    "dequantize": dequantize,
    "quantize": quantize,
}
