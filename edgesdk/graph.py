"""What a model computes: operators with shapes, multiply-accumulates, bytes and layer names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

TensorRole = Literal["input", "parameter", "activation", "output"]
Attribute = int | float | bool | str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """A tensor's identity: its shape, element type ("float32", "int64", ...) and role."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: TensorRole

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operator in execution order.

    ``kind`` is the operator's plain name ("conv2d", "linear", "add", "relu", "max_pool2d", ...);
    ``inputs``, ``parameters`` and ``outputs`` name tensors of the graph; ``layer`` is the module
    path it came from (empty for functional code in ``forward``); ``attributes`` hold what the
    shapes do not say (stride, groups, kernel...). ``macs`` counts multiply-accumulates, one per
    multiplication of a weight or of two activations.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    kind: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int
    layer: str
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, kw_only=True)
class OpGraph:
    """Operators in execution order over named tensors; ``model`` names what was traced."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str
    ops: tuple[Op, ...]
    tensors: Mapping[str, TensorInfo]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference at the traced batch."""
        return sum(op.macs for op in self.ops)

    @property
    def parameters(self) -> int:
        """Number of weights that some operator uses, each counted once."""
        used = {name for op in self.ops for name in op.parameters}
        return sum(self.tensors[name].elements for name in used)

    def elements(self, names: tuple[str, ...]) -> int:
        """Return the number of elements of those tensors together."""
        return sum(self.tensors[name].elements for name in names)
