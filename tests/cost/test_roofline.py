"""The packaged profiles hold what benchmarks/roofline.py finds in the published measurements."""

import math
from pathlib import Path
from types import ModuleType

import pytest

from edgesdk.device_files import load_device
from edgesdk.scheme import Scheme

ROOT = Path(__file__).parents[2]
MEASUREMENTS = ROOT.parent / "shared" / "measurements"

FITTED: tuple[tuple[str, str, Scheme], ...] = (
    ("samsung_galaxy_s24", "tflite", "fp16"),
    ("samsung_galaxy_s24", "tflite", "int8"),
    ("iphone_15_pro", "coreml", "fp16"),
    ("iphone_15_pro", "coreml", "int8"),
    ("nucleo_h7a3zi_q", "tflite", "int8"),
)


@pytest.fixture(scope="module")
def roofline() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import roofline

        return roofline


@pytest.mark.slow
@pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="needs ../shared/measurements")
def test_profiles_hold_what_the_fit_prints(roofline: ModuleType) -> None:
    evidence, left_out = roofline.load_evidence(MEASUREMENTS)
    assert len(left_out) <= 5
    fits = roofline.fit_profiles(evidence)
    for device, target, scheme in FITTED:
        fit = fits[device, target, scheme]
        cost = load_device(device).runtime_for(target).precisions[scheme]
        for name in ("mac_per_s", "bytes_per_s", "op_overhead_s", "inference_overhead_s"):
            stated, found = getattr(cost, name).value, getattr(fit.coefficients, name)
            assert stated == pytest.approx(found, rel=0.02), (device, scheme, name)
        assert cost.error_factor.value == pytest.approx(fit.error_factor, rel=0.02)


def samples(roofline: ModuleType, coefficients: object, noise: list[float]) -> list[object]:
    import numpy as np

    networks = [
        np.array([[10.0 ** (6 + i % 3), 10.0 ** (4 + (i * j) % 4)] for j in range(3 + i)])
        for i in range(len(noise))
    ]
    return [
        roofline.Sample(
            model=f"network{i}",
            kernels=kernels,
            seconds=roofline.predicted_seconds(coefficients.logs, kernels) * factor,  # type: ignore[attr-defined]
        )
        for i, (kernels, factor) in enumerate(zip(networks, noise, strict=True))
    ]


def test_fit_finds_the_coefficients_behind_latencies(roofline: ModuleType) -> None:
    true = roofline.Coefficients(
        mac_per_s=2e9, bytes_per_s=1e9, op_overhead_s=3e-5, inference_overhead_s=2e-4
    )
    measured = samples(roofline, true, [1.0] * 12)
    prior = roofline.Coefficients.from_logs(true.logs + 0.7)
    fit = roofline.fit("test", "synthetic", measured, prior)
    assert fit.coefficients.mac_per_s == pytest.approx(2e9, rel=0.1)
    assert fit.median_error < 0.05
    assert fit.error_factor < 1.2


def test_one_wild_row_weighs_little(roofline: ModuleType) -> None:
    true = roofline.Coefficients(
        mac_per_s=2e9, bytes_per_s=1e9, op_overhead_s=3e-5, inference_overhead_s=2e-4
    )
    measured = samples(roofline, true, [1.0] * 11 + [50.0])
    fit = roofline.fit("test", "synthetic", measured, true)
    assert fit.coefficients.mac_per_s == pytest.approx(2e9, rel=0.3)
    assert fit.median_error < 0.2


def test_error_factor_holds_nine_in_ten(roofline: ModuleType) -> None:
    import numpy as np

    ratios = np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.3, 1.0, 1.0, 1.5, 20.0])
    assert roofline.error_factor(ratios) == pytest.approx(1.5)


def test_transfer_scales_every_coefficient_alike(roofline: ModuleType) -> None:
    true = roofline.Coefficients(
        mac_per_s=2e9, bytes_per_s=1e9, op_overhead_s=3e-5, inference_overhead_s=2e-4
    )
    base = roofline.fit("test", "synthetic", samples(roofline, true, [1.0] * 8), true)
    scaled = roofline.transfer("other", "x", base, samples(roofline, true, [2.0] * 3))
    shift = scaled.coefficients.logs - base.coefficients.logs
    assert shift == pytest.approx([math.log(2)] * 4, abs=0.1)
    assert scaled.error_factor >= base.error_factor


def test_reference_networks_compute_what_mlperf_tiny_publishes(roofline: ModuleType) -> None:
    macs = {name: graph.macs for name, graph in roofline.reference_graphs().items()}
    assert macs["ad01_int8"] == 264_192
    assert macs["pretrainedResnet_quant"] == pytest.approx(12.5e6, rel=0.01)
    assert macs["vww_96_int8"] == pytest.approx(7.49e6, rel=0.01)
    assert macs["kws_ref_model"] == pytest.approx(2.66e6, rel=0.01)
