from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesdk.device import Runtime
from edgesdk.figure import Figure
from edgesdk.graph import OpGraph
from edgesdk.plan import PrunedGroup
from edgesdk.planner.options import Option, PruningCandidate, option_name
from edgesdk.planner.prediction import predict_costs, predict_figures
from edgesdk.planner.sensitivity import Sensitivity, SensitivityPoint
from edgesdk.planner.uncertainty import drop_margin
from edgesdk.precision_cost import PrecisionCost
from edgesdk.quantity import Quantity
from edgesdk.scheme import Scheme
from edgesdk.trace import trace

ORIGINAL = Option(candidate=0, scheme="int8", name="int8")
PRUNED = Option(candidate=1, scheme="int8", name="int8, pruned 50 %")


def quantity(value: float) -> Quantity:
    return Quantity(value=value, source="a test", kind="estimated")


def cost(rate: float, error_factor: float) -> PrecisionCost:
    return PrecisionCost(
        mac_per_s=quantity(rate),
        bytes_per_s=quantity(rate),
        op_overhead_s=quantity(1e-6),
        inference_overhead_s=quantity(1e-5),
        error_factor=quantity(error_factor),
    )


RUNTIME = Runtime(
    target="tflite",
    delegate="",
    runtime="tflite-micro",
    minimum_version="1",
    unit="cpu",
    threads=1,
    channel_multiple=1,
    weights_in_ram=False,
    integer_io=True,
    precisions={"fp32": cost(1e8, 2.0), "int8": cost(4e8, 3.0)},
)


def network(width: int) -> OpGraph:
    model = nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.Flatten(),
        nn.Linear(width * 16, 10),
    )  # fmt: skip
    return trace(model, (torch.zeros(1, 3, 8, 8),), name="net")


@pytest.fixture(scope="module")
def graphs() -> tuple[OpGraph, OpGraph]:
    return network(32), network(16)


EMPTY = OpGraph(model="m", ops=(), tensors={})


def sensitivity(
    drop: float | None,
    *,
    graphs: tuple[OpGraph, OpGraph] = (EMPTY, EMPTY),
    disagreement: float | None = 0.04,
    samples: int = 400,
    metric_samples: int = 400,
) -> Sensitivity:
    group = PrunedGroup(layer="0", width_before=32, removed=tuple(range(16)))
    points = [
        SensitivityPoint(
            candidate=index, scheme=scheme, loss=0.1, disagreement=disagreement, drop=drop
        )
        for index in (0, 1)
        for scheme in ("fp32", "int8")
    ]
    return Sensitivity(
        channel_multiple=1,
        importance="taylor",
        inputs="calibration",
        samples=samples,
        metric=None if drop is None else 0.9,
        metric_samples=metric_samples,
        drop_range=(-1.0, 1.0),
        candidates=(
            PruningCandidate(ratio=0.0, groups=(), graph=graphs[0]),
            PruningCandidate(ratio=0.5, groups=(group,), graph=graphs[1]),
        ),
        points=tuple(points),
        notes=(),
    )


def predicted_drop(option: Option, known: Sensitivity, *, recovers: bool) -> Figure | None:
    return predict_figures(option, known, RUNTIME, recovers=recovers).get("accuracy_drop")


def test_without_training_the_drop_is_as_simulated() -> None:
    margin = drop_margin(disagreement=0.04, samples=400)
    for option, recovers in ((ORIGINAL, True), (ORIGINAL, False), (PRUNED, False)):
        found = predicted_drop(option, sensitivity(0.1), recovers=recovers)
        assert found is not None
        assert found.value == pytest.approx(0.1)
        assert (found.low, found.high) == pytest.approx((0.1 - margin, 0.1 + margin))
        assert (found.standing, found.source) == ("predicted", "simulated")


def test_with_training_the_drop_lies_between_none_and_that() -> None:
    margin = drop_margin(disagreement=0.04, samples=400)
    found = predicted_drop(PRUNED, sensitivity(0.1), recovers=True)
    assert found is not None
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((-margin, 0.1 + margin))
    assert "before recovery" in found.source


