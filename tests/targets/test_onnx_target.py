"""The ONNX target: what it promises, emits and refuses, and what reading its files finds."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_graphs import compressed, residual, runtime, samples

from edgesdk import target
from edgesdk.artifact import Check
from edgesdk.compressed import CompressedModel
from edgesdk.errors import ArtifactError, TargetUnavailable, UnsupportedModel
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, Target
from edgesdk_onnx import TARGET
from edgesdk_onnx.export import _refuse_unknown
from edgesdk_onnx.tensorrt import MINIMUM_VERSION, OPERATORS, engine_command

Emitted = tuple[Path, Emission, CompressedModel]


def test_is_a_target_and_imports_no_toolchain() -> None:
    assert isinstance(TARGET, Target)
    assert target.find_target("onnx") is TARGET
    code = (
        "import sys, edgesdk_onnx; edgesdk_onnx.TARGET.toolchain();"
        "print(sorted({'onnx', 'onnxscript', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_unavailable_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = target.installed_version
    monkeypatch.setattr(
        "edgesdk.target.installed_version",
        lambda name: None if name == "onnxscript" else found(name),
    )
    with pytest.raises(TargetUnavailable, match="onnxscript") as caught:
        TARGET.emit(compressed(residual(), "fp32", (samples(),)), runtime(), tmp_path)
    assert caught.value.next_step == "pip install 'edgesdk[onnx]'"


def test_what_runs_it_here_is_not_tensorrt() -> None:
    host = TARGET.host_runtime(runtime())
    assert host is not None
    assert host.standing == "interpreted"
    assert "not TensorRT" in host.note


def test_refuses_other_runtimes_and_integer_inputs_with_a_reason() -> None:
    other = TARGET.capability(dataclasses.replace(runtime(), delegate="dla"))
    assert other.schemes == ()
    assert "'dla'" in other.refused["fp32"]
    integer = TARGET.capability(dataclasses.replace(runtime(), integer_io=True))
    assert integer.schemes == ("fp32", "fp16")


def test_the_profiles_ask_for_a_tensorrt_that_reads_the_file() -> None:
    version = tuple(int(part) for part in runtime().minimum_version.split("."))
    assert version >= MINIMUM_VERSION


@pytest.mark.parametrize(
    ("scheme", "options"), [("fp32", ""), ("fp16", "--stronglyTyped "), ("int8", "--int8 --fp16 ")]
)
def test_engine_command(scheme: Scheme, options: str) -> None:
    command = engine_command("model.onnx", scheme)
    assert command == f"trtexec --onnx=model.onnx {options}--saveEngine=model.engine"
    assert "fp16" not in engine_command("model.onnx", "int8", float16=False)


def test_operators_that_tensorrt_does_not_read_are_refused_by_layer() -> None:
    node = helper.make_node("DFT", ["x"], ["y"], name="front/DFT")
    graph = helper.make_graph([node], "model", [], [])
    with pytest.raises(UnsupportedModel, match="layer front becomes the operator DFT"):
        _refuse_unknown(graph, {"front/DFT": "front"})


def test_every_listed_operator_is_one_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert known >= OPERATORS


@pytest.fixture(scope="module", params=TARGET.capability(runtime()).schemes)
def emitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    model = compressed(residual(), request.param, (samples(),))
    folder = tmp_path_factory.mktemp(request.param)
    return folder, TARGET.emit(model, runtime(), folder), model


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    model = compressed(residual(), "int8", (samples(),))
    folder = tmp_path_factory.mktemp("int8")
    return folder, TARGET.emit(model, runtime(), folder), model


@pytest.mark.slow
@pytest.mark.toolchain
def test_a_file_is_what_was_asked(emitted: Emitted, tmp_path: Path) -> None:
    folder, emission, model = emitted
    assert [check for check in TARGET.checks(folder, emission, model) if not check.passed] == []
    assert emission.device_commands == (engine_command("model.onnx", model.scheme),)
    assert {"stem/Conv", "conv/Conv", "head/Gemm"} <= set(emission.layer_of)
    assert emission.layer_of["conv/Conv"] == "conv"
    session = TARGET.open(folder, emission, "onnxruntime", 1)
    [found] = session.run([samples(1).numpy()])
    with torch.no_grad():
        wanted = model.module(samples(1)).numpy()
    tolerance = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.1}[model.scheme]
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
    counts = {(op.op, op.dtype): op.count for op in TARGET.operators(folder, emission)}
    wanted_type = {"fp32": "float32", "fp16": "float16", "int8": "int8"}[model.scheme]
    assert counts["Conv", wanted_type] == 2
    assert counts["Gemm", wanted_type] == 1
    if model.scheme == "int8":
        assert counts["AveragePool", "int8"] == 1

    again = TARGET.emit(model, runtime(), tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert again == emission
    assert str(Path(__file__).parent).encode() not in (folder / "model.onnx").read_bytes()


def spoil_weight(graph: Any) -> None:
    for tensor in graph.initializer:
        if tensor.name == "conv.weight/int8":
            array = numpy_helper.to_array(tensor).copy()
            array[0, 0] = -array[0, 0]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def leave_in_float(graph: Any) -> None:
    """What a quantizer that silently skips a layer writes."""
    [layer] = [node for node in graph.node if node.name == "stem/Conv"]
    [decoder] = [node for node in graph.node if layer.input[0] in node.output]
    [quantizer] = [node for node in graph.node if decoder.input[0] in node.output]
    layer.input[0] = quantizer.input[0]
    graph.node.remove(decoder)
    graph.node.remove(quantizer)


def shift_zero(graph: Any) -> None:
    for tensor in graph.initializer:
        if tensor.name == "in_0/zero_point":
            tensor.CopyFrom(numpy_helper.from_array(np.int8(3), tensor.name))


def rescale(graph: Any) -> None:
    """Decode with another scale than the tensor was quantized with."""
    graph.initializer.append(numpy_helper.from_array(np.float32(9.0), "other"))
    next(n for n in graph.node if n.name.startswith("stem/Conv/input_0")).input[1] = "other"


def rename(graph: Any) -> None:
    graph.output[0].name = graph.node[-1].output[0] = "other"


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("change", "check", "detail"),
    [
        (spoil_weight, "weights", "conv are not in the file"),
        (leave_in_float, "precision", "stem .Conv, float32, int8 weights."),
        (shift_zero, "TensorRT's rules", "not an int8 zero"),
        (rescale, "TensorRT's rules", "does not decode what was quantized"),
        (rename, "inputs and outputs", "other"),
    ],
)
def test_a_wrong_file_fails_its_check(
    change: Callable[[Any], None], check: str, detail: str, int8: Emitted, tmp_path: Path
) -> None:
    folder, emission, model = int8
    proto = onnx.load(str(folder / "model.onnx"))
    change(proto.graph)
    onnx.save(proto, str(tmp_path / "model.onnx"))

    failed = [c for c in TARGET.checks(tmp_path, emission, model) if not c.passed]
    assert [found.name for found in failed] == [check]
    assert_mentions(failed[0], detail)


def assert_mentions(check: Check, detail: str) -> None:
    import re

    assert re.search(detail, check.detail), check.detail


@pytest.mark.slow
@pytest.mark.toolchain
def test_damaged_files_and_weights_elsewhere_are_refused(int8: Emitted, tmp_path: Path) -> None:
    folder, emission, _ = int8
    data = (folder / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        TARGET.operators(tmp_path, emission)
    with pytest.raises(ArtifactError, match="cannot load"):
        TARGET.open(tmp_path, emission, "onnxruntime", 1)

    proto = onnx.load(str(folder / "model.onnx"))
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ArtifactError, match="another file"):
        TARGET.operators(tmp_path, emission)
