"""The fit, on latencies computed from coefficients that are known."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgesdk.calibrating import fitting
from edgesdk.calibrating.fitting import (
    LEAST_ERROR_FACTOR,
    LEAST_NETWORKS,
    error_factor,
    fit_machine,
)
from edgesdk.calibrating.host import packaged_host
from edgesdk.calibrating.microbenchmarks import microbenchmarks
from edgesdk.cost.fit import Sample
from edgesdk.cost.latency import predict_latency
from edgesdk.device import Runtime
from edgesdk.errors import MeasurementError
from edgesdk.graph import OpGraph
from edgesdk.precision_cost import KernelCost, PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.trace import trace

RUNTIME = packaged_host().runtime_for("tflite")
PRIOR = RUNTIME.precisions["fp32"]
FAMILIES = {item.name: item.family for item in microbenchmarks() if item.family is not None}


def known(value: float) -> Quantity:
    return Quantity(value=value, source="a test", kind="measured")


CONVOLUTION = KernelCost(patch_s=known(1.5e-9), output_s=known(2e-10))
TRUTH = replace(
    PRIOR,
    mac_per_s=known(9e10),
    bytes_per_s=known(2e10),
    op_overhead_s=known(2e-7),
    inference_overhead_s=known(7e-6),
    kernels={
        "conv": CONVOLUTION,
        "first_conv": CONVOLUTION,
        "depthwise": KernelCost(mac_per_s=known(1.2e10)),
        "matmul": KernelCost(mac_per_s=known(1.5e10)),
        "norm": KernelCost(bytes_per_s=known(4e9)),
        "hardswish": KernelCost(bytes_per_s=known(5e8)),
        "wide_depthwise": KernelCost(mac_per_s=known(1e9)),
    },
)


def runtime(cost: PrecisionCost) -> Runtime:
    return replace(RUNTIME, precisions={"fp32": cost})


def seconds(graph: OpGraph, cost: PrecisionCost) -> float:
    return predict_latency(graph, runtime(cost), "fp32").total.value / 1e3


@pytest.fixture(scope="module")
def graphs() -> dict[str, OpGraph]:
    return {
        item.name: trace(item.module(), item.example_inputs(), name=item.name)
        for item in microbenchmarks()
    }


@pytest.fixture(autouse=True)
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each size that is tried is a fit, and more of them show nothing more here."""
    monkeypatch.setattr(fitting, "_TILES", (1.0, 16.0))
    monkeypatch.setattr(fitting, "_CACHES_BYTES", (2.0**20, 2.0**24))


Sampling = Callable[[float], list[Sample]]


@pytest.fixture
def samples(graphs: dict[str, OpGraph]) -> Sampling:
    """Measurements of a machine that is as TRUTH says, up to a scatter."""

    def make(scatter: float) -> list[Sample]:
        random = np.random.default_rng(0)
        return [
            Sample(
                model=name,
                graph=graph,
                scheme="fp32",
                seconds=seconds(graph, TRUTH) * math.exp(scatter * random.normal()),
            )
            for name, graph in graphs.items()
        ]

    return make


def errors(cost: PrecisionCost, graphs: dict[str, OpGraph]) -> list[float]:
    return [abs(seconds(g, cost) / seconds(g, TRUTH) - 1) for g in graphs.values()]


def test_a_machine_is_found_again(samples: Sampling, graphs: dict[str, OpGraph]) -> None:
    cost = fit_machine(samples(0.0), PRIOR, families=FAMILIES, source="here")
    found = errors(cost, graphs)
    assert np.median(found) < 0.03
    assert max(found) < 0.25
    assert np.median(errors(PRIOR, graphs)) > 0.2, "the prior is another machine"
    assert cost.inference_overhead_s.value == pytest.approx(7e-6, rel=0.1)
    assert cost.kernels["hardswish"].bytes_per_s is not None
    assert cost.kernels["hardswish"].bytes_per_s.value == pytest.approx(5e8, rel=0.15)


def test_slopes_are_those_of_the_residuals(samples: Sampling) -> None:
    """Central differences, at a place where no kernel waits for arithmetic and memory alike."""
    given = samples(0.05)
    problem = fitting._Problem(given, PRIOR)
    random = np.random.default_rng(0)
    fitted = problem.choose_sizes()
    at = fitted + random.normal(0, 0.3, len(fitted))
    kept = random.random(len(given)) < 0.8
    step = 1e-6 * np.eye(len(at))
    wanted = np.stack(
        [problem.residuals(kept, at + one) - problem.residuals(kept, at - one) for one in step], 1
    )
    np.testing.assert_allclose(problem.slopes(kept, at), wanted / 2e-6, rtol=1e-3, atol=1e-4)


