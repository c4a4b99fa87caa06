import pytest
import torch
from cost_graphs import GraphBuilder, conv_chain, make_runtime
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesdk.cost.fusion import fuse
from edgesdk.cost.memory import plan_buffers, predict_memory
from edgesdk.errors import UsageError
from edgesdk.graph import OpGraph
from edgesdk.trace import trace

FLASH = {"weights_in_ram": False}


def residual() -> OpGraph:
    """x -> a -> b; b + a -> c: at the addition three tensors of 1024 floats are live."""
    g = GraphBuilder()
    g.tensor("x", 1, 16, 4, 4, role="input")
    g.conv("a", "x", 64)
    g.conv("b", "a", 64)
    g.same("c", "add", "b", "a", role="output")
    return g.build()


def test_peak_of_a_hand_computed_residual_block() -> None:
    figure = predict_memory(residual(), make_runtime(**FLASH), "fp32")
    assert figure.value == 3 * 64 * 16 * 4
    assert predict_memory(residual(), make_runtime(**FLASH), "int8").value == 3 * 64 * 16


def test_a_chain_needs_two_tensors_at_a_time() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 8, 4, 4, role="input")
    for before, name in zip(("x", "a", "b", "c"), ("a", "b", "c", "d"), strict=True):
        g.conv(name, before, 8, role="output" if name == "d" else "activation")
    assert predict_memory(g.build(), make_runtime(**FLASH), "fp32").value == 2 * 8 * 16 * 4


def test_folded_and_renamed_tensors_take_nothing() -> None:
    graph = conv_chain(channels=8, size=8)
    kernels = fuse(graph)
    buffers = plan_buffers(kernels, graph, "fp32")
    # image, convolution with its batch norm and ReLU, pool (which flatten renames), head
    assert sorted(item.size_bytes for item in buffers) == [32, 48, 3 * 64 * 4, 8 * 64 * 4]


def test_weights_count_where_they_are_in_ram() -> None:
    graph = conv_chain(channels=8)
    in_flash = predict_memory(graph, make_runtime(**FLASH), "int8").value
    in_ram = predict_memory(graph, make_runtime(), "int8").value
    assert in_ram - in_flash == 8 * 27 + 8 * 4 + 80 + 10 * 4


def test_float_boundary_of_an_int8_model_counts_twice() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 64, role="input")
    g.linear("y", "x", 64, role="output")
    integer = predict_memory(g.build(), make_runtime(**FLASH), "int8").value
    floating = predict_memory(g.build(), make_runtime(integer_io=False, **FLASH), "int8").value
    assert integer == 64 + 64
    assert floating == 64 * 4 + integer, "the float input beside both int8 tensors"


def test_tflite_pads_strided_convolutions_apart() -> None:
    def network(stride: int) -> OpGraph:
        g = GraphBuilder()
        g.tensor("x", 1, 16, 32, 32, role="input")
        g.conv("y", "x", 1, kernel=3, stride=stride, role="output")
        return g.build()

    tflite, coreml = make_runtime(**FLASH), make_runtime(target="coreml", **FLASH)
    assert predict_memory(network(2), tflite, "int8").value == 16 * (32 * 32 + 34 * 34)
    assert predict_memory(network(1), tflite, "int8").value == 17 * 32 * 32
    assert predict_memory(network(2), coreml, "int8").value == 16 * 32 * 32 + 16 * 16


def test_xnnpack_points_at_the_pixels_of_larger_kernels() -> None:
    def memory(delegate: str, kernel: int) -> float:
        g = GraphBuilder()
        g.tensor("x", 1, 4, 8, 8, role="input")
        g.conv("y", "x", 4, kernel=kernel, role="output")
        runtime = make_runtime(delegate=delegate, target="executorch", **FLASH)
        return predict_memory(g.build(), runtime, "fp32").value

    assert memory("xnnpack", 3) - memory("other", 3) == 64 * 9 * 8
    assert memory("xnnpack", 1) == memory("other", 1)


def test_unchecked_runtimes_have_a_wider_interval() -> None:
    def factor(**runtime: str) -> float:
        figure = predict_memory(residual(), make_runtime(**runtime, **FLASH), "fp32")  # type: ignore[arg-type]
        return figure.upper / figure.value

    micro, xnnpack = factor(runtime="tflite-micro"), factor(delegate="xnnpack")
    assert 1 < micro <= xnnpack < factor(delegate="qualcomm")


def test_scheme_the_runtime_lacks() -> None:
    with pytest.raises(UsageError, match="does not compute fp16"):
        predict_memory(residual(), make_runtime(), "fp16")


@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_every_way_to_write_padding(padding: str | int) -> None:
    module = nn.Conv2d(2, 3, 3, padding=padding)
    graph = trace(module, (torch.zeros(1, 2, 8, 8),), name="conv")
    assert predict_memory(graph, make_runtime(delegate="xnnpack"), "fp32").value > 0


@given(st.integers(1, 32), st.integers(0, 32))
def test_more_channels_never_take_less(narrow: int, more: int) -> None:
    runtime = make_runtime(delegate="xnnpack")
    small = predict_memory(conv_chain(narrow), runtime, "int8").value
    assert predict_memory(conv_chain(narrow + more), runtime, "int8").value >= small
