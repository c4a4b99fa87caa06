"""Files as graphs: kinds, shapes and MACs are those of the traced model; bad files are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tflite_nets import emitted, network, runtime

from edgesdk.cost.micro_arena import micro_arena_bytes
from edgesdk.cost.tflite_form import tflite_form
from edgesdk.errors import ArtifactError, EdgeSDKError, UnsupportedModel
from edgesdk.graph import OpGraph
from edgesdk.model_file import scheme_of
from edgesdk.scheme import Scheme
from edgesdk.trace import trace
from edgesdk_tflite.extent import check_extent
from edgesdk_tflite.flatbuffer import pack, unpack
from edgesdk_tflite.graph import read_graph

pytestmark = pytest.mark.toolchain
FILES = Path(__file__).parents[3] / "shared" / "data" / "mlperf_tiny"

NETWORKS = ("residual", "residual_colour", "separable", "perceptron", "wave", "two_heads")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scheme", ["fp32", "fp16", "int8"])
def test_a_file_computes_what_its_model_computes(name: str, scheme: Scheme) -> None:
    module, examples = network(name)
    traced = trace(module, examples, name=name)
    read = read_graph(emitted(name, scheme).path)
    assert read.macs == traced.macs
    assert scheme_of(read) == scheme


def test_images_and_kernels_are_in_pytorchs_order() -> None:
    graph = read_graph(emitted("separable", "int8").path)
    first = next(op for op in graph.ops if op.kind == "conv2d")
    depthwise = next(op for op in graph.ops if op.attributes["operator"] == "DEPTHWISE_CONV_2D")
    image = next(t for t in graph.tensors.values() if t.role == "input")
    assert image.shape == (1, 3, 16, 16)
    assert graph.tensors[first.parameters[0]].shape[1:] == (3, 3, 3)
    out, per_group, *_ = graph.tensors[depthwise.parameters[0]].shape
    assert (per_group, depthwise.attributes["groups"]) == (1, out)
    assert depthwise.attributes["activation"] in ("relu", "relu6")
    assert depthwise.attributes["scales"] == out


def test_float_ends_of_an_int8_file_are_shown() -> None:
    kinds = [op.kind for op in read_graph(emitted("perceptron", "int8", integer_io=False).path).ops]
    assert kinds == ["quantize", "linear", "linear", "dequantize"]


def changed(tmp_path: Path, change: Callable[[Any], None]) -> Path:
    model = unpack(emitted("residual", "int8").path.read_bytes())
    change(model)
    path = tmp_path / "changed.tflite"
    path.write_bytes(pack(model))
    return path


def test_a_file_without_signature_is_read(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.signatureDefs = None

    assert read_graph(changed(tmp_path, change)).macs > 0


def test_several_subgraphs_are_refused(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.subgraphs.append(model.subgraphs[0])

    with pytest.raises(UnsupportedModel, match="2 subgraphs"):
        read_graph(changed(tmp_path, change))


def test_control_flow_is_refused(tmp_path: Path) -> None:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    def change(model: Any) -> None:
        code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
        code.builtinCode = code.deprecatedBuiltinCode = BuiltinOperator.WHILE

    with pytest.raises(UnsupportedModel, match="WHILE"):
        read_graph(changed(tmp_path, change))


@pytest.mark.parametrize("axis", [0, 1])
def test_only_the_batch_may_be_open(tmp_path: Path, axis: int) -> None:
    def change(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
        signature = list(tensor.shape)
        signature[axis] = -1
        tensor.shapeSignature = signature

    path = changed(tmp_path, change)
    if axis == 0:
        assert read_graph(path).macs > 0
    else:
        with pytest.raises(UnsupportedModel, match="open"):
            read_graph(path)


def test_state_between_inferences_is_refused(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.inputs[0]].isVariable = True

    with pytest.raises(UnsupportedModel, match="from one inference to the next"):
        read_graph(changed(tmp_path, change))


def test_operators_out_of_order_are_refused(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.subgraphs[0].operators.reverse()

    with pytest.raises(ArtifactError, match="before it exists"):
        read_graph(changed(tmp_path, change))


@pytest.mark.parametrize("kept", [0, 1])
def test_an_operator_without_its_kernel_is_refused(tmp_path: Path, kept: int) -> None:
    def change(model: Any) -> None:
        for op in model.subgraphs[0].operators:
            op.inputs = list(op.inputs)[:kept]

    with pytest.raises(ArtifactError):
        read_graph(changed(tmp_path, change))


def test_a_stride_of_zero_is_refused(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        for op in model.subgraphs[0].operators:
            if hasattr(op.builtinOptions, "strideW"):
                op.builtinOptions.strideW = 0

    with pytest.raises(ArtifactError, match="strideW"):
        read_graph(changed(tmp_path, change))


def test_a_small_file_that_claims_much_is_refused(tmp_path: Path) -> None:
    """Many tensors may share one long name; copying it for each of them fills any memory."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builder = flatbuffers.Builder(0)
    name = builder.CreateString("n" * 100_000)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, 10_000)
    for _ in range(10_000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    path = tmp_path / "bomb.tflite"
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(ArtifactError, match="claim"):
        read_graph(path)


def test_real_files_are_within_the_bound() -> None:
    for name in NETWORKS:
        check_extent(emitted(name, "int8").path.read_bytes())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_crashes_the_reader(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(emitted("separable", "int8").path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.tflite"
    path.write_bytes(bytes(damaged))
    try:
        graph = read_graph(path)
    except (ArtifactError, UnsupportedModel):
        return
    assert isinstance(graph, OpGraph)


def arena_error(path: Path, scheme: Scheme, graph: OpGraph, arena: int) -> float:
    return micro_arena_bytes(tflite_form(graph, scheme, integer_io=True)) / arena - 1


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["residual", "residual_colour", "separable", "perceptron"])
def test_the_arena_is_predicted_from_file_and_model(name: str, scheme: Scheme) -> None:
    """Against what TensorFlow Lite Micro's build for this machine reports of its allocations."""
    pytest.importorskip("tflite_micro")
    file = emitted(name, scheme)
    arena = file.open("tflite-micro").memory_bytes()
    assert arena is not None
    module, examples = network(name)
    for graph in (read_graph(file.path), trace(module, examples, name=name)):
        assert abs(arena_error(file.path, scheme, graph, arena)) < 0.02


@pytest.mark.skipif(not FILES.is_dir(), reason="needs ../shared/data/mlperf_tiny")
@pytest.mark.parametrize(
    "name", ["ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8"]
)
def test_mlperf_tiny_arenas(name: str) -> None:
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    from edgesdk_tflite.quiet import captured_output

    path = FILES / f"{name}.tflite"
    interpreter = micro.Interpreter.from_file(str(path), arena_size=1 << 20)
    with captured_output() as output:
        interpreter.print_allocations()
    arena = int(output.text.split("Arena allocation total ")[1].split()[0])
    assert abs(arena_error(path, "int8", read_graph(path), arena)) < 0.02


def test_the_target_reads_files_and_others_do_not(tmp_path: Path) -> None:
    from edgesdk import model_file

    path = emitted("perceptron", "int8").path
    assert model_file.read_graph(path).macs == 12 * 16 + 16 * 4
    with pytest.raises(EdgeSDKError, match=r"no target reads \.pte"):
        model_file.read_graph(tmp_path / "model.pte")
    with pytest.raises(ArtifactError, match="is not a file"):
        model_file.read_graph(tmp_path / "absent.tflite")
    assert model_file.is_model_file("a/b.tflite")
    assert not model_file.is_model_file("a/b.py:task")
    assert runtime().target == "tflite"
