from dataclasses import replace

import pytest
from cost_graphs import make_device, make_runtime, precision, quantity

from edgesdk.cost.energy import predict_energy, with_power
from edgesdk.cost.published import Row
from edgesdk.evidence import Evidence
from edgesdk.figure import predicted

EVIDENCE = Evidence(device="BENCH", runtime="any", precision="int8", scheme="int8")


def row(model: str, seconds: float, energy_j: float | None) -> Row:
    return Row(
        device="BENCH",
        runtime="any",
        precision="int8",
        model=model,
        seconds=seconds,
        energy_j=energy_j,
        source="a bench",
    )


def test_energy_is_latency_at_the_power_and_both_intervals_count() -> None:
    cost = replace(precision(), power_w=quantity(0.2), power_error_factor=quantity(1.2))
    energy = predict_energy(predicted(10.0, error_factor=1.5, source=""), cost)
    assert energy is not None
    assert energy.value == pytest.approx(2.0)
    assert energy.low is not None
    assert energy.high is not None
    assert energy.high / energy.value == pytest.approx(energy.value / energy.low)
    assert 1.5 < energy.high / energy.value < 1.5 * 1.2


def test_no_energy_where_nobody_measured() -> None:
    assert predict_energy(predicted(10.0, error_factor=1.5, source=""), precision()) is None


def test_power_comes_from_the_rows_with_energy() -> None:
    profile = make_device(replace(make_runtime(), evidence=(EVIDENCE,)))
    rows = [row("a", 0.01, 1e-3), row("b", 0.1, 1.1e-2), row("c", 0.02, 2e-3), row("d", 1, None)]
    costs = with_power(profile, rows, source="a bench").runtime[0].precisions
    assert costs["int8"].power_w is not None
    assert costs["int8"].power_w.value == pytest.approx(0.1)
    assert costs["int8"].power_error_factor is not None
    assert costs["int8"].power_error_factor.value == pytest.approx(1.1)
    assert costs["fp32"].power_w is None


def test_too_few_rows_leave_the_profile_as_it_is() -> None:
    profile = make_device(replace(make_runtime(), evidence=(EVIDENCE,)))
    assert with_power(profile, [row("a", 0.01, 1e-3)], source="a bench") == profile
