import math
import re
from dataclasses import replace

import pytest
from cost_graphs import conv_chain, make_device, make_runtime
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cost.calibration import LEAST_ERROR_FACTOR, calibrate, fit_correction
from edgesdk.cost.latency import predict_latency
from edgesdk.device import DeviceProfile
from edgesdk.errors import MeasurementError, ProfileError, UsageError
from edgesdk.precision_cost import KernelCost

OVERHEAD_MS = 1e3 * make_runtime().precisions["fp32"].inference_overhead_s.value


def predicted_ms(device: DeviceProfile, scheme: str = "fp32") -> float:
    runtime = device.runtime_for("tflite")
    return predict_latency(conv_chain(), runtime, scheme).total.value  # type: ignore[arg-type]


def test_a_slower_device_is_slower_in_everything_that_grows() -> None:
    device = make_device()
    growing = predicted_ms(device) - OVERHEAD_MS
    pairs = [(OVERHEAD_MS + size, OVERHEAD_MS + 3 * size) for size in (0.5, 2.0, 8.0)]
    calibrated = calibrate(device, "tflite", "fp32", pairs)
    assert predicted_ms(calibrated) == pytest.approx(OVERHEAD_MS + 3 * growing, rel=0.01)


def test_a_floor_that_nobody_predicted_is_learned_from_small_networks() -> None:
    pairs = [(0.02, 0.05), (0.03, 0.06), (0.12, 0.15)]
    cost = calibrate(make_device(), "tflite", "fp32", pairs).runtime[0].precisions["fp32"]
    assert cost.inference_overhead_s.value == pytest.approx(40e-6, rel=0.02)
    before = make_device().runtime[0].precisions["fp32"]
    assert cost.mac_per_s.value == pytest.approx(before.mac_per_s.value, rel=0.02)


def test_estimates_move_the_centre_and_stay_as_uncertain_as_they_are() -> None:
    pairs = [(1.0, 3.0), (2.0, 6.0), (4.0, 12.0)]
    clocked = calibrate(make_device(), "tflite", "fp32", pairs).runtime[0].precisions["fp32"]
    estimated = calibrate(make_device(), "tflite", "fp32", pairs, estimate_factor=2.0)
    cost = estimated.runtime[0].precisions["fp32"]
    assert cost.mac_per_s.value == clocked.mac_per_s.value
    assert cost.error_factor.value == pytest.approx(2 * clocked.error_factor.value)
    assert "measurement" not in cost.mac_per_s.source.partition("; before")[0]


def test_one_measurement_of_a_large_network_says_nothing_of_the_floor() -> None:
    cost = calibrate(make_device(), "tflite", "fp32", [(5.0, 10.0)]).runtime[0].precisions["fp32"]
    assert cost.inference_overhead_s.value == pytest.approx(OVERHEAD_MS / 1e3, rel=0.05)


def test_a_disturbed_measurement_does_not_lead() -> None:
    pairs = [(1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (1.5, 30.0)]
    calibrated = calibrate(make_device(), "tflite", "fp32", pairs)
    # Of what grows: networks of milliseconds say nothing of the first ten microseconds.
    growing = predicted_ms(make_device()) - OVERHEAD_MS
    assert predicted_ms(calibrated) == pytest.approx(OVERHEAD_MS + 2 * growing, rel=0.1)


def test_coefficients_of_single_kernels_are_corrected_too() -> None:
    runtime = make_runtime()
    cost = runtime.precisions["fp32"]
    kernel = KernelCost(
        mac_per_s=cost.mac_per_s, bytes_per_s=cost.bytes_per_s, op_overhead_s=cost.op_overhead_s
    )
    cost = replace(cost, kernels={"linear": kernel})
    device = make_device(replace(runtime, precisions={**runtime.precisions, "fp32": cost}))
    found = calibrate(device, "tflite", "fp32", [(5.0, 10.0)]).runtime[0].precisions["fp32"]
    corrected = found.kernels["linear"]
    assert corrected.mac_per_s.value == pytest.approx(found.mac_per_s.value)
    assert corrected.op_overhead_s.value == pytest.approx(found.op_overhead_s.value)
    assert found.mac_per_s.value == pytest.approx(cost.mac_per_s.value / 2, rel=0.05)


@given(scale=st.floats(0.5, 2.0), floor_ms=st.floats(0.005, 0.05))
def test_scale_and_floor_are_found_where_the_measurements_show_them(
    scale: float, floor_ms: float
) -> None:
    sizes = [0.001, 0.002, 0.005, 1.0, 4.0, 20.0]
    pairs = [(OVERHEAD_MS + size, floor_ms + scale * size) for size in sizes]
    found = fit_correction(make_device().runtime[0].precisions["fp32"], pairs)
    assert found.scale == pytest.approx(scale, rel=0.02)
    assert found.floor_ms == pytest.approx(floor_ms, rel=0.02)


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
    assert cost.error_factor.value == pytest.approx(3.0, rel=0.01)
    assert cost.error_factor.kind == "fitted"


def test_few_measurements_do_not_make_it_sure() -> None:
    device = make_device(make_runtime(error=4.0))

    def factor(count: int) -> float:
        calibrated = calibrate(device, "tflite", "fp32", [(1.0, 2.0)] * count)
        return calibrated.runtime[0].precisions["fp32"].error_factor.value

    assert factor(1) == pytest.approx(2.0)  # the square root of 4
    assert factor(3) == pytest.approx(math.sqrt(2))
    assert factor(1000) == LEAST_ERROR_FACTOR


def test_sources_say_what_happened_and_do_not_pile_up() -> None:
    once = calibrate(make_device(), "tflite", "fp32", [(1.0, 2.0)])
    twice = calibrate(once, "tflite", "fp32", [(1.0, 1.5), (1.0, 1.5)])
    rate = twice.runtime[0].precisions["fp32"].mac_per_s
    assert rate.kind == "fitted"
    assert re.fullmatch(
        r"scaled by [\d.]+ to 2 measurement\(s\) on the device; before: a test", rate.source
    )


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
    device = make_device()
    prediction = predict_latency(conv_chain(), device.runtime[0], "fp32").total.value
    pairs = [(prediction, value) for value in measured]
    calibrated = calibrate(device, "tflite", "fp32", pairs)
    total = predict_latency(conv_chain(), calibrated.runtime[0], "fp32").total
    assert total.low is not None
    assert total.high is not None
    assert all(total.low * 0.999 <= value <= total.high * 1.001 for value in measured)
