"""The integer grids of a target's quantizer: where a network's numbers are rounded to, and how.

The one place that knows how the quantizers differ. Everything that prepares a network for being
quantized asks here, so that what it prepares for is what the target then does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from edgesdk.compress.program import WEIGHTED
from edgesdk.scheme import QuantizerName

Observer = Literal["minmax", "histogram"]
"""How a calibrated range is found. ``minmax``: the least and the greatest value seen.
``histogram``: the part of that range whose rounding errs least in the mean square over a
histogram of all values seen; cuts rare outliers off."""

INT8_LOWEST, INT8_HIGHEST = -128, 127


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """What a target's own quantizer does; operators are named as in ``aten``.

    ``smallest_scale``: no scale is finer than this. ``keeping``: operators whose result stays on
    the grid of what they read. ``joins_share``: whether all that a concatenation reads is on one
    grid with its result, or only what nothing else reads. ``integer``: operators computed in
    integers; what others compute is rounded only where one of these reads it (None: all are).
    """

    name: QuantizerName
    observer: Observer
    smallest_scale: float
    keeping: frozenset[str]
    joins_share: bool
    integer: frozenset[str] | None


# executorch's get_symmetric_quantization_config: HistogramObserver, eps=2**-12 for weights too;
# _is_share_obs_or_fq_op and the annotators of xnnpack_quantizer_utils.py.
XNNPACK = Quantizer(
    name="XNNPACK",
    observer="histogram",
    smallest_scale=2.0**-12,
    keeping=frozenset((
        "relu", "relu6", "hardtanh", "clamp", "max_pool2d", "mean", "permute", "transpose",
        "squeeze", "adaptive_avg_pool2d", "view", "reshape", "slice", "flatten", "dropout",
    )),
    joins_share=True,
    integer=frozenset((*WEIGHTED, "batch_norm", "add", "mul", "cat", "adaptive_avg_pool2d")),
)  # fmt: skip
# tensor_zp_scale_from_min_max: a bound of 1e-9, over 127 steps; SAME_AS_INPUT_SCALE in
# common_quantize.py. A mean is rounded to a grid of its own, global average pooling is one.
AI_EDGE = Quantizer(
    name="ai-edge-quantizer",
    observer="minmax",
    smallest_scale=1e-9 / 127,
    keeping=frozenset((
        "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "permute", "transpose", "t",
        "squeeze", "unsqueeze", "view", "reshape", "flatten", "unflatten", "slice", "select",
        "narrow", "split", "split_with_sizes", "chunk", "unbind", "getitem", "expand", "clone",
        "contiguous", "alias", "detach", "dropout", "to", "pad", "constant_pad_nd",
        "upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle",
    )),
    joins_share=False,
    integer=None,
)  # fmt: skip

QUANTIZERS: Mapping[QuantizerName, Quantizer] = {q.name: q for q in (XNNPACK, AI_EDGE)}


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """The numbers a network is to be stored and computed in.

    Weights: integers of ``weight_bits``, symmetric (-127 to 127 for 8), one scale per output
    channel, the channel's largest magnitude over 127. Activations: int8 with one scale and zero
    point per tensor. Biases are int32 at the product of two scales, which rounds so little that
    it is left out.
    """

    quantizer: Quantizer
    weight_bits: int = 8

    @property
    def largest(self) -> int:
        """The largest integer of a weight."""
        return int(2 ** (self.weight_bits - 1) - 1)


def weight_scales(weight: Tensor, axis: int, rounding: Rounding) -> Tensor:
    """Return the scale ``[C]`` of every output channel, which lies along ``axis``."""
    others = [d for d in range(weight.dim()) if d != axis]
    peaks = weight.detach().abs().amax(dim=others)
    return (peaks / rounding.largest).clamp_min(rounding.quantizer.smallest_scale)


def round_weight(weight: Tensor, axis: int, rounding: Rounding) -> Tensor:
    """Return the weight on its grid, nearest; gradients pass straight through.

    Bengio, Leonard, Courville, "Estimating or propagating gradients through stochastic neurons",
    2013: rounding has no useful gradient, so that of the identity stands in for it.
    """
    scales = weight_scales(weight, axis, rounding)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    most = rounding.largest
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -most, most)


def activation_grid(low: Tensor, high: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Return scale and zero point for values from ``low`` to ``high``; zero is always exact.

    Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", 2018, section 3.
    """
    low, high = low.clamp_max(0.0), high.clamp_min(0.0)
    scale = ((high - low) / (INT8_HIGHEST - INT8_LOWEST)).clamp_min(quantizer.smallest_scale)
    zero_point = (INT8_LOWEST - torch.round(low / scale)).clamp(INT8_LOWEST, INT8_HIGHEST)
    return scale, zero_point.to(torch.int32)


def round_activation(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return the values on that grid; gradients pass where nothing was cut off."""
    ends = INT8_LOWEST, INT8_HIGHEST
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, *ends)
