"""What one precision costs on one unit under one runtime: the coefficients of the latency model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from edgesdk.quantity import Quantity

KernelClass = Literal[
    "conv", "first_conv", "gate_conv", "conv3d", "depthwise", "grouped", "linear", "matmul",
    "recurrent", "elementwise", "norm", "softmax", "pool", "movement", "cat",
    "reshape", "input", "output",
]  # fmt: skip
"""Kernels that hardware runs alike.

Convolutions: dense; of images (at most 4 channels); of one pixel, as squeeze-and-excite has them;
of volumes; of one channel a group; of more. Then layers with weights, products of activations
(attention among them), recurrent layers, arithmetic on elements, normalisation, softmax, pooling
and resampling, copies, concatenation. The last three are no operators of a roofline and cost
nothing where a profile does not state them: reshapes that a unit with a tiled layout has to copy,
and the network's inputs and outputs on their way to the unit and back."""


KernelVariant = Literal[
    "add", "avg_pool2d", "embedding", "gelu", "group_norm", "hardsigmoid", "hardswish",
    "max_pool2d", "mean", "mul", "pad", "relu", "scaled_dot_product_attention", "sigmoid", "silu",
    "softplus", "tanh", "wide_depthwise",
]  # fmt: skip
"""Kernels that some runtime executes very differently from the rest of their class.

Operators by their kind (``relu`` is any clamp that stands alone, ``mean`` any pooling to one
pixel), and depthwise convolutions of more than 25 taps, which XNNPACK has no kernel for."""


@dataclass(frozen=True, kw_only=True)
class KernelCost:
    """Roofline coefficients of some kernels; what is absent costs what the others do.

    ``patch_s`` is added to the arithmetic for every output pixel, kernel tap and block of 64 input
    channels: units that multiply whole tiles take as long for 3 channels as for 64. ``output_s``
    is added for every output element: writing it back, requantizing it. Nothing where absent.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    mac_per_s: Quantity | None = None
    bytes_per_s: Quantity | None = None
    op_overhead_s: Quantity | None = None
    patch_s: Quantity | None = None
    output_s: Quantity | None = None


@dataclass(frozen=True, kw_only=True)
class PrecisionCost:
    """Roofline coefficients of one precision on one unit under one runtime.

    A kernel takes ``max(MACs / mac_per_s, bytes / bytes_per_s) + op_overhead_s``; an inference
    adds ``inference_overhead_s``. Where ``weight_bytes_per_s`` is stated, weights stream from
    memory beside the activations, and a kernel waits for the slowest of the three.

    Where ``cache_bytes`` is stated, the weights of a network of twice that size have been displaced
    whenever they are needed again, and each byte costs ``1 / cache_miss_bytes_per_s`` on top; up to
    ``cache_bytes`` none does, between the two a growing share.

    Where ``channel_tile`` is stated, output channels are computed so many at a time, and a layer's
    last ones take as long as a full tile.

    ``error_factor`` bounds nine predictions in ten within ``[t / error_factor, t *
    error_factor]``; ``median_error`` (a share of the latency) is what half of the predictions
    stay within, for networks that were left out, and ``networks`` is how many there were.
    ``kernels`` holds what differs for a class of kernels, or for a variant in a class; what is
    absent there costs what the class and the other fields say. ``power_w`` is what the board draws
    while it computes, where somebody has measured energy, and ``power_error_factor`` bounds that.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    mac_per_s: Quantity
    bytes_per_s: Quantity
    op_overhead_s: Quantity
    inference_overhead_s: Quantity
    error_factor: Quantity
    weight_bytes_per_s: Quantity | None = None
    channel_tile: Quantity | None = None
    cache_bytes: Quantity | None = None
    cache_miss_bytes_per_s: Quantity | None = None
    median_error: Quantity | None = None
    networks: int | None = None
    power_w: Quantity | None = None
    power_error_factor: Quantity | None = None
    kernels: Mapping[KernelClass | KernelVariant, KernelCost] = field(default_factory=dict)
