"""MIL operations with weights or windows in PyTorch: convolution, linear, norms and pooling.

Parameters carry MIL's names. Source: ``conv``, ``linear``, ``normalization``, ``pool``,
``scatter_gather`` and ``iOS18.transformers`` in
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor

from edgesdk.errors import UnsupportedModel


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """``x`` [N, C, *D], ``weight`` [C_out, C / groups, *K], ``pad`` before and after each axis."""
    rank = x.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pairs = _padding(x.shape[2:], weight.shape[2:], strides, dilations, pad_type=pad_type, pad=pad)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(pad_axes(x, pairs), weight, bias, strides, 0, dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    pad_type: str = "valid",
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """``x`` [N, C, *D], ``weight`` [C, C_out / groups, *K], ``pad`` cropped off each axis."""
    rank = x.dim() - 2
    if pad_type not in ("valid", "custom"):
        raise UnsupportedModel(f"the evaluator has no conv_transpose with pad_type {pad_type!r}")
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    full = transposed(x, weight, None, strides, 0, 0, groups, dilations)
    margins = pad if pad_type == "custom" and pad else [0] * 2 * rank
    crops: list[int] = []
    for axis, size in enumerate(full.shape[2:]):
        before, after = margins[2 * axis : 2 * axis + 2]
        length = output_shape[2 + axis] if output_shape else size - before - after
        crops += [-before, length + before - size]
    cropped = pad_axes(full, crops)
    return cropped if bias is None else cropped + bias.reshape(-1, *[1] * rank)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x`` [..., C], ``weight`` [C_out, C]."""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """``x @ y`` over the last two axes, either transposed first."""
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """``softmax(query key^T / sqrt(E) + attn_mask) value``, one operation from iOS 18 on.

    ``query`` [..., L, E], ``key`` [..., S, E], ``value`` [..., S, E_V]; a mask of booleans says
    which are attended to.
    """
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` for each channel."""
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """As ``batch_norm``, with each sample's and channel's own mean and variance."""
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


def layer_norm(
    x: Tensor,
    axes: list[int],
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` over the last axes."""
    if sorted(axis % x.dim() for axis in axes) != list(range(x.dim() - len(axes), x.dim())):
        raise UnsupportedModel(f"the evaluator has no layer_norm over the axes {axes}")
    return F.layer_norm(x, list(x.shape[-len(axes) :]), gamma, beta, epsilon)


def max_pool(
    x: Tensor,
    kernel_sizes: list[int],
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest of each window of [N, C, *D]."""
    rank = len(kernel_sizes)
    strides = strides or [1] * rank
    margins = _pool_margins(x, kernel_sizes, strides, pad_type, pad)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    return pool(x, kernel_sizes, strides, margins, 1, ceil_mode)


def avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Tensor:
    """The mean of each window of [N, C, *D], padding counted unless excluded."""
    rank = len(kernel_sizes)
    strides = strides or [1] * rank
    margins = _pool_margins(x, kernel_sizes, strides, pad_type, pad)
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    return pool(x, kernel_sizes, strides, margins, ceil_mode, not exclude_padding_from_average)


def pad_axes(x: Tensor, pairs: Sequence[int], value: float = 0.0, mode: str = "constant") -> Tensor:
    """Return ``x`` with its last axes padded; ``pairs`` is before and after, first axis first."""
    if not any(pairs):
        return x
    axes = reversed(range(len(pairs) // 2))
    last_axis_first = [size for axis in axes for size in pairs[2 * axis : 2 * axis + 2]]
    return F.pad(x, last_axis_first, mode, value if mode == "constant" else None)


def _padding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    pad_type: str,
    pad: list[int] | None,
) -> list[int]:
    """Return the padding before and after each spatial axis."""
    if pad_type == "valid":
        return [0] * 2 * len(sizes)
    if pad_type == "custom":
        return pad or [0] * 2 * len(sizes)
    pairs = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        covered = (math.ceil(size / stride) - 1) * stride + dilation * (width - 1) + 1
        total = max(covered - size, 0)
        small, large = total // 2, total - total // 2
        pairs += [small, large] if pad_type == "same" else [large, small]
    return pairs


def _pool_margins(
    x: Tensor, kernel: list[int], strides: list[int], pad_type: str, pad: list[int] | None
) -> list[int]:
    pairs = _padding(x.shape[2:], kernel, strides, [1] * len(kernel), pad_type=pad_type, pad=pad)
    if pairs[0::2] != pairs[1::2]:
        raise UnsupportedModel(
            "the evaluator has no pooling that pads one side more than the other"
        )
    return pairs[0::2]


LAYERS: Mapping[str, Callable[..., Tensor]] = {
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "linear": linear,
    "matmul": matmul,
    "max_pool": max_pool,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
