from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from cost_graphs import GraphBuilder, conv_chain, make_runtime, quantity
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cost.features import kernel_table, traffic_bytes
from edgesdk.cost.fusion import fuse
from edgesdk.cost.latency import latency_table, predict_latency
from edgesdk.device import Runtime
from edgesdk.errors import UsageError
from edgesdk.precision_cost import KernelClass, KernelCost, KernelVariant


def with_kernels(
    runtime: Runtime, kernels: Mapping[KernelClass | KernelVariant, KernelCost]
) -> Runtime:
    costs = {scheme: replace(cost, kernels=kernels) for scheme, cost in runtime.precisions.items()}
    return replace(runtime, precisions=costs)


def test_roofline_of_a_hand_computed_graph() -> None:
    runtime = make_runtime(mac=1e6, byte=1e6, op=1e-3, inference=5e-3)
    prediction = predict_latency(conv_chain(channels=8, size=8), runtime, "fp32")
    conv, pool, head = prediction.per_op
    # 8 x 3 x 3 x 3 weights at each of 64 positions; far more MACs than bytes.
    assert conv.latency_ms == pytest.approx(8 * 27 * 64 / 1e3 + 1)
    assert conv.bound == "compute"
    # Reads 8 x 64 floats and writes 8.
    assert pool.latency_ms == pytest.approx((8 * 64 + 8) * 4 / 1e3 + 1)
    assert pool.bound == "memory"
    # Reads 8, 80 weights and 10 biases, writes 10.
    assert head.latency_ms == pytest.approx((8 + 80 + 10 + 10) * 4 / 1e3 + 1)
    assert prediction.overhead_ms == pytest.approx(5)


def test_parts_add_up_and_interval_is_the_profile_s() -> None:
    prediction = predict_latency(conv_chain(), make_runtime(error=1.5), "fp32")
    parts = sum(op.latency_ms for op in prediction.per_op) + prediction.overhead_ms
    total = prediction.total
    assert total.value == pytest.approx(parts)
    assert (total.standing, total.low, total.high) == (
        "predicted",
        pytest.approx(parts / 1.5),
        pytest.approx(parts * 1.5),
    )


def test_unknown_operator_is_priced_as_several_kernels_and_named() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 100, role="input")
    g.same("odd", "my_library.odd", "x", role="output")
    runtime = make_runtime(byte=1e6, op=1e-3, inference=0)
    prediction = predict_latency(g.build(), runtime, "fp32")
    assert prediction.unpriced == ("odd",)
    assert prediction.total.value == pytest.approx(4 * (2 * 400 / 1e3 + 1))


def test_unknown_operator_costs_as_much_as_the_dearest_class() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 100, role="input")
    g.same("odd", "my_library.odd", "x", role="output")
    slow = {"softmax": KernelCost(bytes_per_s=quantity(1e5), op_overhead_s=quantity(0.1))}
    runtime = with_kernels(make_runtime(byte=1e6, op=1e-3, inference=0), slow)
    total = predict_latency(g.build(), runtime, "fp32").total
    assert total.value == pytest.approx(4e3 * (2 * 400 / 1e5 + 0.1))


def test_a_class_costs_what_it_states_and_the_default_for_the_rest() -> None:
    runtime = with_kernels(
        make_runtime(mac=1e6, byte=1e6, op=1e-3, inference=0),
        {"linear": KernelCost(bytes_per_s=quantity(2e6))},
    )
    pool, head = predict_latency(conv_chain(channels=8, size=8), runtime, "fp32").per_op[1:]
    assert head.latency_ms == pytest.approx((8 + 80 + 10 + 10) * 4 / 2e3 + 1)
    assert pool.latency_ms == pytest.approx((8 * 64 + 8) * 4 / 1e3 + 1)


def test_weights_stream_beside_activations_where_the_profile_says_so() -> None:
    runtime = make_runtime(mac=1e15, byte=1e6, op=0, inference=0)
    cost = replace(runtime.precisions["fp32"], weight_bytes_per_s=quantity(1e5))
    runtime = replace(runtime, precisions={"fp32": cost})
    *_, head = predict_latency(conv_chain(channels=8, size=8), runtime, "fp32").per_op
    assert head.latency_ms == pytest.approx((80 + 10) * 4 / 1e2)


