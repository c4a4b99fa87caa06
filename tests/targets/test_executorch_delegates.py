"""Files for delegates that nothing here runs: what is emitted, refused, and read back from them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from executorch_nets import compressed, model_of, runtime, trained
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compress.pt2e import quantize_graph
from edgesdk.compressed import CompressedModel
from edgesdk.cost.size import predict_size
from edgesdk.device import Runtime
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.scheme import SCHEMES
from edgesdk.stages.delegation import delegated_share
from edgesdk.trace import trace
from edgesdk_executorch import TARGET, vulkan
from edgesdk_executorch.delegates import DELEGATES
from edgesdk_executorch.flattened import flatten, unflatten
from edgesdk_executorch.program import read_program

slow = pytest.mark.slow
toolchain = pytest.mark.toolchain

VULKAN = runtime(delegate="vulkan", unit="gpu")
COREML = runtime(delegate="coreml", unit="npu")


class Sums(nn.Module):
    """Something that every runtime computes and no delegate takes."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


def expect_size(model: CompressedModel, asked: Runtime, folder: Path) -> None:
    """The file's bytes lie in the interval that was predicted."""
    graph = trace(model.module, model.example_inputs, name="")
    figure = predict_size(graph, "executorch", model.scheme, delegate=asked.delegate)
    size = (folder / "model.pte").stat().st_size
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= size <= figure.high


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (VULKAN, ("fp32", "fp16", "int8")),
        (COREML, ("fp16", "int8")),
        (runtime(delegate="coreml", unit="cpu"), ("fp32", "fp16", "int8")),
    ],
    ids=["vulkan", "neural engine", "core ml on a cpu"],
)
def test_offers_what_the_delegate_computes(asked: Runtime, offered: tuple[str, ...]) -> None:
    capability = TARGET.capability(asked)
    assert capability.schemes == offered
    assert set(capability.refused) == set(SCHEMES) - set(offered)
    assert TARGET.host_runtime(asked) is None


@pytest.mark.parametrize("sdk", ["", "/opt/qairt"])
def test_qnn_is_refused_with_the_next_step_and_nothing_of_it_is_imported(sdk: str) -> None:
    code = (
        "import sys, executorch_nets as nets;"
        "refused = nets.TARGET.capability(nets.runtime(delegate='qnn', unit='npu')).refused;"
        "print(refused['int8']);"
        "print([name for name in sys.modules if name.startswith('executorch.')])"
    )
    environment = {
        "PATH": "/usr/bin",
        "QNN_SDK_ROOT": sdk,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    reason, imported = done.stdout.splitlines()
    assert ("SDK" in reason) == (not sdk) or "QNN_SDK_ROOT is set" in reason
    assert "tflite" in reason
    assert imported == "[]"


@slow
@toolchain
@pytest.mark.parametrize(
    ("asked", "executor", "backend"),
    [(VULKAN, "vulkan", b"VulkanBackend"), (COREML, "coreml-delegate", b"CoreMLBackend")],
    ids=["vulkan", "core ml"],
)
def test_int8_is_read_back_from_the_file_layer_by_layer(
    asked: Runtime, executor: str, backend: bytes, tmp_path: Path
) -> None:
    model = compressed("separable", "int8")
    emission = TARGET.emit(model, asked, tmp_path)
    assert backend in (tmp_path / "model.pte").read_bytes()
    expect_size(model, asked, tmp_path)
    operators = TARGET.operators(tmp_path, emission)
    assert {count.where for count in operators} == {executor}
    assert delegated_share(operators) == 1.0
    checks = {check.name: check for check in TARGET.checks(tmp_path, emission, model)}
    assert [check for check in checks.values() if not check.passed] == []
    assert "4 in int8" in checks["precision"].detail
    program = read_program(tmp_path, "model.pte")
    layers = {emission.layer_of.get(node.name) for node in program.nodes if node.weight_dtype}
    assert layers == {"features.0", "features.3", "features.6", "classifier"}


@slow
@toolchain
def test_equal_models_give_equal_core_ml_files_and_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger().level
    model = compressed("perceptron", "fp16")
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        emission = TARGET.emit(model, COREML, tmp_path / name)
        written.append((emission, (tmp_path / name / "model.pte").read_bytes()))
    assert written[0] == written[1]
    assert set(written[0][0].tool_versions) == {"executorch", "torchao", "coremltools"}
    assert logging.getLogger().level == level
    assert capfd.readouterr().out == ""


@slow
@toolchain
def test_what_the_gpu_does_not_take_stays_float32_and_is_named(tmp_path: Path) -> None:
    """Convolutions of two images at once."""
    model = compressed("two_in_two_out", "fp16")
    emission = TARGET.emit(model, VULKAN, tmp_path)
    expect_size(model, VULKAN, tmp_path)
    operators = TARGET.operators(tmp_path, emission)
    share = delegated_share(operators)
    assert share is not None
    assert 0 < share < 1
    checks = {check.name: check for check in TARGET.checks(tmp_path, emission, model)}
    assert all(check.passed for check in checks.values())
    assert "conv (aten::convolution.out, float32)" in checks["delegation"].detail


@slow
@toolchain
def test_a_layer_that_leaves_int8_is_refused_by_name(tmp_path: Path) -> None:
    model = compressed("two_in_two_out", "int8")
    with pytest.raises(UnsupportedModel, match=r"Vulkan computes \d layers in float") as refusal:
        TARGET.emit(model, VULKAN, tmp_path)
    assert "int8 weights" in str(refusal.value)
    assert "--scheme fp16" in str(refusal.value)


@slow
@toolchain
@pytest.mark.parametrize("asked", [VULKAN, runtime()], ids=["vulkan", "xnnpack"])
def test_a_file_in_which_the_delegate_took_nothing_is_refused(
    asked: Runtime, tmp_path: Path
) -> None:
    model = model_of(Sums().eval(), "fp32", [(3, 8, 8)])
    with pytest.raises(UnsupportedModel, match="takes no operator of this model: aten::cumsum.out"):
        TARGET.emit(model, asked, tmp_path)


@slow
@toolchain
def test_clamps_that_rounding_does_anyway_are_dropped_and_change_nothing() -> None:
    net = trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.Hardtanh()))
    graph = quantize_graph(model_of(net, "int8", [(3, 8, 8)]))
    inputs = 4 * torch.randn(1, 3, 8, 8)
    before = graph(inputs)
    hardtanh = torch.ops.aten.hardtanh.default
    assert len(graph.graph.find_nodes(op="call_function", target=hardtanh)) == 2
    vulkan._drop_clamps(graph)
    assert not graph.graph.find_nodes(op="call_function", target=hardtanh)
    assert torch.equal(graph(inputs), before)


