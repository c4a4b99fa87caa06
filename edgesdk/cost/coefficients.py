"""A profile's coefficients as arrays over the classes of kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.features import Floats, KernelTable
from edgesdk.cost.kernel_class import CLASS_INDEX, KERNEL_CLASSES, KERNEL_VARIANTS, class_of_variant
from edgesdk.precision_cost import KernelClass, KernelCost, KernelVariant, PrecisionCost
from edgesdk.quantity import Quantity

OPTIONAL_CLASSES: tuple[KernelClass, ...] = ("reshape", "input", "output")
"""Classes that cost nothing where a profile does not state them."""

_NOTHING = KernelCost()
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Seconds per MAC, byte, dispatch, patch and output, each ``[C + 1]``, and what all share.

    The last entry is what an operator of no class costs: as much as the dearest class, since
    nobody knows. ``variants`` holds the same five numbers for each variant that has its own.
    ``channel_tile`` is how many output channels are computed at once, 1 where that is not stated.
    ``miss_byte_s`` is what a byte of weights beyond ``cache_bytes`` costs on top.
    ``weight_byte_s`` is None where weights and activations share one memory.
    """

    mac_s: Floats
    byte_s: Floats
    dispatch_s: Floats
    patch_s: Floats
    output_s: Floats
    variants: Mapping[KernelVariant, Floats]
    weight_byte_s: float | None
    channel_tile: float
    cache_bytes: float
    miss_byte_s: float
    inference_s: float
    priced: NDArray[np.bool_]

    @classmethod
    def of(cls, cost: PrecisionCost) -> Coefficients:
        """Return the coefficients that a profile states."""
        table = np.array([_seconds(cost, name) for name in KERNEL_CLASSES])
        dearest = table[: CLASS_INDEX[OPTIONAL_CLASSES[0]]].max(axis=0)
        table = np.vstack([table, dearest])
        priced = [name not in OPTIONAL_CLASSES or name in cost.kernels for name in KERNEL_CLASSES]
        weights, misses = cost.weight_bytes_per_s, cost.cache_miss_bytes_per_s
        return cls(
            mac_s=table[:, 0],
            byte_s=table[:, 1],
            dispatch_s=table[:, 2],
            patch_s=table[:, 3],
            output_s=table[:, 4],
            variants={
                name: np.array(_variant_seconds(cost, name))
                for name in KERNEL_VARIANTS
                if name in cost.kernels
            },
            weight_byte_s=None if weights is None else 1 / weights.value,
            channel_tile=1.0 if cost.channel_tile is None else cost.channel_tile.value,
            cache_bytes=math.inf if cost.cache_bytes is None else cost.cache_bytes.value,
            miss_byte_s=0.0 if misses is None else 1 / misses.value,
            inference_s=cost.inference_overhead_s.value,
            priced=np.array([*priced, True]),
        )

    def rates(self, table: KernelTable) -> Floats:
        """Return what each kernel pays per MAC, byte, dispatch, patch and output, ``[5, K]``."""
        columns = (self.mac_s, self.byte_s, self.dispatch_s, self.patch_s, self.output_s)
        found: Floats = np.stack([column[table.classes] for column in columns])
        if self.variants:
            for index, name in enumerate(table.variants):
                if name is not None and name in self.variants:
                    found[:, index] = self.variants[name]
        return found


@dataclass(frozen=True, kw_only=True)
class KernelSeconds:
    """What kernels take, ``[K]`` or ``[N, K]``, in parts and together.

    Arithmetic, memory, dispatch, and fetching weights that were displaced from the cache.
    """

    compute: Floats
    memory: Floats
    dispatch: Floats
    misses: Floats

    @property
    def total(self) -> Floats:
        """Seconds of each kernel: the slower of arithmetic and memory, dispatch and misses."""
        slower: Floats = np.maximum(self.compute, self.memory) + self.dispatch + self.misses
        return slower


