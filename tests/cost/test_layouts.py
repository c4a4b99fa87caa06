"""What each format lays around the weights, by hand on small graphs."""

import pytest
from cost_graphs import GraphBuilder, conv_chain

from edgesdk.cost import mil_bytes as mil
from edgesdk.cost import onnx_bytes as onnx
from edgesdk.cost.coreml_size import coreml_bytes
from edgesdk.cost.executorch_size import executorch_bytes
from edgesdk.cost.flatbuffer import string_bytes, table_bytes, vector_bytes
from edgesdk.cost.onnx_size import onnx_bytes
from edgesdk.cost.program_bytes import SEGMENT_ALIGNMENT
from edgesdk.cost.size import predict_size
from edgesdk.cost.tflite_size import tflite_bytes
from edgesdk.cost.unrolled import unrolled
from edgesdk.graph import Op, OpGraph
from edgesdk.scheme import Scheme


def linear(features: int, inputs: int = 256) -> OpGraph:
    g = GraphBuilder()
    g.tensor("x", 1, inputs, role="input")
    g.linear("layer", "x", features, role="output")
    return g.build()


def image(*kinds: str) -> GraphBuilder:
    """A 1x1 convolution to 8 channels and an operator, again and again."""
    g = GraphBuilder()
    last = g.tensor("image", 1, 8, 4, 4, role="input")
    for index, kind in enumerate(kinds):
        last = g.conv(f"conv{index}", last, 8)
        last = g.same(f"act{index}", kind, last)
    return g


def lstm(steps: int, *, bidirectional: bool = False) -> OpGraph:
    g = GraphBuilder()
    g.tensor("x", 1, steps, 6, role="input")
    names = []
    for direction in range(1 + bidirectional):
        names += [
            g.tensor(f"weight_ih{direction}", 16, 6, role="parameter"),
            g.tensor(f"weight_hh{direction}", 16, 4, role="parameter"),
            g.tensor(f"bias_ih{direction}", 16, role="parameter"),
            g.tensor(f"bias_hh{direction}", 16, role="parameter"),
        ]
    attributes = {"batch_first": True, "bidirectional": bidirectional, "num_layers": 1}
    shape = (1, steps, 4 * (1 + bidirectional))
    parameters = tuple(names)
    g.op("lstm", "lstm", ("x",), shape, parameters=parameters, attributes=attributes, role="output")
    return g.build()


def test_parts_of_a_flatbuffer_by_hand() -> None:
    assert table_bytes() == 4
    assert table_bytes(4, 4) == 12
    assert table_bytes(1, 4) == 12
    assert table_bytes(8, 8) == 24  # eight-byte fields align the table
    assert vector_bytes(3) == 16
    assert string_bytes(3) == 8
    assert string_bytes(4) == 12  # the closing zero needs a byte


def test_messages_of_a_protocol_buffer_by_hand() -> None:
    assert (mil.varint(127), mil.varint(128)) == (1, 2)
    assert mil.field(127) == 129
    assert mil.field(128) == 131
    # As coremltools writes the constant cast_dtype = "fp16": 88 bytes, and 2 in its block.
    assert mil.constant("cast_dtype", mil.immediate(4)) == 88 + 2
    # As the ONNX exporter writes the attribute group = 1, behind its tag and length.
    assert onnx.number("group") == 12 + 2


def test_executorch_stores_each_constant_in_a_segment() -> None:
    grown = executorch_bytes(linear(2), "fp32") - executorch_bytes(linear(1), "fp32")
    assert grown == pytest.approx(1024, abs=SEGMENT_ALIGNMENT)
    four, two = (executorch_bytes(linear(1), scheme) for scheme in ("int8", "fp32"))
    assert four > two  # 256 weights: three constants more weigh more than narrow weights save


def test_what_xnnpack_does_not_take_cuts_the_file_in_pieces() -> None:
    whole = executorch_bytes(image("relu", "relu").build(), "fp32")
    assert executorch_bytes(image("cumsum", "relu").build(), "fp32") > whole + 500


@pytest.mark.parametrize("target", ["executorch", "coreml"])
def test_activations_that_int8_computes_in_float_cost_conversions(target: str) -> None:
    def added(scheme: Scheme) -> float:
        clamps, sigmoids = (image(*(kind,) * 4).build() for kind in ("relu", "sigmoid"))
        known = predict_size(clamps, target, scheme).value
        return predict_size(sigmoids, target, scheme).value - known

    assert added("int8") > added("fp32" if target == "executorch" else "fp16") + 200


def test_weights_that_layers_share_are_stored_once() -> None:
    def chain(*, shared: bool) -> OpGraph:
        g = GraphBuilder()
        g.tensor("x", 1, 64, role="input")
        g.linear("first", "x", 64)
        own = g.ops[0].parameters
        if shared:
            g.op("second", "linear", ("first",), (1, 64), parameters=own, role="output")
        else:
            g.linear("second", "first", 64, role="output")
        return g.build()

    for target in ("executorch", "tflite"):
        shared, own = (
            predict_size(chain(shared=is_shared), target, "fp32").value
            for is_shared in (True, False)
        )
        assert own > shared + 4 * 64 * 64
    shared, own = (coreml_bytes(chain(shared=is_shared), "fp16") for is_shared in (True, False))
    assert own > shared + 2 * 64 * 64


def test_core_ml_writes_short_constants_into_the_program() -> None:
    assert mil.blob_bytes(9, 2) == 0
    assert mil.blob_bytes(10, 2) == 64 + 64
    assert mil.blob_bytes(33, 2) == 64 + 128


def test_names_weigh_in_core_ml_and_onnx() -> None:
    short, long = GraphBuilder(), GraphBuilder()
    for g, name in ((short, "a"), (long, "a" * 30)):
        g.tensor("x", 1, 32, role="input")
        g.linear(name, "x", 4, role="output")
    for lay_out, scheme in ((coreml_bytes, "fp16"), (onnx_bytes, "fp32")):
        assert lay_out(long.build(), scheme) > lay_out(short.build(), scheme) + 4 * 29


def kinds_of(ops: tuple[Op, ...]) -> list[str]:
    return [op.kind for op in ops]


def test_an_lstm_is_a_step_after_another() -> None:
    plain = conv_chain()
    assert unrolled(plain) is plain
    found = unrolled(lstm(3))
    kinds = kinds_of(found.ops)
    assert kinds.count("tanh") == 2 * 3
    assert kinds.count("sigmoid") == 3 * 3
    assert kinds.count("linear") == 1 + 2  # of all inputs at once, and of each state but the first
    assert found.ops[-1].outputs == ("lstm",)
    assert kinds_of(unrolled(lstm(3, bidirectional=True)).ops).count("tanh") == 2 * 2 * 3


def test_every_step_of_an_lstm_is_stored_but_in_onnx() -> None:
    for lay_out, scheme in ((executorch_bytes, "fp32"), (coreml_bytes, "fp16")):
        assert lay_out(lstm(9), scheme) > lay_out(lstm(8), scheme) + 1000
    assert onnx_bytes(lstm(9), "fp32") == onnx_bytes(lstm(8), "fp32")
    long, short = (tflite_bytes(lstm(steps), "fp32", integer_io=False) for steps in (9, 8))
    assert long > short + 500
