"""Where quantize and dequantize nodes go, with which scales, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import checker, helper
from onnx_graphs import compressed, conv, graph, kernel, samples
from torch import nn

from edgesdk.errors import UnsupportedModel
from edgesdk_onnx.half import LARGEST, convert_to_half, find_overflow
from edgesdk_onnx.placement import place
from edgesdk_onnx.quantize import quantize_int8, quantized_weight
from edgesdk_onnx.ranges import find_ranges
from edgesdk_onnx.session import create_session

pytestmark = pytest.mark.toolchain
MODEL = compressed(nn.Identity(), "int8", (samples(),))
LAYERS = {"layer/r": "block.rnn", "layer/y": "head"}


def reads(proto: Any, result: str) -> list[str]:
    """The kinds of nodes that make what the node with that result reads."""
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    [node] = [n for n in proto.graph.node if result in n.output]
    return [makers.get(name, "constant or input") for name in node.input]


def run(proto: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = create_session(proto.SerializeToString(), threads=1, fuse=False)
    result: np.ndarray[Any, Any] = session.run(None, {"x": x})[0]
    return result


def test_a_convolution_and_its_relu_are_not_separated() -> None:
    relu = helper.make_node("Relu", ["a"], ["b"])
    proto = graph([conv("x", "w", "a"), relu, conv("b", "v", "y")],
                  {"w": kernel(4, 3), "v": kernel(4, 4)})  # fmt: skip
    quantize_int8(proto, MODEL, {})

    checker.check_model(proto, full_check=True)
    assert reads(proto, "a") == ["DequantizeLinear", "DequantizeLinear"]
    assert reads(proto, "b") == ["Conv"]
    assert reads(proto, "b/int8")[0] == "Relu"
    assert [t.name for t in proto.graph.initializer if t.data_type == 1 and len(t.dims) > 1] == []


def test_a_sum_is_fused_into_the_later_convolution_and_its_other_operand_quantized() -> None:
    nodes = [conv("x", "w", "a"), conv("x", "v", "b"), helper.make_node("Add", ["b", "a"], ["y"])]
    proto = graph(nodes, {"w": kernel(3, 3), "v": kernel(3, 3, 1)})
    quantize_int8(proto, MODEL, {})

    assert reads(proto, "y") == ["Conv", "DequantizeLinear"]  # b is made last


def test_a_sum_without_a_convolution_of_its_own_stays_float() -> None:
    relu = helper.make_node("Relu", ["a"], ["b"])
    nodes = [conv("x", "w", "a"), relu, helper.make_node("Add", ["b", "x"], ["y"])]
    proto = graph(nodes, {"w": kernel(3, 3)})

    assert [i for i, _ in place(proto.graph, {"w": 4}).activations] == [0]


def test_a_tensor_is_quantized_once_and_decoded_for_each_reader() -> None:
    nodes = [
        conv("x", "w", "a"),
        conv("x", "v", "b"),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    proto = graph(nodes, {"w": kernel(3, 3), "v": kernel(3, 3, 1)})
    quantize_int8(proto, MODEL, {})

    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 4


@pytest.mark.parametrize(
    ("kind", "attributes", "shape", "axis"),
    [("MatMul", {}, (8, 5), 1), ("Gemm", {"transB": 1}, (5, 8), 0), ("Gemm", {}, (8, 5), 1)],
)
def test_linear_layers_have_a_scale_per_output(
    kind: str, attributes: dict[str, int], shape: tuple[int, int], axis: int
) -> None:
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight *= np.arange(1, 6).reshape((-1, 1) if axis == 0 else (1, -1)).astype(np.float32)
    proto = graph([node], {"w": weight}, shape=(1, 8))
    x = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
    wanted = run(proto, x)
    model = compressed(nn.Identity(), "int8", (torch.from_numpy(x),))
    quantize_int8(proto, model, {})

    scales = next(
        t for t in proto.graph.initializer if t.name.startswith("w/") and t.name.endswith("/scale")
    )
    assert list(scales.dims) == [5]
    np.testing.assert_allclose(run(proto, x), wanted, atol=0.03 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_are_refused_by_name(kind: str) -> None:
    node = helper.make_node(kind, ["x", "w", "r"], ["r"], hidden_size=2)
    with pytest.raises(UnsupportedModel, match=rf"block\.rnn.*{kind}"):
        quantize_int8(graph([node], {"w": kernel(1, 1)}), MODEL, LAYERS)


def test_a_convolution_whose_weights_are_computed_is_refused_by_name() -> None:
    nodes = [helper.make_node("Relu", ["w"], ["v"]), conv("x", "v", "y")]
    with pytest.raises(UnsupportedModel, match="head.*computes its weights"):
        quantize_int8(graph(nodes, {"w": kernel(3, 3)}), MODEL, LAYERS)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="nothing to quantize"):
        quantize_int8(graph([helper.make_node("Relu", ["x"], ["y"])], {}), MODEL, {})


@given(
    weight=arrays.arrays(
        np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
    ),
    axis=st.sampled_from([0, 1, None]),
)
def test_weights_decode_to_within_half_a_step(weight: Any, axis: int | None) -> None:
    integers, scales = quantized_weight(weight, axis)
    shape = [1, 1] if axis is None else [-1 if d == axis else 1 for d in range(2)]
    steps = scales.reshape(shape)

    assert integers.min() >= -127
    assert (np.abs(integers * steps - weight) <= 0.5001 * steps).all()


@settings(deadline=None, max_examples=20)
@given(values=arrays.arrays(np.float32, (1, 64), elements=st.floats(-8, 8, width=16)))
def test_a_range_loses_no_more_than_the_largest_value_would(values: Any) -> None:
    proto = graph([helper.make_node("Identity", ["x"], ["y"])], {}, shape=(1, 64))
    batches = [(torch.from_numpy(values),)]
    found = find_ranges(proto.SerializeToString(), ("y",), batches)["y"]
    largest = float(np.abs(values).max()) or 1.0

    def loss(cut: float) -> float:
        step = cut / 127
        decoded = np.clip(np.round(values / step), -127, 127) * step
        return float(((values - decoded) ** 2).sum())

    bins = 64 * (largest / 4096 * largest / 127 + (largest / 4096) ** 2)  # what the histogram blurs
    assert 0.2 * largest <= found * (1 + 1e-6)
    assert found <= largest * (1 + 1e-6)
    assert loss(found) <= loss(largest) + bins


def test_half_keeps_float32_at_the_boundary_and_the_scales_of_a_resize() -> None:
    nodes = [conv("x", "w", "a"), helper.make_node("Resize", ["a", "", "s"], ["y"], mode="nearest")]
    constants = {"w": kernel(3, 3), "s": np.array([1, 1, 2, 2], np.float32)}
    proto = graph(nodes, constants)
    x = samples(1).numpy()
    wanted = run(proto, x)
    convert_to_half(proto, MODEL, {})

    checker.check_model(proto, full_check=True)
    types = {t.name: t.data_type for t in proto.graph.initializer}
    assert types == {"w": 10, "s": 1}
    assert [v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)] == [
        1,
        1,
    ]
    np.testing.assert_allclose(run(proto, x), wanted, atol=0.01 * np.abs(wanted).max())


def test_values_beyond_float16_are_refused_by_name_and_infinite_masks_are_not() -> None:
    big = graph([conv("x", "w", "y")], {"w": kernel(3, 3) * np.float32(1e6)})
    overflow = find_overflow(big, MODEL, LAYERS)
    assert overflow is not None
    assert "Conv of layer head reaches" in overflow
    with pytest.raises(UnsupportedModel, match="beyond float16"):
        convert_to_half(big, MODEL, LAYERS)

    mask = np.full((1, 1, 1, 8), np.finfo(np.float32).min)
    masked = graph([helper.make_node("Add", ["x", "m"], ["y"])], {"m": mask})
    convert_to_half(masked, MODEL, {})
    stored = np.frombuffer(masked.graph.initializer[0].raw_data, np.float16)
    assert (stored == -LARGEST).all()
