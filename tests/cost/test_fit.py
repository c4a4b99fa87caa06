import math
from collections.abc import Sequence

import numpy as np
import pytest
from cost_graphs import conv_chain, make_runtime, precision
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.cost.batch import Batch
from edgesdk.cost.coefficients import Coefficients, kernel_seconds
from edgesdk.cost.features import kernel_table
from edgesdk.cost.fit import LEAST_NETWORKS, Sample, fit_cost, fit_pool, interval_factor, leave_out
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.log_coefficients import LENGTH, log_coefficients, priced_classes
from edgesdk.cost.pool import Pool, Setting
from edgesdk.cost.prior import prior_cost
from edgesdk.errors import MeasurementError

SIZES = [(8, 8), (16, 16), (64, 16), (128, 32), (32, 48), (256, 8), (512, 16), (16, 64)]


def samples(factor: Sequence[float] = (1.0,) * 8, *, board: str = "") -> list[Sample]:
    """Latencies of a known device, each off by a factor."""
    runtime = make_runtime(mac=2e9, byte=5e8, op=2e-6, inference=3e-5)
    return [
        Sample(
            model=f"net{index}",
            graph=(graph := conv_chain(channels, size=size)),
            scheme="fp32",
            seconds=predict_latency(graph, runtime, "fp32").total.value * 1e-3 * off,
            board=board,
        )
        for index, ((channels, size), off) in enumerate(zip(SIZES, factor, strict=True))
    ]


def test_fit_predicts_networks_it_has_not_seen() -> None:
    cost = fit_cost(samples(), precision(mac=1e9, byte=1e9), source="a bench")
    assert cost.median_error is not None
    assert cost.median_error.value < 0.15
    assert (cost.networks, cost.mac_per_s.kind, cost.mac_per_s.source) == (8, "fitted", "a bench")


def test_error_factor_holds_what_was_left_out() -> None:
    held_out = leave_out(samples(), {"fp32": precision()})
    factor = fit_cost(samples(), precision(), source="a bench").error_factor.value
    assert sum(item.distance <= math.log(factor) + 1e-3 for item in held_out) >= 0.9 * len(held_out)


def test_one_wild_row_weighs_little() -> None:
    fair = fit_cost(samples(), precision(), source="a bench")
    wild = fit_cost(samples((1, 1, 1, 1, 1, 30, 1, 1)), precision(), source="a bench")
    table = kernel_table(conv_chain(100, size=24), "fp32")
    before, after = (
        kernel_seconds(table, Coefficients.of(cost)).total.sum() for cost in (fair, wild)
    )
    assert after == pytest.approx(before, rel=0.25)


def test_a_board_with_few_rows_borrows_from_its_relative() -> None:
    rows = samples() + [
        Sample(model=s.model, graph=s.graph, scheme="fp32", seconds=3 * s.seconds, board="slow")
        for s in samples()[:2]
    ]
    fit = fit_pool(rows, {"fp32": precision()}, source="a bench")
    fast, slow = fit.cost("fp32", ""), fit.cost("fp32", "slow")
    assert fast is not None
    assert slow is not None
    table = kernel_table(conv_chain(300, size=12), "fp32")
    ratio = [kernel_seconds(table, Coefficients.of(cost)).total.sum() for cost in (slow, fast)]
    assert ratio[0] / ratio[1] == pytest.approx(3, rel=0.3)
    assert fit.cost("int8", "slow") is None


def test_a_board_that_only_another_engine_measured_is_estimated_and_less_certain() -> None:
    rows = samples(board="known") + [
        Sample(**{**vars(s), "board": "other", "engine": "faster"}) for s in samples()
    ]
    fit = fit_pool(rows, {"fp32": precision()}, source="a bench")
    known, other = fit.cost("fp32", "known"), fit.cost("fp32", "other")
    assert known is not None
    assert other is not None
    assert (known.mac_per_s.kind, other.mac_per_s.kind) == ("fitted", "estimated")
    assert other.error_factor.value > known.error_factor.value


def test_too_few_networks_says_how_many_are_needed() -> None:
    with pytest.raises(MeasurementError, match=f"at least {LEAST_NETWORKS} networks"):
        fit_cost(samples()[: LEAST_NETWORKS - 1], precision(), source="a bench")


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_that_cannot_be(seconds: float) -> None:
    rows = samples()
    rows[2] = Sample(model="net2", graph=rows[2].graph, scheme="fp32", seconds=seconds)
    with pytest.raises(MeasurementError, match="cannot be"):
        fit_cost(rows, precision(), source="a bench")


def test_samples_of_two_schemes() -> None:
    rows = samples()
    rows[0] = Sample(model="net0", graph=rows[0].graph, scheme="int8", seconds=1e-3)
    with pytest.raises(MeasurementError, match="fp32, int8"):
        fit_cost(rows, precision(), source="a bench")


def test_interval_factor_is_the_conformal_quantile() -> None:
    assert interval_factor([math.log(1 + n / 10) for n in range(1, 20)]) == pytest.approx(2.8)
    assert interval_factor([math.log(1.5)]) == pytest.approx(1.5)


@settings(max_examples=20, deadline=None)
@given(channels=st.integers(1, 64), size=st.integers(4, 32), seed=st.integers(0, 99))
def test_gradient_is_that_of_the_latency(channels: int, size: int, seed: int) -> None:
    prior = prior_cost("npu", "fp16")
    table, priced = kernel_table(conv_chain(channels, size=size), "fp16"), priced_classes(prior)
    logs = log_coefficients(prior)
    step = 1e-6 * np.random.default_rng(seed).standard_normal(len(logs))
    batch = Batch.of([table], [priced])
    (low, _), (high, _) = (batch.seconds((logs + sign * step)[None]) for sign in (-1, 1))
    _, [gradient] = batch.seconds(logs[None])
    assert math.log(high[0] / low[0]) == pytest.approx(2 * float(gradient @ step), abs=1e-9)


def test_vector_and_profile_predict_alike() -> None:
    cost = prior_cost("npu", "fp16")
    table = kernel_table(conv_chain(32, size=32), "fp16")
    [seconds], _ = Batch.of([table], [priced_classes(cost)]).seconds(log_coefficients(cost)[None])
    found = Coefficients.of(cost)
    assert seconds == pytest.approx(kernel_seconds(table, found).total.sum() + found.inference_s)


def test_a_batch_tells_networks_and_repeated_kernels_apart() -> None:
    prior = prior_cost("npu", "fp16")
    priced, logs = priced_classes(prior), log_coefficients(prior)
    short = kernel_table(conv_chain(16, size=16), "fp16")
    long = kernel_table(conv_chain(64, size=8), "fp16")
    alone = [Batch.of([item], [priced]).seconds(logs[None])[0][0] for item in (short, long)]
    together, _ = Batch.of([short, long, short], [priced] * 3).seconds(
        np.stack([logs, logs, logs + math.log(2)])
    )
    assert together == pytest.approx([alone[0], alone[1], 2 * alone[0]])


def test_an_engine_may_lower_one_class_otherwise() -> None:
    wanted: Setting = ("fp32", "", "")
    other: Setting = ("fp32", "", "other")
    pool = Pool([wanted, other], {"fp32": precision()})
    moves = [
        pool.vector(other, step) - pool.vector(wanted, step) for step in np.eye(len(pool.spreads))
    ]
    assert sum(np.count_nonzero(move) == 1 for move in moves) == LENGTH
