"""Calibration: a device profile corrected by what was measured on the device."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from edgesdk.cost.latency import cost_of
from edgesdk.device import DeviceProfile
from edgesdk.errors import MeasurementError
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme

LEAST_ERROR_FACTOR = 1.15
"""However well a few measurements agree: medians of one artifact in twelve fresh processes of a
quiet machine lay within a factor of 1.08 of each other, and another network is another matter."""

_BEFORE = "; before: "


def calibrate(
    device: DeviceProfile, target: str, scheme: Scheme, pairs: Sequence[tuple[float, float]]
) -> DeviceProfile:
    """Return a new profile that agrees with ``(predicted_ms, measured_ms)`` pairs of a target.

    All four coefficients of that runtime and scheme are scaled by the median of measured over
    predicted, so every prediction scales by it. The error factor is the largest ratio left beside
    the median, but at least what ``LEAST_ERROR_FACTOR`` says and what few measurements can prove:
    the profile's own factor ``f`` shrinks to ``f ** (1 / (n + 1))`` after ``n`` of them (each one
    weighs as much as the profile did). Everything else in the profile stays.

    Raises ``MeasurementError`` without pairs or for a latency that is not a positive number.
    """
    if not pairs:
        raise MeasurementError(
            f"no measurement of {device.name} to calibrate with", expected="one or more"
        )
    for predicted_ms, measured_ms in pairs:
        _check_latency("predicted", predicted_ms)
        _check_latency("measured", measured_ms)
    runtime = device.runtime_for(target)
    cost = _scaled(cost_of(runtime, scheme), [measured / given for given, measured in pairs])
    calibrated = replace(runtime, precisions={**runtime.precisions, scheme: cost})
    runtimes = tuple(calibrated if item is runtime else item for item in device.runtime)
    return replace(device, runtime=runtimes)


def _check_latency(name: str, value_ms: float) -> None:
    if not math.isfinite(value_ms) or value_ms <= 0:
        raise MeasurementError(
            f"a {name} latency of {value_ms} ms cannot be",
            expected="a positive number of milliseconds",
        )


def _scaled(cost: PrecisionCost, ratios: Sequence[float]) -> PrecisionCost:
    ratio = statistics.median(ratios)
    spread = max(max(item / ratio, ratio / item) for item in ratios)
    shrunk = cost.error_factor.value ** (1 / (len(ratios) + 1))
    note = f"scaled by {ratio:.4g} to {len(ratios)} measurement(s) on the device"
    return PrecisionCost(
        mac_per_s=_fitted(cost.mac_per_s, 1 / ratio, note),
        bytes_per_s=_fitted(cost.bytes_per_s, 1 / ratio, note),
        op_overhead_s=_fitted(cost.op_overhead_s, ratio, note),
        inference_overhead_s=_fitted(cost.inference_overhead_s, ratio, note),
        error_factor=Quantity(
            value=max(spread, shrunk, LEAST_ERROR_FACTOR),
            source=f"spread of {len(ratios)} measurement(s) on the device",
            kind="fitted",
        ),
    )


def _fitted(quantity: Quantity, factor: float, note: str) -> Quantity:
    origin = quantity.source.rsplit(_BEFORE, 1)[-1]
    return Quantity(value=quantity.value * factor, source=f"{note}{_BEFORE}{origin}", kind="fitted")
