"""What a block saves: tables against the cost model's word on really shortened networks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knowing import RUNTIME
from shortcuts import IMAGES, resnet

from edgesdk.compress.depth import shortened
from edgesdk.compress.prune import find_groups
from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_file_size
from edgesdk.graph import OpGraph
from edgesdk.planner.block_costs import countable
from edgesdk.planner.tables import CostTables, cost_tables, width_choices
from edgesdk.planner.widths import WidthModel, Widths, measure_widths
from edgesdk.residual import computes_alike, residual_blocks
from edgesdk.trace import trace

BLOCKS = ("stages.0.0", "stages.0.1", "stages.1.1")
SUBSETS = st.sets(st.sampled_from(range(len(BLOCKS)))).map(lambda gone: tuple(sorted(gone)))


@cache
def known() -> tuple[WidthModel, CostTables]:
    model = resnet()
    groups = find_groups(model, IMAGES)
    widths, notes = measure_widths(model, IMAGES, groups, trace(model, IMAGES, name="m"))
    assert notes == ()
    choices = width_choices(widths.full, [group.unit for group in groups], 1, most=3)
    return widths, cost_tables(widths, choices, RUNTIME, "fp32", blocks=BLOCKS)


PLACES = st.tuples(*[st.integers(0, 2)] * 6)


def at(places: tuple[int, ...]) -> Widths:
    return tuple(row[i] for row, i in zip(known()[1].choices, places, strict=True))


def names(gone: tuple[int, ...]) -> list[str]:
    return [BLOCKS[index] for index in gone]


def stored(graph: OpGraph) -> float:
    return sum(weight_bytes(kernel, "fp32") for kernel in fuse(graph))


def test_the_graph_without_blocks_is_that_of_the_shortened_network() -> None:
    model, (widths, _) = resnet(), known()
    assert [block.name for block in residual_blocks(widths.graph)] == list(BLOCKS)
    assert all(countable(widths, block) for block in residual_blocks(widths.graph))
    for gone in ((0,), (1, 2), (0, 1, 2)):
        traced = trace(shortened(model, names(gone)), IMAGES, name="m")
        assert computes_alike(widths.at(widths.full, gone=names(gone)), traced)


@settings(max_examples=40)
@given(places=PLACES, gone=SUBSETS)
def test_latency_and_weights_are_those_of_the_shortened_network(
    places: tuple[int, ...], gone: tuple[int, ...]
) -> None:
    widths, tables = known()
    graph = widths.at(at(places), gone=names(gone))
    found = tables.costs_at(places, [tables.blocks[index] for index in gone])
    assert found[0] == pytest.approx(predict_latency(graph, RUNTIME, "fp32").total.value, rel=1e-6)
    assert found[1] == pytest.approx(stored(graph), rel=1e-6)


@settings(max_examples=40)
@given(places=PLACES, gone=SUBSETS)
def test_a_blocks_own_groups_cost_nothing_once_it_is_gone(
    places: tuple[int, ...], gone: tuple[int, ...]
) -> None:
    widths, tables = known()
    blocks = [tables.blocks[index] for index in gone]
    within = widths.groups_within(names(gone))
    whole = tuple(2 if group in within else place for group, place in enumerate(places))
    assert tables.costs_at(places, blocks) == pytest.approx(tables.costs_at(whole, blocks))
    assert len(within) == len(gone)  # the first convolution of each block


@pytest.mark.parametrize("delegate", ["xnnpack", "vulkan", "coreml"])
def test_a_file_without_a_block_is_sized_for_the_runtimes_delegate(delegate: str) -> None:
    widths, _ = known()
    runtime = replace(RUNTIME, target="executorch", delegate=delegate)
    choices = [[width] for width in widths.full]
    [block] = cost_tables(widths, choices, runtime, "fp32", blocks=BLOCKS[:1]).blocks
    shorter = widths.at(widths.full, gone=BLOCKS[:1])
    sizes = [predict_file_size(graph, runtime, "fp32").value for graph in (widths.graph, shorter)]
    weights = stored(widths.graph) - stored(shorter)
    assert block.container_bytes + weights == pytest.approx(sizes[0] - sizes[1])


def test_groups_that_others_read_stay() -> None:
    widths, _ = known()
    left = set(range(len(widths.groups))) - widths.groups_within(BLOCKS)
    assert {widths.groups[group] for group in left} == {
        "conv1",
        "stages.1.0.conv1",
        "stages.1.0.conv2",
    }


@given(gone=SUBSETS)
def test_memory_is_never_less_than_predicted_and_not_far_above(gone: tuple[int, ...]) -> None:
    """Where a block goes an allocator may find places that it did not have before."""
    widths, tables = known()
    blocks = [tables.blocks[index] for index in gone]
    alive = tables.alive_constant - sum((block.alive for block in blocks), np.zeros(1))
    graph = widths.at(widths.full, gone=names(gone))
    predicted = predict_memory(graph, RUNTIME, "fp32").value
    peak = float(np.max(alive)) + tables.resident.constant
    assert 0.999 * predicted <= peak <= 1.35 * predicted


def test_a_block_has_moments_of_its_own() -> None:
    widths, tables = known()
    moments = [set(np.flatnonzero(block.alive)) for block in tables.blocks]
    assert all(moments)
    assert len(set().union(*moments)) == sum(map(len, moments))
    kernels = fuse(widths.graph)
    blocks = {block.name: block for block in residual_blocks(widths.graph)}
    for cost, own in zip(tables.blocks, moments, strict=True):
        assert {kernels[t].op.name for t in own} <= blocks[cost.block].ops
