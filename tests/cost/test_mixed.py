"""Costs of networks whose layers differ in their number format."""

from dataclasses import replace

import numpy as np
import pytest
from cost_graphs import GraphBuilder, conv_chain, make_runtime

from edgesdk.cost.latency import latency_table, predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_size, stored_bytes
from edgesdk.device import Runtime
from edgesdk.errors import UsageError
from edgesdk.graph import OpGraph
from edgesdk.scheme import Scheme


def linears(width: int = 64) -> OpGraph:
    g = GraphBuilder()
    g.tensor("x", 8, width, role="input")
    g.linear("up", "x", 4 * width)
    g.linear("down", "up", width)
    g.linear("head", "down", 10)
    return g.build()


def runtime_of(target: str, *schemes: Scheme) -> Runtime:
    runtime = make_runtime(target=target)
    cost = runtime.precisions["fp32"]
    slower = {s: replace(cost, mac_per_s=replace(cost.mac_per_s, value=cost.mac_per_s.value / i))
              for i, s in enumerate(schemes, start=1)}  # fmt: skip
    return replace(runtime, precisions=slower)


def test_each_layer_costs_what_its_own_scheme_costs() -> None:
    graph = linears()
    runtime = runtime_of("tflite", "fp32", "int8_dynamic")
    path = next(op.layer for op in graph.ops if op.name == "up")
    whole = {s: predict_latency(graph, runtime, s) for s in ("fp32", "int8_dynamic")}
    mixed = predict_latency(graph, runtime, "int8_dynamic", {path: "fp32"})

    ms = {s: {op.op: op.latency_ms for op in found.per_op} for s, found in whole.items()}
    found = {op.op: op.latency_ms for op in mixed.per_op}
    assert found["up"] == ms["fp32"]["up"]
    assert found["down"] == ms["int8_dynamic"]["down"]


def test_the_table_of_schemes_is_what_single_predictions_say() -> None:
    graph = linears()
    runtime = runtime_of("executorch", "fp32", "int8_dynamic", "int4_dynamic")
    schemes: tuple[Scheme, ...] = ("fp32", "int8_dynamic", "int4_dynamic")
    for scheme in schemes:
        prediction = predict_latency(graph, runtime, scheme)
        [total] = np.atleast_1d(latency_table(graph, runtime, [scheme])[scheme])
        assert total == pytest.approx(prediction.total.value)


def test_a_layer_that_cannot_be_int4_costs_what_it_gets() -> None:
    graph = linears(width=24)
    runtime = runtime_of("tflite", "fp32", "int8_dynamic", "int4_dynamic")
    narrow = predict_latency(graph, runtime, "int4_dynamic").per_op
    wide = predict_latency(graph, runtime, "int8_dynamic").per_op
    by_op = {op.op: op.latency_ms for op in wide}
    up = next(op for op in narrow if op.op == "up")
    assert up.latency_ms == by_op["up"]


def test_a_scheme_that_the_device_does_not_list_is_an_error() -> None:
    runtime = runtime_of("tflite", "fp32", "int8")
    with pytest.raises(UsageError, match="does not compute int8_dynamic"):
        predict_latency(linears(), runtime, "int8", {linears().ops[0].layer: "int8_dynamic"})


def test_a_float_layer_in_an_int8_network_pays_for_its_conversions() -> None:
    graph = conv_chain()
    runtime = runtime_of("executorch", "fp32", "int8")
    first = next(op for op in graph.ops if op.kind == "conv2d")
    mixed = predict_latency(graph, runtime, "int8", {first.layer: "fp32"})
    extra = [op.kind for op in mixed.per_op if op.kind in ("quantize", "dequantize")]
    assert extra == ["dequantize", "quantize"]
    assert predict_memory(graph, runtime, "int8", {first.layer: "fp32"}).value > (
        predict_memory(graph, runtime, "int8").value
    )


def test_int4_is_half_a_byte_and_its_scales() -> None:
    graph = linears()
    weights = 64 * 256 + 256 * 64 + 64 * 10
    biases = 256 + 64 + 10
    assert stored_bytes(graph, "int4_dynamic") == weights / 2 + weights / 32 * 2 + 4 * biases
    sizes = {
        scheme: predict_size(graph, target, scheme).value
        for target in ("tflite", "executorch")
        for scheme in ("fp32", "int8_dynamic", "int4_dynamic")
    }
    assert sizes["int4_dynamic"] < sizes["int8_dynamic"] < sizes["fp32"]
    held = predict_size(graph, "tflite", "int4_dynamic", layer_schemes={graph.ops[0].layer: "fp32"})
    assert held.value > sizes["int4_dynamic"] + 3 * 64 * 256