def test_errors_are_those_of_networks_left_out(samples: Sampling) -> None:
    quiet = fit_machine(samples(0.0), PRIOR, families=FAMILIES, source="here")
    noisy = fit_machine(samples(0.3), PRIOR, families=FAMILIES, source="here")
    assert noisy.error_factor.value > quiet.error_factor.value >= LEAST_ERROR_FACTOR
    assert noisy.median_error is not None
    assert 0.05 < noisy.median_error.value < 0.6
    assert noisy.networks == len(FAMILIES)


def test_a_factor_from_few_families_is_wider() -> None:
    misses = [1.2, 1 / 1.2] * 10
    few, many = error_factor(misses, 4), error_factor(misses, 20)
    assert few is not None
    assert many is not None
    # Student's t for nine in ten: 2.132 of 4, 1.725 of 20 (any table of it).
    assert math.log(few) == pytest.approx(2.132 * math.log(1.2) * math.sqrt(1 + 1 / 4), rel=1e-3)
    assert math.log(many) == pytest.approx(1.725 * math.log(1.2) * math.sqrt(1 + 1 / 20), rel=1e-3)
    assert error_factor(misses, 1) is None
    assert error_factor([1.0] * 8, 8) == LEAST_ERROR_FACTOR


def test_factors_hold_nine_in_ten_of_another_family() -> None:
    random = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        logs = 0.15 * random.normal(size=11)
        factor = error_factor(np.exp(logs[:10]).tolist(), 10)
        assert factor is not None
        held.append(abs(logs[10]) <= math.log(factor))
    assert 0.87 < np.mean(held) < 0.95


@pytest.mark.slow
def test_a_family_is_left_out_as_a_whole(samples: Sampling) -> None:
    found = samples(0.0)
    odd = {name for name, family in FAMILIES.items() if family == "residual"}
    slowed = [
        replace(item, seconds=2 * item.seconds) if item.model in odd else item for item in found
    ]
    together = fit_machine(slowed, PRIOR, families=FAMILIES, source="here")
    alone = {name: name for name in FAMILIES}
    one_by_one = fit_machine(slowed, PRIOR, families=alone, source="here")
    assert together.error_factor.value > one_by_one.error_factor.value


@pytest.mark.slow
def test_the_channels_computed_at_once_are_found(
    samples: Sampling, graphs: dict[str, OpGraph]
) -> None:
    tiled = replace(TRUTH, channel_tile=known(16))
    found = [replace(item, seconds=seconds(item.graph, tiled)) for item in samples(0.0)]
    cost = fit_machine(found, PRIOR, families={}, source="here")
    assert cost.channel_tile is not None
    assert cost.channel_tile.value == 16
    misses = [abs(seconds(g, cost) / seconds(g, tiled) - 1) for g in graphs.values()]
    assert np.median(misses) < 0.03


def test_a_disturbed_measurement_does_not_lead(
    samples: Sampling, graphs: dict[str, OpGraph]
) -> None:
    disturbed = samples(0.0)
    for index in (12, 30):
        disturbed[index] = replace(disturbed[index], seconds=20 * disturbed[index].seconds)
    cost = fit_machine(disturbed, PRIOR, families=FAMILIES, source="here")
    assert np.median(errors(cost, graphs)) < 0.06


def test_every_number_says_where_it_comes_from(samples: Sampling) -> None:
    cost = fit_machine(samples(0.0), PRIOR, families=FAMILIES, source="here")
    quantities = [cost.mac_per_s, cost.op_overhead_s, cost.error_factor, cost.cache_bytes]
    assert {(q.source, q.kind) for q in quantities if q} == {("here", "fitted")}
    assert all(q is not None for q in quantities)


def test_without_whole_networks_the_error_stays_what_it_was(samples: Sampling) -> None:
    cost = fit_machine(samples(0.0), PRIOR, families={}, source="here")
    assert cost.error_factor == PRIOR.error_factor
    assert cost.median_error is None


def test_too_few_networks(samples: Sampling) -> None:
    with pytest.raises(MeasurementError, match=f"Expected: {LEAST_NETWORKS} or more"):
        fit_machine(samples(0.0)[: LEAST_NETWORKS - 1], PRIOR, families=FAMILIES, source="here")


@pytest.mark.parametrize("impossible", [0.0, -1.0, math.nan, math.inf])
def test_impossible_latencies(samples: Sampling, impossible: float) -> None:
    found = samples(0.0)
    found[0] = replace(found[0], seconds=impossible)
    with pytest.raises(MeasurementError, match=r"cannot be \(nothing\)"):
        fit_machine(found, PRIOR, families=FAMILIES, source="here")
