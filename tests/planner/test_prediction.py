from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from knowing import FULL, HALF, OPTIONS, formats, joint, precision, sensitivity
from knowing import RUNTIME as PLAIN
from torch import nn

from edgesdk.figure import Figure
from edgesdk.graph import OpGraph
from edgesdk.planner.options import Option, option_for, pruned_share
from edgesdk.planner.prediction import predict_costs, predict_drop
from edgesdk.planner.sensitivity import Sensitivity
from edgesdk.planner.uncertainty import drop_margin
from edgesdk.scheme import Scheme
from edgesdk.trace import trace

ORIGINAL, PRUNED = OPTIONS["int8"], OPTIONS["int8, pruned 50 %"]

RUNTIME = replace(
    PLAIN,
    runtime="tflite-micro",
    integer_io=True,
    precisions={"fp32": precision(1e8, 2.0), "int8": precision(4e8, 3.0)},
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


def known(
    drop: float | None,
    *,
    pruned: float | None = None,
    disagreement: float | None = 0.04,
    samples: int = 400,
    metric_samples: int = 400,
) -> Sensitivity:
    """Return what is known of a network whose formats drop so much, and ``pruned`` more at half."""
    points = formats(
        {"fp32": 0.1, "int8": 0.1},
        drops={"fp32": drop, "int8": drop},
        disagreement=disagreement,
    )
    return sensitivity(
        points=points,
        joint_points=() if pruned is None else (joint(1.0, 1.0, pruned),),
        metric=None if drop is None else 0.9,
        samples=samples,
        metric_samples=metric_samples,
    )


MARGIN = drop_margin(disagreement=0.04, samples=400)


def test_without_training_the_drop_is_as_simulated() -> None:
    for recovers in (True, False):
        found = predict_drop(ORIGINAL, known(0.1), recovers=recovers)
        assert found is not None
        assert found.value == pytest.approx(0.1)
        assert (found.low, found.high) == pytest.approx((0.1 - MARGIN, 0.1 + MARGIN))
        assert (found.standing, found.source) == ("predicted", "simulated")


def test_a_noisy_metric_makes_the_drop_less_sure() -> None:
    found = predict_drop(ORIGINAL, replace(known(0.1), noise=0.02), recovers=False)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.08 - MARGIN, 0.12 + MARGIN))


def test_what_pruning_drops_is_added_and_less_sure() -> None:
    found = predict_drop(PRUNED, known(0.1, pruned=0.2), recovers=False)
    assert found is not None
    assert found.value == pytest.approx(0.3)
    # One network was scored: it may be off by all that it dropped.
    assert (found.low, found.high) == pytest.approx((0.1 - MARGIN, 0.5 + MARGIN))
    assert found.source == "simulated"


def test_with_training_the_drop_lies_between_none_and_that() -> None:
    found = predict_drop(PRUNED, known(0.0, pruned=0.1), recovers=True)
    assert found is not None
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((-0.1 - MARGIN, 0.2 + MARGIN))
    assert "before recovery" in found.source


def test_training_is_not_expected_to_make_a_gain_smaller() -> None:
    found = predict_drop(PRUNED, known(-0.02, pruned=0.0), recovers=True)
    assert found is not None
    assert found.value == pytest.approx(-0.02)
    assert found.high == pytest.approx(-0.02 + MARGIN)


def test_without_a_metric_no_drop_is_predicted() -> None:
    assert predict_drop(ORIGINAL, known(None), recovers=True) is None
    assert predict_drop(PRUNED, known(None), recovers=True) is None


@pytest.mark.parametrize(("samples", "metric_samples"), [(400, 25), (25, 400)])
def test_the_smaller_sample_decides_how_sure_it_is(samples: int, metric_samples: int) -> None:
    few = known(0.1, samples=samples, metric_samples=metric_samples)
    found = predict_drop(ORIGINAL, few, recovers=False)
    assert found is not None
    assert found.high == pytest.approx(0.1 + drop_margin(disagreement=0.04, samples=25))


def test_where_no_disagreement_is_known_the_metrics_samples_count() -> None:
    found = predict_drop(
        ORIGINAL, known(0.1, disagreement=None, samples=25, metric_samples=400), recovers=False
    )
    assert found is not None
    assert found.high == pytest.approx(0.1 + drop_margin(disagreement=None, samples=400))


@given(
    st.floats(-0.5, 1), st.none() | st.floats(-0.5, 1), st.none() | st.floats(0, 1), st.booleans()
)
def test_every_interval_holds_its_value(
    drop: float, pruned: float | None, disagreement: float | None, recovers: bool
) -> None:
    found = known(drop, pruned=pruned, disagreement=disagreement)
    for option in (ORIGINAL, PRUNED):
        figure = predict_drop(option, found, recovers=recovers)
        assert figure is not None
        assert figure.standing == "predicted"
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_every_costs_interval_holds_its_value(
    graphs: tuple[OpGraph, OpGraph], scheme: Scheme
) -> None:
    for graph in graphs:
        for figure in predict_costs(graph, RUNTIME, scheme).values():
            assert figure.standing == "predicted"
            assert figure.low is not None
            assert figure.low <= figure.value <= figure.upper


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


def test_an_options_name_says_what_it_is() -> None:
    assert option_for(FULL, FULL, "int8").name == "int8"
    assert option_for(HALF, FULL, "fp16").name == "fp16, pruned 50 %"
    assert option_for((), (), "fp32") == Option(scheme="fp32", widths=(), name="fp32")


def test_options_of_one_name_may_differ() -> None:
    one, other = (option_for(w, (8, 8), "fp32") for w in ((4, 8), (8, 4)))
    assert one.name == other.name
    assert one != other


def test_the_pruned_share_is_of_all_channels() -> None:
    assert pruned_share((4, 24), (8, 24)) == pytest.approx(4 / 32)
    assert pruned_share((), ()) == 0.0


def test_a_drop_stays_within_what_the_metric_can_do() -> None:
    narrow = replace(known(0.1, pruned=0.9), drop_range=(-0.1, 0.4))
    found: Figure | None = predict_drop(PRUNED, narrow, recovers=False)
    assert found is not None
    assert (found.low, found.value, found.high) == (-0.1, 0.4, 0.4)
