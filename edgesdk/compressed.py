"""A compressed model: the float module, its precisions and what a target needs to quantize it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from edgesdk.scheme import Scheme, coarsest
from edgesdk.task import InputSpec, OutputSpec, Tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressedModel:
    """What ``Target.emit`` turns into a file; quantization happens inside ``emit``.

    ``module`` is pruned and recovered, in float32, on the CPU, in eval mode; ``scheme`` is how
    the target stores and computes it, and ``layer_schemes`` names the layers with weights (by
    module path) that it stores otherwise. ``calibration`` holds batches like the deployed inputs,
    one tuple of ``[N, ...]`` tensors each (any N), and is never empty when the scheme needs it.
    ``inputs`` and ``outputs`` hold exactly one spec per tensor.
    """

    module: nn.Module
    example_inputs: Tensors
    scheme: Scheme
    calibration: tuple[Tensors, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    layer_schemes: Mapping[str, Scheme] = field(default_factory=dict)

    @property
    def schemes(self) -> frozenset[Scheme]:
        """Every scheme that is asked for, the network's own and those of single layers."""
        return frozenset({self.scheme, *self.layer_schemes.values()})

    @property
    def coarsest(self) -> Scheme:
        """The scheme that explains the noise of the whole network."""
        return coarsest(self.schemes)

    def samples(self, most: int) -> Tensors:
        """Return up to so many inputs ``[N, ...]``: calibration data, else the examples."""
        columns = zip(*(self.calibration or (self.example_inputs,)), strict=True)
        return tuple(torch.cat(list(column))[:most] for column in columns)

    def scheme_of(self, layer: str) -> Scheme:
        """Return the scheme asked for a layer."""
        return self.layer_schemes.get(layer, self.scheme)
