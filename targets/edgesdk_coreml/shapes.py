"""MIL operations that move or gather elements, in PyTorch: layout, slices, reductions, resizing.

Parameters carry MIL's names. Source: ``tensor_transformation``, ``tensor_operation``,
``reduction``, ``image_resizing`` and ``scatter_gather`` in
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

from edgesdk.errors import UnsupportedModel
from edgesdk_coreml.elementwise import DTYPES, Operand
from edgesdk_coreml.layers import pad_axes

Outputs = Tensor | tuple[Tensor, ...]


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """``x`` in another shape; 0 keeps an axis, -1 is what remains."""
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def transpose(x: Tensor, perm: list[int]) -> Tensor:
    """``x`` with its axes in the order ``perm``."""
    return x.permute(perm)


def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """``x`` without the axes of size 1 (all, or those named)."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """``x`` with axes of size 1 where ``axes`` says they end up."""
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def concat(values: Sequence[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """The values along ``axis``, one after the other or in turn."""
    if interleave:
        axis %= values[0].dim()
        return torch.stack(tuple(values), axis + 1).flatten(axis, axis + 1)
    return torch.cat(tuple(values), axis)


def stack(values: Sequence[Tensor], axis: int) -> Tensor:
    """The values along a new axis."""
    return torch.stack(tuple(values), axis)


def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> Outputs:
    """``x`` cut along ``axis``, into equal parts or parts of the given sizes."""
    if split_sizes is None:
        return tuple(x.tensor_split(num_splits or 1, axis))
    return tuple(x.split_with_sizes(split_sizes, axis))


def slice_by_index(
    x: Operand,
    begin: list[int],
    end: list[int],
    *,
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """``x[begin:end:stride]`` on every axis; a mask ignores a limit or drops the axis."""
    sliced = torch.as_tensor(x)
    rank = sliced.dim()
    steps, unmasked = stride or [1] * rank, [False] * rank
    squeezed = squeeze_mask or unmasked
    for axis in range(rank):
        first = None if (begin_mask or unmasked)[axis] else begin[axis]
        last = None if (end_mask or unmasked)[axis] else end[axis]
        kept = range(sliced.shape[axis])[first : last : steps[axis]]
        if squeezed[axis]:
            kept = range(sliced.shape[axis])[begin[axis] :][:1]
        sliced = sliced.index_select(axis, torch.tensor(list(kept), dtype=torch.int64))
    return sliced.squeeze(tuple(axis for axis in range(rank) if squeezed[axis]))


def gather(
    x: Operand, indices: Operand, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """The slices of ``x`` along ``axis`` that ``indices`` name; negative ones from the end."""
    table, index = torch.as_tensor(x), torch.as_tensor(indices)
    if batch_dims:
        raise UnsupportedModel("the evaluator has no gather with batch_dims")
    axis %= table.dim()
    taken = table.index_select(axis, index.reshape(-1).long() % table.shape[axis])
    return taken.reshape(*table.shape[:axis], *index.shape, *table.shape[axis + 1 :])


def gather_nd(
    x: Operand, indices: Operand, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """``x[indices[..., 0], indices[..., 1], ...]``; negative indices count from the end."""
    table, index = torch.as_tensor(x), torch.as_tensor(indices).long()
    if batch_dims:
        raise UnsupportedModel("the evaluator has no gather_nd with batch_dims")
    return table[tuple(index.unbind(-1))]


def gather_along_axis(
    x: Operand, indices: Operand, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """``x`` with the elements along ``axis`` that ``indices``, of the same rank, name."""
    table = torch.as_tensor(x)
    if table.dtype == torch.uint16:  # which torch can store and not gather
        table = table.to(torch.int32)
    return table.gather(axis, torch.as_tensor(indices).long() % table.shape[axis])


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """The sum of all elements up to each one along ``axis``."""
    if exclusive or reverse:
        raise UnsupportedModel("the evaluator has no exclusive or reverse cumsum")
    return x.cumsum(axis).to(x.dtype)


def tile(x: Tensor, reps: list[int]) -> Tensor:
    """``x`` repeated along each axis."""
    return x.repeat(reps)


def pad(x: Tensor, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """``x`` with its last axes padded; ``pad`` is before and after, first axis first."""
    if mode == "constant":
        return pad_axes(x, pad, constant_val)
    # PyTorch reflects and replicates trailing axes alone; MIL states leading zeros as well.
    leading = max(len(pad) - 2 * (x.dim() - 2), 0)
    if any(pad[:leading]):
        raise UnsupportedModel(f"the evaluator has no {mode} padding of batch or channels")
    return pad_axes(x, pad[leading:], mode=mode)


def crop(x: Tensor, crop_height: list[int], crop_width: list[int]) -> Tensor:
    """[N, C, H, W] without that many rows and columns before and after."""
    return pad_axes(x, [-size for size in (*crop_height, *crop_width)])


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """[N, C * r^2, H, W] rearranged to [N, C, H * r, W * r]."""
    return F.pixel_shuffle(x, upscale_factor)


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    """[N, C, H, W] enlarged by repeating."""
    scale = [float(scale_factor_height), float(scale_factor_width)]
    return F.interpolate(x, scale_factor=scale, mode="nearest")


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool = True,
) -> Tensor:
    """[N, C, H, W] enlarged by bilinear interpolation."""
    if not half_pixel_centers and not align_corners:
        raise UnsupportedModel("the evaluator has no upsample_bilinear from pixel corners")
    scale = [float(scale_factor_height), float(scale_factor_width)]
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=align_corners)


def reduce_mean(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The mean over ``axes`` (all by default)."""
    return x.mean(axes, keepdim=keep_dims)


def reduce_sum(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The sum over ``axes`` (all by default)."""
    return x.sum(axes, keepdim=keep_dims)


def reduce_max(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The largest over ``axes`` (all by default)."""
    return x.amax(axes or (), keepdim=keep_dims)


def reduce_min(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The smallest over ``axes`` (all by default)."""
    return x.amin(axes or (), keepdim=keep_dims)


def reduce_l2_norm(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """``sqrt(sum(x^2))`` over ``axes`` (all by default)."""
    return x.square().sum(axes, keepdim=keep_dims).sqrt()


def reduce_argmax(
    x: Tensor, axis: int = -1, keep_dims: bool = True, output_dtype: str = "int32"
) -> Tensor:
    """Where along ``axis`` the largest lies."""
    return x.argmax(axis, keepdim=keep_dims).to(DTYPES[output_dtype])


SHAPES: Mapping[str, Callable[..., Outputs]] = {
    "concat": concat,
    "crop": crop,
    "cumsum": cumsum,
    "expand_dims": expand_dims,
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "pad": pad,
    "pixel_shuffle": pixel_shuffle,
    "reduce_argmax": reduce_argmax,
    "reduce_l2_norm": reduce_l2_norm,
    "reduce_max": reduce_max,
    "reduce_mean": reduce_mean,
    "reduce_min": reduce_min,
    "reduce_sum": reduce_sum,
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
