"""Calibration: a device profile corrected by what was measured on the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from edgesdk.cost.latency import cost_of
from edgesdk.device import DeviceProfile
from edgesdk.errors import MeasurementError
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme

LEAST_ERROR_FACTOR = 1.15
"""However well a few measurements agree: medians of one artifact in twelve fresh processes of a
quiet machine lay within a factor of 1.08 of each other, and another network is another matter."""

_SCATTER = math.log(1.08)
"""How far one median lies from another of the same artifact (see ``LEAST_ERROR_FACTOR``)."""

_FLOOR_SPREAD = math.log(5)
"""What an inference costs before its first kernel differs this much between machines: it was
0.2 us for LiteRT and 5 us for ExecuTorch on one, and is a copy or a driver's call elsewhere."""

_LEAST_FLOOR_MS = 1e-4
_NINETY_PERCENT = 1.645  # standard deviations that hold nine in ten
_BEFORE = "; before: "

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """``measured = scale * (predicted - floor before) + floor_ms``, floors being per inference."""

    scale: float
    floor_ms: float


def calibrate(
    device: DeviceProfile, target: str, scheme: Scheme, pairs: Sequence[tuple[float, float]], *,
    delegate: str | None = None, estimate_factor: float = 1.0,
) -> DeviceProfile:  # fmt: skip
    """Return a new profile that agrees with ``(predicted_ms, measured_ms)`` pairs of a target.

    They are of its runtime with ``delegate``, without one of its first.

    Two numbers are learned (``Correction``): a scale of everything that grows with the network, and
    the time an inference takes before its first kernel. One measurement moves the scale; several of
    different length tell the two apart. Both are held to the profile's own values as strongly as
    its ``error_factor`` says, so a good profile is not thrown away for one measurement.

    The error factor is the largest ratio left between measured and corrected, but at least what
    ``LEAST_ERROR_FACTOR`` says and what few measurements can prove: the profile's own factor ``f``
    shrinks to ``f ** (1 / (n + 1))`` after ``n`` of them (each one weighs as much as the profile
    did). Everything else in the profile stays. Where a compiler's estimates stand for measurements,
    ``estimate_factor`` is how far those may be off themselves, and the error factor grows by it.

    Raises ``MeasurementError`` without pairs or for a latency that is not a positive number.
    """
    if not pairs:
        raise MeasurementError(
            f"no measurement of {device.name} to calibrate with", expected="one or more"
        )
    for predicted_ms, measured_ms in pairs:
        _check_latency("predicted", predicted_ms)
        _check_latency("measured", measured_ms)
    runtime = device.runtime_for(target, delegate)
    cost = _calibrated(cost_of(runtime, scheme), pairs, estimate_factor)
    calibrated = replace(runtime, precisions={**runtime.precisions, scheme: cost})
    runtimes = tuple(calibrated if item is runtime else item for item in device.runtime)
    return replace(device, runtime=runtimes)


def fit_correction(cost: PrecisionCost, pairs: Sequence[tuple[float, float]]) -> Correction:
    """Return the scale and the floor that make the predictions agree with the measurements.

    Least squares of ``log(corrected / measured)`` with a soft L1 loss, since a disturbed
    measurement lies far off, and Gaussian priors on the logarithms of both numbers around what
    ``cost`` says.
    """
    predicted, measured = np.array(pairs, dtype=np.float64).T
    floor_ms = max(1e3 * cost.inference_overhead_s.value, _LEAST_FLOOR_MS)
    growing = np.maximum(predicted - 1e3 * cost.inference_overhead_s.value, 0.0)
    spread = math.log(max(cost.error_factor.value, LEAST_ERROR_FACTOR)) / _NINETY_PERCENT

    def residuals(logs: Floats) -> Floats:
        scale, floor = np.exp(logs)
        misses = np.log((scale * growing + floor_ms * floor) / measured) / _SCATTER
        # Only the misses are robust: a prior must not be forgiven for being far away.
        robust = np.sign(misses) * np.sqrt(2 * (np.sqrt(1 + misses**2) - 1))
        held: Floats = np.concatenate([robust, logs / (spread, _FLOOR_SPREAD)])
        return held

    ratio = float(np.median(np.log(measured / predicted)))
    starts = (np.array([ratio, 0.0]), np.array([ratio, ratio]), np.array([0.0, ratio]))
    fits = [least_squares(residuals, start) for start in starts]
    scale, floor = np.exp(min(fits, key=lambda fit: fit.cost).x)
    return Correction(scale=float(scale), floor_ms=float(floor_ms * floor))


def _check_latency(name: str, value_ms: float) -> None:
    if not math.isfinite(value_ms) or value_ms <= 0:
        raise MeasurementError(
            f"a {name} latency of {value_ms} ms cannot be",
            expected="a positive number of milliseconds",
        )


def _calibrated(
    cost: PrecisionCost, pairs: Sequence[tuple[float, float]], estimate_factor: float
) -> PrecisionCost:
    correction = fit_correction(cost, pairs)
    growing_ms = [predicted - 1e3 * cost.inference_overhead_s.value for predicted, _ in pairs]
    corrected = [correction.scale * max(ms, 0.0) + correction.floor_ms for ms in growing_ms]
    ratios = [measured / ms for ms, (_, measured) in zip(corrected, pairs, strict=True)]
    spread = max(max(ratio, 1 / ratio) for ratio in ratios)
    shrunk = cost.error_factor.value ** (1 / (len(pairs) + 1))
    what = "measurement(s) on the device" if estimate_factor == 1 else "estimate(s) by the compiler"
    count = f"{len(pairs)} {what}"
    note = f"scaled by {correction.scale:.4g} to {count}"
    scaled: PrecisionCost = _scaled(cost, correction.scale, note)
    return replace(
        scaled,
        inference_overhead_s=Quantity(
            value=correction.floor_ms / 1e3, source=f"from {count}", kind="fitted"
        ),
        error_factor=Quantity(
            value=max(spread, shrunk, LEAST_ERROR_FACTOR) * estimate_factor,
            source=f"spread of {count}",
            kind="fitted",
        ),
    )


def _scaled(value: Any, scale: float, note: str, name: str = "") -> Any:
    """Return a cost with every rate (``_per_s``) divided and every time (``_s``) multiplied."""
    if isinstance(value, Quantity):
        factor = 1 / scale if name.endswith("_per_s") else scale if name.endswith("_s") else None
        if factor is None:
            return value
        origin = value.source.rsplit(_BEFORE, 1)[-1]
        source = f"{note}{_BEFORE}{origin}"
        return Quantity(value=value.value * factor, source=source, kind="fitted")
    if isinstance(value, Mapping):
        return {key: _scaled(item, scale, note) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return replace(value, **{k: _scaled(v, scale, note, k) for k, v in fields.items()})
    return value
