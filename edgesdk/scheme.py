"""Number formats a network can be stored and computed in, named as the field names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Scheme = Literal["fp32", "fp16", "int8"]
"""``fp32``: weights and activations in float32. ``fp16``: both in float16 (a target may store
float16 and compute wider where the unit does). ``int8``: static post-training quantization,
symmetric per-channel int8 weights, per-tensor int8 activations with calibrated ranges, int32
biases; 4x smaller, and faster wherever the unit multiplies int8 faster than float."""

QuantizerName = Literal["XNNPACK", "ai-edge-quantizer"]
"""Whose rules decide where int8 rounds to; the rules are in ``edgesdk/compress/rounding.py``."""

SCHEMES: tuple[Scheme, ...] = ("fp32", "fp16", "int8")

WEIGHT_BYTES: Mapping[Scheme, float] = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0}
ACTIVATION_BYTES: Mapping[Scheme, float] = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0}

FLOAT_SCHEMES: tuple[Scheme, ...] = ("fp32", "fp16")
