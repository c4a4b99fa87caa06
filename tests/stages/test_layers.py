"""Layers before and after: they add up to what the cost model says of each whole network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from shortcuts import IMAGES, resnet
from torch import nn
from whole_artifacts import plan

from edgesdk.compress.depth import shortened
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.size import stored_bytes
from edgesdk.device import DeviceProfile
from edgesdk.graph import OpGraph
from edgesdk.plan import Prune, PrunedGroup, Quantize
from edgesdk.planner.sensitivity import BlockPoint, FormatPoint, GroupCurve, Sensitivity
from edgesdk.planner.widths import WidthModel
from edgesdk.stages.layers import compare_layers
from edgesdk.trace import trace


def graph_of(width: int) -> OpGraph:
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4), nn.Softmax(1))
    return trace(model, (torch.zeros(1, 8),), name="network")


def pruned(removed: int) -> Prune:
    group = PrunedGroup(layer="0", width_before=32, removed=tuple(range(removed)))
    return Prune(ratio=0.5, channel_multiple=4, importance="taylor", groups=(group,))


def sensitivity(graph: OpGraph) -> Sensitivity:
    """Return one of a group that may keep 16 or all of its 32 channels, losing 0.25 or nothing."""
    order = tuple((channel,) for channel in range(32))
    curve = GroupCurve(layer="0", order=order, choices=(16, 32), losses=(0.25, 0.0))
    return Sensitivity(
        channel_multiple=4,
        importance="taylor",
        inputs="calibration",
        samples=64,
        metric=None,
        metric_samples=0,
        noise=0.0,
        drop_range=(-1.0, 1.0),
        widths=WidthModel(graph=graph, groups=("0",), full=(32,), extents=()),
        curves=(curve,),
        formats=(FormatPoint(scheme="fp32", loss=0.125, disagreement=0.0, drop=None),),
        mixes={},
        layers=(),
        joint=(),
        notes=(),
    )


def test_layers_add_up_to_both_networks(reference_device: DeviceProfile) -> None:
    runtime = reference_device.runtime_for(None)
    before, after = graph_of(32), graph_of(16)
    found = compare_layers(before, after, plan(scheme="fp32", steps=(pruned(16),)), runtime)
    costs = [(row.before, row.after) for row in found.layers]
    assert [row.layer for row in found.layers] == ["0", "2", "3"]
    for side, graph, overhead_ms in (
        (0, before, found.overhead_ms_before),
        (1, after, found.overhead_ms_after),
    ):
        cost = [pair[side] for pair in costs]
        spent = sum(item.predicted_ms for item in cost if item) + overhead_ms
        assert spent == pytest.approx(predict_latency(graph, runtime, "fp32").total.value)
        assert sum(item.weight_bytes for item in cost if item) == stored_bytes(graph, "fp32")
        assert sum(item.macs for item in cost if item) == graph.macs
    assert [(b.width, a.width) for b, a in costs if a and b] == [(32, 16), (4, 4), (None, None)]
    assert {row.expected_loss for row in found.layers} == {None}
    assert found.format_loss is None


def test_a_layer_of_another_scheme_is_stored_and_priced_in_it(
    reference_device: DeviceProfile,
) -> None:
    runtime = reference_device.runtime_for(None)
    graph = graph_of(32)
    steps = (Quantize(scheme="fp32", layer_schemes={"2": "fp16"}),)
    found = compare_layers(graph, graph, plan(scheme="fp32", steps=steps), runtime)
    after = {row.layer: row.after for row in found.layers if row.after is not None}
    assert {layer: cost.weight_bits for layer, cost in after.items()} == {"0": 32, "2": 16, "3": 32}
    assert after["2"].weight_bytes == 2 * (32 * 4 + 4)
    mixed = predict_latency(graph, runtime, "fp32", {"2": "fp16"}).total.value
    spent = sum(cost.predicted_ms for cost in after.values()) + found.overhead_ms_after
    assert spent == pytest.approx(mixed)


def test_what_a_narrowed_group_loses_stands_at_its_layer(reference_device: DeviceProfile) -> None:
    runtime = reference_device.runtime_for(None)
    before, after = graph_of(32), graph_of(16)
    known = sensitivity(before)
    made = plan(scheme="fp32", steps=(pruned(16),))
    found = compare_layers(before, after, made, runtime, known)
    assert [row.expected_loss for row in found.layers] == [0.25, None, None]
    assert found.format_loss == 0.125
    edited = plan(scheme="fp32", steps=(pruned(15),))
    found = compare_layers(before, after, edited, runtime, known)
    assert {row.expected_loss for row in found.layers} == {None}


def test_a_block_that_went_shows_its_loss_at_its_first_layer(
    reference_device: DeviceProfile,
) -> None:
    model = resnet((2,), (8,))
    before = trace(model, IMAGES, name="network")
    after = trace(shortened(model, ["stages.0.1"]), IMAGES, name="network")
    step = Prune(
        ratio=0.0,
        channel_multiple=4,
        importance="taylor",
        groups=(),
        removed_blocks=("stages.0.1", "stages.0.9"),
    )
    known = replace(
        sensitivity(before),
        blocks=(BlockPoint(block="stages.0.0", loss=2.0), BlockPoint(block="stages.0.1", loss=0.5)),
    )
    made = plan(scheme="fp32", steps=(step,))
    found = compare_layers(before, after, made, reference_device.runtime_for(None), known)
    losses = {row.layer: row.expected_loss for row in found.layers if row.expected_loss}
    assert losses == {"stages.0.1.conv1": 0.5}
    gone = [row.layer for row in found.layers if row.after is None]
    assert gone
    assert all(layer.startswith("stages.0.1") for layer in gone)
