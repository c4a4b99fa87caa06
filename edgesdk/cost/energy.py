"""Energy of an inference: the power a board draws while it computes, times the latency.

MLPerf Tiny publishes microjoules for each inference beside its latency. Their ratio, the power, is
nearly the same for all networks on one board, since an inference keeps core and memories busy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgesdk.cost.fit import interval_factor
from edgesdk.cost.published import Row
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.figure import Figure
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme

LEAST_ROWS = 3
"""Rows with energy that a board's power needs."""


def predict_energy(latency: Figure, cost: PrecisionCost) -> Figure | None:
    """Return the millijoules of one inference, or None where nobody has measured the power.

    The intervals of latency (ms) and power (W) combine as independent factors: in quadrature, as
    logarithms.
    """
    if cost.power_w is None or cost.power_error_factor is None:
        return None
    energy_mj = latency.value * cost.power_w.value
    spread = math.hypot(math.log(latency.upper / latency.value), _log(cost.power_error_factor))
    return Figure(
        value=energy_mj,
        standing="predicted",
        low=energy_mj / math.exp(spread),
        high=energy_mj * math.exp(spread),
        source=f"predicted latency at {cost.power_w.value:.3g} W",
    )


def with_power(profile: DeviceProfile, rows: Sequence[Row], *, source: str) -> DeviceProfile:
    """Return the profile with the power that its rows with energy show; unchanged without any."""
    runtimes = tuple(_runtime_with_power(item, rows, source) for item in profile.runtime)
    return replace(profile, runtime=runtimes)


def powers_w(runtime: Runtime, scheme: Scheme, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return the watts of each network that somebody metered on the runtime's device."""
    names = {
        (item.device, item.runtime, item.precision)
        for item in runtime.evidence
        if item.scheme == scheme
    }
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.energy_j is not None and (row.device, row.runtime, row.precision) in names:
            found.setdefault(row.model, []).append(row.energy_j / row.seconds)
    return found


def left_out_errors(powers: dict[str, list[float]]) -> list[float]:
    """Return |log(predicted / metered)| of each row, the power being that of the other networks."""
    errors = []
    for model, values in powers.items():
        others = [value for name, kept in powers.items() if name != model for value in kept]
        if others:
            errors += [abs(math.log(float(np.median(others)) / value)) for value in values]
    return errors


def _runtime_with_power(runtime: Runtime, rows: Sequence[Row], source: str) -> Runtime:
    costs = dict(runtime.precisions)
    for scheme, cost in runtime.precisions.items():
        powers = powers_w(runtime, scheme, rows)
        metered = [value for values in powers.values() for value in values]
        errors = left_out_errors(powers)
        if len(metered) < LEAST_ROWS or len(errors) < LEAST_ROWS:
            continue
        note = f"energy over latency, {len(metered)} rows of {len(powers)} networks; {source}"
        costs[scheme] = replace(
            cost,
            power_w=_fitted(float(np.median(metered)), note),
            power_error_factor=_fitted(interval_factor(errors), note),
        )
    return replace(runtime, precisions=costs)


def _fitted(value: float, source: str) -> Quantity:
    return Quantity(value=float(f"{value:.4g}"), source=source, kind="fitted")


def _log(factor: Quantity) -> float:
    return math.log(factor.value)
