import math

import pytest
from cost_graphs import conv_chain, make_device, make_runtime
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cost.calibration import LEAST_ERROR_FACTOR, calibrate
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.errors import MeasurementError, ProfileError, UsageError


def predicted_ms(device: DeviceProfile, scheme: str = "fp32") -> float:
    runtime = device.runtime_for("tflite")
    return predict_latency(conv_chain(), runtime, scheme).total.value  # type: ignore[arg-type]


def test_predictions_scale_by_the_median_ratio() -> None:
    device = make_device()
    calibrated = calibrate(device, "tflite", "fp32", [(1.0, 2.0), (1.0, 3.0), (2.0, 8.0)])
    assert predicted_ms(calibrated) == pytest.approx(3 * predicted_ms(device))


def test_nothing_else_changes() -> None:
    other = make_runtime(target="executorch")
    device = make_device(make_runtime(), other)
    calibrated = calibrate(device, "tflite", "fp32", [(1.0, 2.0)])
    assert calibrated.runtime[1] == other
    assert predicted_ms(calibrated, "int8") == predicted_ms(device, "int8")
    assert device == make_device(make_runtime(), other), "the profile that came in stays"


def test_error_factor_follows_the_spread() -> None:
    device = make_device(make_runtime(error=4.0))
    calibrated = calibrate(device, "tflite", "fp32", [(1.0, 1.0), (1.0, 2.0), (1.0, 6.0)])
    cost = calibrated.runtime[0].precisions["fp32"]
    assert cost.error_factor.value == pytest.approx(3.0)
    assert cost.error_factor.kind == "fitted"


def test_few_measurements_do_not_make_it_sure() -> None:
    device = make_device(make_runtime(error=4.0))

    def factor(count: int) -> float:
        calibrated = calibrate(device, "tflite", "fp32", [(1.0, 2.0)] * count)
        return calibrated.runtime[0].precisions["fp32"].error_factor.value

    assert factor(1) == pytest.approx(2.0)
    assert factor(3) == pytest.approx(math.sqrt(2))
    assert factor(1000) == LEAST_ERROR_FACTOR


def test_sources_say_what_happened_and_do_not_pile_up() -> None:
    once = calibrate(make_device(), "tflite", "fp32", [(1.0, 2.0)])
    twice = calibrate(once, "tflite", "fp32", [(1.0, 1.5), (1.0, 1.5)])
    rate = twice.runtime[0].precisions["fp32"].mac_per_s
    assert rate.kind == "fitted"
    assert rate.source == "scaled by 1.5 to 2 measurement(s) on the device; before: a test"


@pytest.mark.parametrize("pair", [(1.0, 0.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_impossible_latencies(pair: tuple[float, float]) -> None:
    with pytest.raises(MeasurementError, match="cannot be"):
        calibrate(make_device(), "tflite", "fp32", [(1.0, 1.0), pair])


def test_no_measurement() -> None:
    with pytest.raises(MeasurementError, match="no measurement of bench"):
        calibrate(make_device(), "tflite", "fp32", [])


def test_unknown_target_or_scheme() -> None:
    with pytest.raises(ProfileError, match="no runtime for target 'coreml'"):
        calibrate(make_device(), "coreml", "fp32", [(1.0, 1.0)])
    with pytest.raises(UsageError, match="does not compute fp16"):
        calibrate(make_device(), "tflite", "fp16", [(1.0, 1.0)])


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8))
def test_every_measurement_lies_in_the_interval(measured: list[float]) -> None:
    calibrated = calibrate(make_device(), "tflite", "fp32", [(1.0, value) for value in measured])
    cost = calibrated.runtime[0].precisions["fp32"]
    scale = make_device().runtime[0].precisions["fp32"].mac_per_s.value / cost.mac_per_s.value
    factor = cost.error_factor.value * (1 + 1e-9)
    assert all(scale / factor <= value <= scale * factor for value in measured)
