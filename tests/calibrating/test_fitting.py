"""The fit, on latencies computed from coefficients that are known."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgesdk.calibrating.fitting import LEAST_ERROR_FACTOR, LEAST_NETWORKS, fit_machine
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
WHOLE = frozenset(item.name for item in microbenchmarks() if item.is_whole)


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
    cost = fit_machine(samples(0.0), PRIOR, judged_by=WHOLE, source="here")
    found = errors(cost, graphs)
    assert np.median(found) < 0.03
    assert max(found) < 0.25
    assert np.median(errors(PRIOR, graphs)) > 0.2, "the prior is another machine"
    assert cost.inference_overhead_s.value == pytest.approx(7e-6, rel=0.1)
    assert cost.kernels["hardswish"].bytes_per_s is not None
    assert cost.kernels["hardswish"].bytes_per_s.value == pytest.approx(5e8, rel=0.15)


def test_errors_are_those_of_networks_left_out(samples: Sampling) -> None:
    quiet = fit_machine(samples(0.0), PRIOR, judged_by=WHOLE, source="here")
    noisy = fit_machine(samples(0.3), PRIOR, judged_by=WHOLE, source="here")
    assert noisy.error_factor.value > quiet.error_factor.value >= LEAST_ERROR_FACTOR
    assert noisy.median_error is not None
    assert 0.05 < noisy.median_error.value < 0.6
    assert noisy.networks == len(WHOLE)


def test_a_disturbed_measurement_does_not_lead(
    samples: Sampling, graphs: dict[str, OpGraph]
) -> None:
    disturbed = samples(0.0)
    for index in (12, 30):
        disturbed[index] = replace(disturbed[index], seconds=20 * disturbed[index].seconds)
    cost = fit_machine(disturbed, PRIOR, judged_by=WHOLE, source="here")
    assert np.median(errors(cost, graphs)) < 0.06


def test_every_number_says_where_it_comes_from(samples: Sampling) -> None:
    cost = fit_machine(samples(0.0), PRIOR, judged_by=WHOLE, source="here")
    quantities = [cost.mac_per_s, cost.op_overhead_s, cost.error_factor, cost.cache_bytes]
    assert {(q.source, q.kind) for q in quantities if q} == {("here", "fitted")}
    assert all(q is not None for q in quantities)


def test_without_whole_networks_the_error_stays_what_it_was(samples: Sampling) -> None:
    cost = fit_machine(samples(0.0), PRIOR, judged_by=(), source="here")
    assert cost.error_factor == PRIOR.error_factor
    assert cost.median_error is None


def test_too_few_networks(samples: Sampling) -> None:
    with pytest.raises(MeasurementError, match=f"Expected: {LEAST_NETWORKS} or more"):
        fit_machine(samples(0.0)[: LEAST_NETWORKS - 1], PRIOR, judged_by=WHOLE, source="here")


@pytest.mark.parametrize("impossible", [0.0, -1.0, math.nan, math.inf])
def test_impossible_latencies(samples: Sampling, impossible: float) -> None:
    found = samples(0.0)
    found[0] = replace(found[0], seconds=impossible)
    with pytest.raises(MeasurementError, match=r"cannot be \(nothing\)"):
        fit_machine(found, PRIOR, judged_by=WHOLE, source="here")
