from cost_graphs import GraphBuilder, conv_chain

from edgesdk.cost.tflite_form import tflite_form
from edgesdk.graph import OpGraph


def operators(graph: OpGraph, **kwargs: bool) -> list[str]:
    form = tflite_form(graph, "int8", **{"integer_io": True, **kwargs})
    return [op.operator for op in form.ops]


def test_norms_clamps_and_the_flattening_of_a_pooled_image_disappear() -> None:
    assert operators(conv_chain()) == ["CONV_2D", "MEAN", "FULLY_CONNECTED"]


def test_float_ends_are_converted() -> None:
    found = operators(conv_chain(), integer_io=False)
    assert (found[0], found[-1]) == ("QUANTIZE", "DEQUANTIZE")


def test_strided_convolutions_are_padded_by_an_operator_of_their_own() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 4, 8, 8, role="input")
    g.conv("y", "x", 4, kernel=3, stride=2, role="output")
    assert operators(g.build()) == ["PAD", "CONV_2D"]


def test_an_image_is_transposed_before_it_is_flattened() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 4, 8, 8, role="input")
    g.conv("a", "x", 4)
    g.op("flat", "flatten", ("a",), (1, 256))
    g.linear("y", "flat", 3, role="output")
    assert operators(g.build()) == ["CONV_2D", "TRANSPOSE", "RESHAPE", "FULLY_CONNECTED"]


def test_float16_kernels_are_restored_by_a_dequantize() -> None:
    form = tflite_form(conv_chain(), "fp16", integer_io=False)
    assert [op.operator for op in form.ops].count("DEQUANTIZE") == 2


def test_a_kernel_and_its_bias_have_a_scale_a_channel() -> None:
    form = tflite_form(conv_chain(channels=8), "int8", integer_io=True)
    assert [t.scales for t in form.tensors if t.is_constant and t.scales > 1] == [8, 8, 10, 10]
