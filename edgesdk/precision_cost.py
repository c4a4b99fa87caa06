"""What one precision costs on one unit under one runtime: the coefficients of the latency model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from edgesdk.quantity import Quantity

KernelClass = Literal[
    "conv", "depthwise", "linear", "matmul", "elementwise", "reduction", "movement"
]
"""Kernels that hardware runs alike: dense convolutions; convolutions of few channels a group;
linear layers (weights); products of activations; arithmetic on elements; normalisation, softmax
and pooling; kernels that only move bytes."""


@dataclass(frozen=True, kw_only=True)
class KernelCost:
    """Roofline coefficients of one class of kernels, where they differ from the others."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    mac_per_s: Quantity
    bytes_per_s: Quantity
    op_overhead_s: Quantity


@dataclass(frozen=True, kw_only=True)
class PrecisionCost:
    """Roofline coefficients of one precision on one unit under one runtime.

    An operator takes ``max(MACs / mac_per_s, bytes / bytes_per_s) + op_overhead_s``; an inference
    adds ``inference_overhead_s``. ``error_factor`` bounds nine predictions in ten within
    ``[t / error_factor, t * error_factor]``. ``kernels`` holds what differs for a class of kernels;
    a class that is absent there costs what the other fields say.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    mac_per_s: Quantity
    bytes_per_s: Quantity
    op_overhead_s: Quantity
    inference_overhead_s: Quantity
    error_factor: Quantity
    kernels: Mapping[KernelClass, KernelCost] = field(default_factory=dict)
