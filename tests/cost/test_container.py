"""What each format's file holds, counted by hand on small graphs."""

import pytest
from cost_graphs import GraphBuilder, conv_chain
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cost.container import (
    container_counts,
    coreml_counts,
    executorch_counts,
    tflite_counts,
)
from edgesdk.scheme import Scheme


def convolutions(*activations: str) -> GraphBuilder:
    """An image, then a 1x1 convolution to 8 channels and an activation, again and again."""
    g = GraphBuilder()
    last = g.tensor("image", 1, 8, 4, 4, role="input")
    for index, kind in enumerate(activations):
        last = g.conv(f"conv{index}", last, 8)
        last = g.same(f"act{index}", kind, last)
    return g


def test_constants_of_executorch_are_aligned_to_16_bytes() -> None:
    g = GraphBuilder()
    g.tensor("image", 1, 3, 4, 4, role="input")
    g.conv("conv", "image", 5, role="output")
    known, counts = executorch_counts(g.build(), "fp32")
    assert known == 64 + 32  # 15 weights, and the 5 biases that the converter writes
    assert counts["convolution"] == 1
    known, counts = executorch_counts(g.build(), "int8")
    assert known == 16 + 32 + 32  # weights of a byte, biases, scales
    assert (counts["conversion"], counts["channel"]) == (2, 5)


def test_weights_that_layers_share_are_known_once() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 8, role="input")
    g.linear("first", "x", 8)
    g.op("second", "linear", ("first",), (1, 8), parameters=g.ops[0].parameters, role="output")
    known, counts = executorch_counts(g.build(), "fp32")
    assert known == 4 * 64 + 4 * 8
    assert counts["linear"] == 2
    assert coreml_counts(g.build(), "fp16")[0] == 64 + 128  # 8 biases are in the program


def test_what_xnnpack_does_not_take_cuts_the_file_in_pieces() -> None:
    whole = executorch_counts(convolutions("relu", "relu").build(), "fp32")[1]
    assert (whole["piece"], whole["portable operator"], whole["other node"]) == (1, 0, 0)
    cut = executorch_counts(convolutions("cumsum", "relu").build(), "fp32")[1]
    assert (cut["piece"], cut["portable operator"]) == (2, 1)
    inside = executorch_counts(convolutions("relu", "relu").build(), "int8")[1]
    outside = executorch_counts(convolutions("cumsum", "relu").build(), "int8")[1]
    assert outside["conversion"] == inside["conversion"] + 2


@pytest.mark.parametrize(("kind", "nodes"), [("sigmoid", 1), ("silu", 2)])
def test_activations_that_int8_computes_in_float_are_converted(kind: str, nodes: int) -> None:
    graph = convolutions(kind).build()
    assert executorch_counts(graph, "fp32")[1]["other node"] == nodes
    assert executorch_counts(graph, "int8")[1]["conversion"] == 4


def test_core_ml_writes_a_header_before_each_constant_of_ten_elements() -> None:
    g = GraphBuilder()
    g.tensor("image", 1, 4, 4, 4, role="input")
    g.conv("wide", "image", 16)
    g.conv("narrow", "wide", 1, role="output")
    known, counts = coreml_counts(g.build(), "fp16")
    # 64 weights and 16 biases, then 16 weights; one bias is written into the program.
    assert known == (64 + 128) + (64 + 64) + (64 + 64)
    assert counts["convolution"] == 2


def test_core_ml_converts_around_every_kernel_in_int8() -> None:
    g = convolutions("relu")
    g.same("sum", "add", "act0", "image", role="output")
    counts = coreml_counts(g.build(), "int8")[1]
    assert counts["conversion"] == 2 * (2 + 1) + 1
    assert counts["channel"] == 8


def test_tflite_counts_the_tensors_of_the_file() -> None:
    plain_known, plain = tflite_counts(conv_chain(), "fp32", integer_io=False)
    known, counts = tflite_counts(conv_chain(), "int8", integer_io=True)
    assert plain["quantized tensor"] == 0
    assert counts["tensor"] - counts["quantized tensor"] == 1  # the shape that a reshape reads
    assert counts["constant"] == plain["constant"]
    assert known < plain_known
    more = tflite_counts(conv_chain(), "int8", integer_io=False)[1]
    assert more["tensor"] == counts["tensor"] + 2  # float input and output


EMITTED: tuple[tuple[str, Scheme], ...] = (
    ("tflite", "int8"), ("executorch", "int8"), ("coreml", "fp16"),
)  # fmt: skip
WIDTHS: tuple[tuple[Scheme, int], ...] = (("fp32", 4), ("int8", 1))


def test_a_target_from_elsewhere_is_not_counted() -> None:
    assert container_counts(conv_chain(), "somebody_else", "int8", integer_io=False) is None
    for target, scheme in EMITTED:
        assert container_counts(conv_chain(), target, scheme, integer_io=False) is not None


@given(st.integers(1, 40))
def test_what_is_known_holds_at_least_the_weights(channels: int) -> None:
    weights = 27 * channels + 10 * channels
    for scheme, width in WIDTHS:
        assert executorch_counts(conv_chain(channels), scheme)[0] >= width * weights
        assert tflite_counts(conv_chain(channels), scheme, integer_io=False)[0] >= width * weights
