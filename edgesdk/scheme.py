"""Number formats a network can be stored and computed in, named as the field names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Scheme = Literal[
    "fp32", "fp16", "int8", "w8a16", "int8_dynamic", "int4_dynamic", "w8", "w4",
    "lut8", "lut6", "lut4", "w8_sparse50", "lut4_sparse50",
]  # fmt: skip
"""How a network, or one layer of it, is stored and computed.

- ``fp32``: weights and activations in float32.
- ``fp16``: both in float16 (a target may store float16 and compute wider where the unit does).
- ``int8``: static post-training quantization: symmetric int8 weights with one scale per output
  channel, int8 activations with ranges from calibration data, int32 biases. 4x smaller, and faster
  wherever the unit multiplies int8 faster than float.
- ``w8a16``: the same weights, int16 activations that are symmetric around zero, int64 biases
  (TensorFlow Lite's "16x8"). Static as ``int8``; a quarter of its noise and less for twice its
  activations, where int8 between layers costs too much and there is no float unit to speak of.
- ``int8_dynamic``: the same weights; each layer rounds what it reads to int8 with the range found
  at run time, multiplies in int8 and gives float. Needs no calibration data, follows activations
  that vary a lot (transformers), and is slower than ``int8`` by the search for the range.
- ``int4_dynamic``: as ``int8_dynamic`` with symmetric int4 weights, one scale per 32 inputs of each
  output channel ("8da4w" in torchao, "dynamic_wi4_afp32" with blocks of 32 in ai-edge-quantizer).
  An eighth of the bytes, for layers that wait for their weights more than they multiply.
- ``w8``: int8 weights per output channel, decoded to float where they are used; nothing else is
  rounded ("weight-only"). A quarter of the bytes, at float's speed where arithmetic bounds it.
- ``w4``: as ``w8`` with int4 weights, one scale per 32 inputs of each output channel.
- ``lut8``, ``lut6``, ``lut4``: weights of that many bits that are places in a table, one table of
  256, 64 or 16 float16 values for each layer, found by k-means ("palettised");
  decoded to float where they are used, as ``w8``. The only weights below eight bits that systems
  older than iOS 18 decode.
- ``w8_sparse50``, ``lut4_sparse50``: half the weights of each output channel, the smallest, are
  zero and not stored; a bit for each weight tells which, and the others are as in ``w8`` or
  ``lut4`` ("joint sparsity"). For weights that were trained to have zeros: others lose more than in
  a table of as many bytes."""

SCHEMES: tuple[Scheme, ...] = (
    "fp32", "fp16", "int8", "w8a16", "int8_dynamic", "int4_dynamic", "w8", "w4",
    "lut8", "lut6", "lut4", "w8_sparse50", "lut4_sparse50",
)  # fmt: skip

WEIGHT_BYTES: Mapping[Scheme, float] = {
    "fp32": 4.0, "fp16": 2.0, "int8": 1.0, "w8a16": 1.0, "int8_dynamic": 1.0, "int4_dynamic": 0.5,
    "w8": 1.0, "w4": 0.5, "lut8": 1.0, "lut6": 0.75, "lut4": 0.5,
    "w8_sparse50": 0.625, "lut4_sparse50": 0.375,
}  # fmt: skip
"""Bytes of one weight, with its bit of a mask; the scales or the table beside them are what a
container adds."""

ACTIVATION_BYTES: Mapping[Scheme, float] = {
    "fp32": 4.0, "fp16": 2.0, "int8": 1.0, "w8a16": 2.0, "int8_dynamic": 4.0, "int4_dynamic": 4.0,
    "w8": 2.0, "w4": 2.0, "lut8": 2.0, "lut6": 2.0, "lut4": 2.0,
    "w8_sparse50": 2.0, "lut4_sparse50": 2.0,
}  # fmt: skip
"""Bytes of one value between two layers."""

QuantizerName = Literal["XNNPACK", "ai-edge-quantizer"]
"""Whose rules decide where int8 rounds to; the rules are in ``edgesdk/compress/rounding.py``."""

FLOAT_SCHEMES: tuple[Scheme, ...] = ("fp32", "fp16")
"""What a baseline can be emitted in."""

CALIBRATED_SCHEMES: tuple[Scheme, ...] = ("int8", "w8a16")
"""What needs calibration data: integers throughout, with ranges found beforehand."""

DYNAMIC_SCHEMES: tuple[Scheme, ...] = ("int8_dynamic", "int4_dynamic")
"""What rounds a layer's inputs to int8 with a range found at run time."""

INT4_SCHEMES: tuple[Scheme, ...] = ("int4_dynamic", "w4")

PALETTE_BITS: Mapping[Scheme, int] = {"lut8": 8, "lut6": 6, "lut4": 4, "lut4_sparse50": 4}
"""Bits of a place in the table, of schemes whose weights are such."""

KEPT_AS: Mapping[Scheme, Scheme] = {"w8_sparse50": "w8", "lut4_sparse50": "lut4"}
"""Schemes of which half the weights are zero, and what the others are stored as."""

WEIGHT_ONLY_SCHEMES: tuple[Scheme, ...] = ("w8", "w4", *PALETTE_BITS, "w8_sparse50")
"""What stores narrow weights and computes in float."""

COARSE_SCHEMES: tuple[Scheme, ...] = (*INT4_SCHEMES, "lut4", *KEPT_AS)
"""What may round so much that outputs alone do not tell a right file from a wrong one."""

GROUP_SIZE = 32
"""Inputs that share a scale where weights are int4: XNNPACK takes multiples of 32 alone."""

_COARSENESS: tuple[Scheme, ...] = (
    "fp32", "fp16", "w8", "lut8", "w8a16", "int8_dynamic", "int8", "lut6", "w4", "int4_dynamic",
    "lut4", "w8_sparse50", "lut4_sparse50",
)  # fmt: skip


def coarsest(schemes: Iterable[Scheme]) -> Scheme:
    """Return the scheme that rounds most, which is what a network's noise is judged by."""
    return max(schemes, key=_COARSENESS.index)