def kernel_seconds(
    table: KernelTable,
    found: Coefficients,
    *,
    inputs: Floats | float = 1.0,
    outputs: Floats | float = 1.0,
) -> KernelSeconds:
    """Return what each kernel takes; ``inputs`` and ``outputs`` scale its channels.

    Scales are shares of each kernel's input and output channels, ``[K]`` or ``[N, K]`` for N
    variants of the graph. Depthwise convolutions and operators without weights of their own do as
    many MACs as they have outputs; all others inputs times outputs.
    """
    counted = found.priced[table.classes]
    mac_s, byte_s, dispatch_s, patch_s, output_s = found.rates(table)
    diagonal = np.isin(table.classes, [CLASS_INDEX[name] for name in ("depthwise", "elementwise")])
    work = np.where(diagonal, outputs, np.multiply(inputs, outputs))
    padded = padded_share(table.widths, found.channel_tile, outputs)
    compute = mac_s * table.macs * np.where(diagonal, padded, np.multiply(inputs, padded))
    compute = compute + patch_s * table.patches * inputs + output_s * table.outputs * outputs
    moved = table.read_bytes * inputs + table.written_bytes * outputs
    if found.weight_byte_s is None:
        memory = (moved + table.weight_bytes * work) * byte_s
    else:
        streamed = found.weight_byte_s * table.weight_bytes * work
        memory = np.maximum(moved * byte_s, streamed)
    dispatch = dispatch_s * table.dispatches
    weights = np.broadcast_to(table.weight_bytes * work, compute.shape)
    displaced = displaced_share(weights.sum(axis=-1, keepdims=True), found.cache_bytes)
    return KernelSeconds(
        compute=np.where(counted, compute, 0.0),
        memory=np.where(counted, memory, 0.0),
        dispatch=np.broadcast_to(np.where(counted, dispatch, 0.0), compute.shape),
        misses=weights * displaced * found.miss_byte_s,
    )


def padded_share(widths: Floats, tile: float, outputs: Floats | float = 1.0) -> Floats | float:
    """Return the share of the output channels that are computed: those left, in whole tiles.

    Above 1 where even all of them do not fill their tiles.
    """
    if tile <= 1:
        return outputs
    known = np.maximum(widths, 1.0)
    # Shares of channels are rarely exact: 3/7 of 7 channels are 3, not a little more.
    whole = np.ceil(known * outputs / tile - _ROUNDING) * tile
    share: Floats = np.where(widths > 0, whole / known, outputs)
    return share


def displaced_share(weight_bytes: Floats, cache_bytes: float) -> Floats:
    """Return which share of a network's weights the cache has lost when they are needed again.

    Weights are read in a circle, inference after inference, which is what a cache that drops the
    least recently used line is worst at: a circle of twice its size leaves nothing.
    """
    share: Floats = np.clip(weight_bytes / cache_bytes - 1, 0.0, 1.0)
    return share


_Five = tuple[float, float, float, float, float]


def _seconds(cost: PrecisionCost, name: KernelClass) -> _Five:
    shared = (1 / cost.mac_per_s.value, 1 / cost.bytes_per_s.value, cost.op_overhead_s.value, 0, 0)
    return _own(cost.kernels.get(name, _NOTHING), shared)


def _variant_seconds(cost: PrecisionCost, name: KernelVariant) -> _Five:
    return _own(cost.kernels[name], _seconds(cost, class_of_variant(name)))


def _own(own: KernelCost, default: _Five) -> _Five:
    """Return what these kernels state, and the default for what they do not."""
    mac_s, byte_s, dispatch_s, patch_s, output_s = default
    return (
        mac_s if own.mac_per_s is None else 1 / own.mac_per_s.value,
        byte_s if own.bytes_per_s is None else 1 / own.bytes_per_s.value,
        _stated(own.op_overhead_s, dispatch_s),
        _stated(own.patch_s, patch_s),
        _stated(own.output_s, output_s),
    )


def _stated(own: Quantity | None, default: float) -> float:
    return default if own is None else own.value