def test_training_is_not_expected_to_make_a_gain_smaller() -> None:
    found = predicted_drop(PRUNED, sensitivity(-0.02), recovers=True)
    assert found is not None
    assert found.value == pytest.approx(-0.02)
    assert found.high == pytest.approx(-0.02 + drop_margin(disagreement=0.04, samples=400))


def test_without_a_metric_no_drop_is_predicted() -> None:
    assert predicted_drop(ORIGINAL, sensitivity(None), recovers=True) is None


@pytest.mark.parametrize(("samples", "metric_samples"), [(400, 25), (25, 400)])
def test_the_smaller_sample_decides_how_sure_it_is(samples: int, metric_samples: int) -> None:
    known = sensitivity(0.1, samples=samples, metric_samples=metric_samples)
    found = predicted_drop(ORIGINAL, known, recovers=False)
    assert found is not None
    assert found.high == pytest.approx(0.1 + drop_margin(disagreement=0.04, samples=25))


@given(st.floats(-0.5, 1), st.none() | st.floats(0, 1), st.booleans())
def test_every_interval_holds_its_value(
    drop: float, disagreement: float | None, recovers: bool
) -> None:
    known = sensitivity(drop, disagreement=disagreement)
    for option in (ORIGINAL, PRUNED):
        for figure in predict_figures(option, known, RUNTIME, recovers=recovers).values():
            assert figure.standing == "predicted"
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high


def test_flash_is_predicted_where_weights_stay_in_it(graphs: tuple[OpGraph, OpGraph]) -> None:
    found = predict_costs(graphs[0], RUNTIME, "int8")
    assert found["flash_bytes"] == found["size_bytes"]
    in_ram = predict_costs(graphs[0], replace(RUNTIME, weights_in_ram=True), "int8")
    assert "flash_bytes" not in in_ram
    assert in_ram["memory_bytes"].value > found["memory_bytes"].value


def test_a_download_is_at_most_the_file(graphs: tuple[OpGraph, OpGraph]) -> None:
    found = predict_costs(graphs[0], RUNTIME, "int8")
    assert found["download_bytes"].low == 0.0
    assert found["download_bytes"].upper == found["size_bytes"].upper


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_latency_carries_the_profiles_error(
    graphs: tuple[OpGraph, OpGraph], scheme: Scheme
) -> None:
    latency = predict_costs(graphs[0], RUNTIME, scheme)["latency_ms"]
    factor = RUNTIME.precisions[scheme].error_factor.value
    assert latency.high == pytest.approx(latency.value * factor)
    assert latency.low == pytest.approx(latency.value / factor)


def test_pruning_and_quantizing_never_cost_more(graphs: tuple[OpGraph, OpGraph]) -> None:
    whole, half = graphs
    runtime = replace(RUNTIME, weights_in_ram=True)
    for name in ("latency_ms", "size_bytes", "memory_bytes"):
        for scheme in ("fp32", "int8"):
            pruned, original = (predict_costs(g, runtime, scheme)[name] for g in (half, whole))
            assert pruned.value < original.value
        narrow, wide = (predict_costs(whole, runtime, scheme)[name] for scheme in ("int8", "fp32"))
        assert narrow.value < wide.value


def test_an_option_is_predicted_from_its_own_graph(graphs: tuple[OpGraph, OpGraph]) -> None:
    known = sensitivity(0.1, graphs=graphs)
    found = predict_figures(PRUNED, known, RUNTIME, recovers=False)
    costs = predict_costs(graphs[1], RUNTIME, "int8")
    assert {name: found[name] for name in costs} == costs
    assert set(found) == {*costs, "accuracy_drop"}


def test_an_options_name_says_what_it_is() -> None:
    original, pruned = sensitivity(0.1).candidates
    assert option_name(original, "int8") == "int8"
    assert option_name(pruned, "fp16") == "fp16, pruned 50 %"
