"""Coefficients as one vector of logarithms: what a fit moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgesdk.cost.coefficients import OPTIONAL_CLASSES, Coefficients
from edgesdk.cost.features import Floats
from edgesdk.cost.kernel_class import CLASS_INDEX, KERNEL_CLASSES
from edgesdk.precision_cost import KernelClass, KernelCost, KernelVariant, PrecisionCost
from edgesdk.quantity import Evidence, Quantity

CLASSES = len(KERNEL_CLASSES) + 1
"""Each class, then the default that stands for classes without coefficients of their own."""

MAC, BYTE, DISPATCH, WEIGHT = range(4)
WEIGHT_AT, INFERENCE_AT = 3 * CLASSES, 3 * CLASSES + 1
LENGTH = 3 * CLASSES + 2
KIND: NDArray[np.int64] = np.repeat([MAC, BYTE, DISPATCH, WEIGHT, DISPATCH], [*3 * [CLASSES], 1, 1])
"""Which of four rates each entry of a vector belongs to."""

_LEAST_OVERHEAD_S = 1e-9  # stands for an overhead of zero, which has no logarithm


def log_coefficients(cost: PrecisionCost) -> Floats:
    """Return the logarithms of a profile's seconds per unit of work, ``[LENGTH]``."""
    found = Coefficients.of(cost)
    default = (1 / cost.mac_per_s.value, 1 / cost.bytes_per_s.value, cost.op_overhead_s.value)
    columns = [
        np.append(column[:-1], last)
        for column, last in zip((found.mac_s, found.byte_s, found.dispatch_s), default, strict=True)
    ]
    weight_s = 1 / cost.bytes_per_s.value if found.weight_byte_s is None else found.weight_byte_s
    seconds = np.concatenate([*columns, [weight_s, found.inference_s]])
    logs: Floats = np.log(np.maximum(seconds, np.where(KIND == DISPATCH, _LEAST_OVERHEAD_S, 0.0)))
    return logs


def priced_classes(cost: PrecisionCost) -> NDArray[np.bool_]:
    """Return which classes cost anything in a profile, ``[CLASSES]``."""
    return Coefficients.of(cost).priced


def precision_cost(
    logs: Floats,
    seen: frozenset[KernelClass],
    *,
    error_factor: float,
    median_error: float,
    networks: int,
    source: str,
    kind: Evidence,
) -> PrecisionCost:
    """Return the profile's entry for a fitted vector; ``seen`` are the classes to state."""

    def fitted(value: float) -> Quantity:
        return Quantity(value=float(f"{value:.4g}"), source=source, kind=kind)

    seconds = np.exp(logs)
    table = seconds[: 3 * CLASSES].reshape(3, CLASSES)
    kernels: dict[KernelClass | KernelVariant, KernelCost] = {
        name: KernelCost(
            mac_per_s=None if name not in _WITH_MACS else fitted(1 / table[MAC, index]),
            bytes_per_s=fitted(1 / table[BYTE, index]),
            op_overhead_s=None if name in _BOUNDARY else fitted(table[DISPATCH, index]),
        )
        for name, index in CLASS_INDEX.items()
        if name in seen
    }
    return PrecisionCost(
        mac_per_s=fitted(1 / table[MAC, -1]),
        bytes_per_s=fitted(1 / table[BYTE, -1]),
        op_overhead_s=fitted(table[DISPATCH, -1]),
        inference_overhead_s=fitted(seconds[INFERENCE_AT]),
        error_factor=fitted(error_factor),
        weight_bytes_per_s=fitted(1 / seconds[WEIGHT_AT]),
        median_error=fitted(median_error),
        networks=networks,
        kernels=kernels,
    )


_BOUNDARY = frozenset(OPTIONAL_CLASSES[1:])
_WITH_MACS = frozenset(KERNEL_CLASSES[: CLASS_INDEX["elementwise"]])