NAMES = st.text("abc.0", min_size=1, max_size=5).filter(lambda name: set(name) != {"."})
FOLDERS = st.recursive(
    st.binary(max_size=20), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
).filter(lambda content: isinstance(content, dict))


def write(content: dict | bytes, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    path.mkdir()
    for name, inner in content.items():
        write(inner, path / name)


def read(path: Path) -> dict | bytes:
    return path.read_bytes() if path.is_file() else {p.name: read(p) for p in path.iterdir()}


@given(content=FOLDERS)
def test_a_flattened_folder_comes_back(
    content: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("flattened")
    write(content, tmp_path / "before")
    (tmp_path / "after").mkdir()
    unflatten(flatten(tmp_path / "before"), tmp_path / "after")
    assert read(tmp_path / "after") == content


@toolchain
def test_executorch_itself_reads_and_writes_flattened_folders_so(tmp_path: Path) -> None:
    from executorch.backends.apple.coreml import executorchcoreml

    content = {
        "root": {"a.json": b"{}", "inner": {"weights": bytes(range(256))}}
    }  # it crashes on empty files
    write(content, tmp_path / "before")
    for folder in ("by us", "by executorch"):
        (tmp_path / folder).mkdir()
    whole = executorchcoreml.flatten_directory_contents(str(tmp_path / "before" / "root"))
    unflatten(whole, tmp_path / "by us")
    assert read(tmp_path / "by us") == content["root"]
    ours = flatten(tmp_path / "before" / "root")
    assert executorchcoreml.unflatten_directory_contents(ours, str(tmp_path / "by executorch"))
    assert read(tmp_path / "by executorch") == content


@given(content=st.binary(max_size=64))
def test_bytes_that_are_no_folder_are_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(ArtifactError, match="Core ML payload"):
        unflatten(content, tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("name", ["..", "../out", "", "/etc/x"])
def test_a_payload_that_names_what_is_outside_is_refused(name: str, tmp_path: Path) -> None:
    import json

    file = {"children": {}, "dataRegion": {"offset": 0, "size": 1}, "kind": 0, "name": name}
    root = {"children": {name: 0}, "dataRegion": {"offset": 0, "size": 0}, "kind": 1, "name": "r"}
    payload = b"x" + json.dumps({"nodes": [file, root]}).encode()[::-1]
    (tmp_path / "inner").mkdir()
    with pytest.raises(ArtifactError):
        unflatten(payload, tmp_path / "inner")
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]


@toolchain
@pytest.mark.parametrize("delegate", DELEGATES, ids=lambda each: each.name)
def test_a_damaged_payload_is_an_artifact_error_or_no_flatbuffer(delegate) -> None:
    with pytest.raises((ArtifactError, ValueError, KeyError)):
        list(delegate.read_nodes(bytes(64), "0."))
