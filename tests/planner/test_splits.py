"""What splits save: against the cost model's word on networks that really are split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from knowing import RUNTIME, precision, quantity
from torch import nn

from edgesdk.compress.factorize import factorized
from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_file_size
from edgesdk.graph import OpGraph
from edgesdk.low_rank import LayerSplit, with_splits
from edgesdk.planner.splits import gaining_splits, possible_splits, split_costs
from edgesdk.planner.widths import WidthModel
from edgesdk.trace import trace

IMAGES = (torch.zeros(1, 8, 6, 6),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Conv2d(48, 32, 1),
        nn.Flatten(),
        nn.Linear(32 * 36, 64),
        nn.ReLU(),
        nn.Linear(64, 4),
    ).eval()


@pytest.fixture(scope="module")
def graph() -> OpGraph:
    return trace(network(), IMAGES, name="m")


def whole(graph: OpGraph) -> WidthModel:
    return WidthModel(graph=graph, groups=(), full=(), extents=())


def test_ranks_are_multiples_below_the_break_even(graph: OpGraph) -> None:
    splits = possible_splits(graph, 4)
    ranks: dict[str, list[int]] = {}
    for layer, rank in splits:
        ranks.setdefault(layer, []).append(rank)
    # 72 * 48 / 120 = 28.8, but 8 channels are read there and more may not be passed on.
    assert ranks["0"] == [4]
    assert ranks["3"] == [4, 8, 12]  # 48 * 32 / 80 = 19.2, of which 18 is the last that saves
    assert ranks["5"] == [4, 12, 28, 44]
    assert "7" not in ranks  # 64 * 4 / 68 = 3.8
    assert all(rank % 4 == 0 for _, rank in splits)


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_costs_are_those_of_the_split_network(graph: OpGraph, scheme: str) -> None:
    splits = possible_splits(graph, 4)
    costs = split_costs(whole(graph), RUNTIME, scheme, splits)  # type: ignore[arg-type]
    for split, cost in zip(splits, costs, strict=True):
        after = trace(factorized(network(), IMAGES, dict([split]), ()), IMAGES, name="m")
        spent = [predict_latency(g, RUNTIME, scheme).total.value for g in (graph, after)]  # type: ignore[arg-type]
        stored = [sum(weight_bytes(k, scheme) for k in fuse(g)) for g in (graph, after)]  # type: ignore[arg-type]
        sizes = [predict_file_size(g, RUNTIME, scheme).value for g in (graph, after)]  # type: ignore[arg-type]
        assert cost.split == split
        assert cost.latency_ms == pytest.approx(spent[1] - spent[0], rel=1e-6)
        assert cost.weight_bytes == pytest.approx(stored[1] - stored[0], rel=1e-6)
        added = cost.weight_bytes + cost.container_bytes
        assert added == pytest.approx(sizes[1] - sizes[0], abs=64)
        memory = [predict_memory(g, RUNTIME, scheme).value for g in (graph, after)]  # type: ignore[arg-type]
        assert memory[1] <= 1.001 * memory[0]


def test_a_device_that_waits_for_dispatch_gains_nothing(graph: OpGraph) -> None:
    """Two kernels start twice: where that takes the time nothing is offered but for its bytes."""
    splits = possible_splits(graph, 4)
    gained = gaining_splits(graph, splits, [RUNTIME], ["fp32"], bytes_count=False)
    assert gained
    slow = replace(precision(), op_overhead_s=quantity(1.0))
    waiting = replace(RUNTIME, precisions={"fp32": slow})
    assert gaining_splits(graph, splits, [waiting], ["fp32"], bytes_count=False) == ()
    assert gaining_splits(graph, splits, [waiting], ["fp32"], bytes_count=True)
    both = gaining_splits(graph, splits, [waiting, RUNTIME], ["fp32"], bytes_count=False)
    assert both == gained
    assert gaining_splits(graph, splits, [waiting], ["int8"], bytes_count=True) == ()


@given(rank=st.integers(1, 31))
def test_a_split_layer_has_its_norm_and_clamp_in_the_second_half(rank: int) -> None:
    graph = trace(network(), IMAGES, name="m")
    split = with_splits(graph, [LayerSplit("0", rank)])
    first, second = fuse(split)[:2]
    assert (first.op.layer, second.op.layer) == ("0.0", "0.1")
    assert first.folded == ()
    assert len(second.folded) == 2