def test_inputs_and_reshapes_cost_only_where_stated_and_then_add_up() -> None:
    bare = make_runtime(byte=1e6, op=0, inference=0)
    stated = with_kernels(
        bare,
        {
            "input": KernelCost(bytes_per_s=quantity(1e4)),
            "reshape": KernelCost(bytes_per_s=quantity(1e4)),
        },
    )
    graph = conv_chain(channels=8, size=8)
    before, after = (predict_latency(graph, runtime, "fp32") for runtime in (bare, stated))
    added = {op.op: op.latency_ms for op in after.per_op} | {}
    assert added["image"] == pytest.approx(3 * 64 * 4 / 1e1)
    assert "image" not in {op.op for op in before.per_op}
    assert after.total.value == pytest.approx(sum(op.latency_ms for op in after.per_op))
    assert after.total.value == pytest.approx(before.total.value + added["image"])


def test_table_agrees_with_predictions_of_narrowed_graphs() -> None:
    runtime = make_runtime(mac=1e8, byte=1e9, op=0, inference=1e-5)
    wide = conv_chain(64)
    table = kernel_table(wide, "int8")
    widths = np.array([1.0, 0.5, 0.25])
    inputs, outputs = np.ones((3, len(table.ops))), np.ones((3, len(table.ops)))
    for column, (left, right) in {"conv": (0, 1), "pool": (1, 1), "head": (1, 0)}.items():
        at = table.ops.index(column)
        inputs[:, at] = widths if left else 1.0
        outputs[:, at] = widths if right else 1.0
    priced = latency_table(wide, runtime, ["int8"], inputs=inputs, outputs=outputs)["int8"]
    exact = [predict_latency(conv_chain(n), runtime, "int8").total.value for n in (64, 32, 16)]
    assert priced == pytest.approx(exact, rel=0.02)


def test_known_operators_are_not_named() -> None:
    assert predict_latency(conv_chain(), make_runtime(), "fp32").unpriced == ()


def test_embedding_reads_the_rows_it_needs() -> None:
    g = GraphBuilder()
    g.tensor("tokens", 1, 4, role="input", dtype="int64")
    table = g.tensor("table", 30_000, 64, role="parameter")
    g.op("rows", "embedding", ("tokens",), (1, 4, 64), parameters=(table,), role="output")
    graph = g.build()
    (kernel,) = fuse(graph)
    assert sum(traffic_bytes(kernel, graph, "fp32")) == 2 * 4 * 64 * 4 + 4 * 8


def test_int8_moves_fewer_bytes() -> None:
    graph = conv_chain()
    runtime = make_runtime(mac=1e15, byte=1e6, op=0, inference=0)
    float_ms = predict_latency(graph, runtime, "fp32").total.value
    assert predict_latency(graph, runtime, "int8").total.value < 0.3 * float_ms


def test_scheme_the_runtime_lacks() -> None:
    with pytest.raises(UsageError, match=r"does not compute fp16.*fp32, int8"):
        predict_latency(conv_chain(), make_runtime(), "fp16")


@given(
    narrow=st.integers(1, 64),
    more=st.integers(0, 64),
    mac=st.floats(1e5, 1e13),
    byte=st.floats(1e5, 1e12),
)
def test_more_channels_are_never_cheaper(narrow: int, more: int, mac: float, byte: float) -> None:
    runtime = make_runtime(mac=mac, byte=byte)
    small = predict_latency(conv_chain(narrow), runtime, "int8").total.value
    assert predict_latency(conv_chain(narrow + more), runtime, "int8").total.value >= small


@given(factor=st.floats(1.0, 100.0))
def test_a_faster_device_is_never_slower(factor: float) -> None:
    slow = predict_latency(conv_chain(), make_runtime(mac=1e8, byte=1e8), "fp32")
    fast = predict_latency(conv_chain(), make_runtime(mac=1e8 * factor, byte=1e8 * factor), "fp32")
    assert fast.total.value <= slow.total.value
