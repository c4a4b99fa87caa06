"""Layer by layer: what the original costs, what the artifact costs, and what the change loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from edgesdk.scheme import Scheme


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer of a network costs on the device, by the cost model.

    ``width`` is its output channels, None where it has no weights that make channels.
    ``weight_bits`` is the width of a stored weight, ``weight_bytes`` weights and biases together;
    ``activation_bytes`` is what the layer writes. All operators of the layer count together.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    width: int | None
    weight_bits: int
    macs: int
    weight_bytes: float
    activation_bytes: float
    predicted_ms: float


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """One layer before and after, in order of execution; None where a network does not have it.

    ``kinds`` are its operators. ``expected_loss`` is what narrowing the group that this layer names
    was expected to lose before recovery, removing the block that it is the first layer of, or
    splitting it (whose ``after`` is then the two layers' together), in the unit of the plan's
    reasons; None where nothing was taken, or where a replayed plan was not measured anew.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    layer: str
    kinds: tuple[str, ...]
    before: LayerCost | None
    after: LayerCost | None
    expected_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerChanges:
    """Every layer that costs something, before (the float baseline) and after (the artifact).

    ``overhead_ms_*`` is what an inference costs before its first operator; with it the layers add
    up to the cost model's latency. ``format_loss`` is what the precision alone was expected to
    lose, over the whole network; None where it was not measured.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    scheme_before: Scheme
    scheme_after: Scheme
    overhead_ms_before: float
    overhead_ms_after: float
    layers: tuple[LayerChange, ...]
    format_loss: float | None = None
    schema_version: Literal[1] = 1
