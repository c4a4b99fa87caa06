"""A compressed model: the float module, its precisions and what a target needs to quantize it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgesdk.scheme import Scheme
from edgesdk.task import InputSpec, OutputSpec, Tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedModel:
    """What ``Target.emit`` turns into a file; quantization happens inside ``emit``.

    ``module`` is pruned and recovered, in float32, on the CPU, in eval mode; ``scheme`` is how
    the target stores and computes it. ``calibration`` holds batches like the deployed inputs,
    one tuple of ``[N, ...]`` tensors each (any N), and is never empty when the scheme needs it.
    ``inputs`` and ``outputs`` hold exactly one spec per tensor.
    """

    module: nn.Module
    example_inputs: Tensors
    scheme: Scheme
    calibration: tuple[Tensors, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
