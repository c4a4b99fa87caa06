"""Reading a ``.pte`` back: operators, checks, and files that are not what they should be."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from executorch_nets import NETS, compressed, emitted, model_of, runtime, trained
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesdk.artifact import Check, OpCount
from edgesdk.compress.pt2e import export_graph
from edgesdk.compressed import CompressedModel
from edgesdk.errors import ArtifactError
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import Scheme
from edgesdk_executorch import TARGET, emission
from edgesdk_executorch.checks import check_program
from edgesdk_executorch.node import Node
from edgesdk_executorch.program import Program, read_program

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]


def named(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def failed(checks: tuple[Check, ...]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def weights_of(model: CompressedModel) -> int:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [module for module in model.module.modules() if isinstance(module, kinds)]
    return sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
@pytest.mark.parametrize("net", NETS)
def test_good_files_pass_every_check_and_run_in_the_delegate(net: str, scheme: Scheme) -> None:
    (folder, written), model = emitted(net, scheme), compressed(net, scheme)
    assert failed(TARGET.checks(folder, written, model)) == set()
    assert {count.where for count in TARGET.operators(folder, written)} == {"xnnpack"}


@pytest.mark.parametrize("net", ["residual", "separable", "perceptron", "two_in_two_out"])
def test_int8_operators_hold_a_byte_a_weight(net: str) -> None:
    """Beside its weights a layer holds, per output channel, a bias and two scales of 4 bytes."""
    (folder, written), model = emitted(net, "int8"), compressed(net, "int8")
    counts = TARGET.operators(folder, written)
    kinds = (nn.Conv2d, nn.Linear)
    layers = [module for module in model.module.modules() if isinstance(module, kinds)]
    channels = sum(layer.weight.shape[0] for layer in layers)
    held = sum(count.weight_bytes for count in counts)
    assert weights_of(model) < held <= weights_of(model) + 12 * channels
    assert {count.dtype for count in counts} == {"int8", "float32->int8", "int8->float32"}


def test_operators_are_counted_by_kind_and_type() -> None:
    folder, written = emitted("residual", "fp32")
    counts = {count.op: count for count in TARGET.operators(folder, written)}
    convolution = OpCount(
        op="conv2d",
        dtype="float32",
        where="xnnpack",
        count=3,
        weight_bytes=4 * (8 * 27 + 2 * 8 * 72 + 3 * 8),
    )
    assert counts["conv2d"] == convolution
    assert counts["fully_connected"].weight_bytes == 4 * (80 + 10)
    assert counts["add"].count == 1
    assert not any("batch_norm" in op for op in counts)


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_layers_are_named_by_operator(scheme: Scheme) -> None:
    folder, written = emitted("residual", scheme)
    nodes = read_program(folder, "model.pte").nodes
    layers = {written.layer_of[node.name] for node in nodes if node.weight_shape is not None}
    assert layers == {"stem", "conv1", "conv2", "classifier"}
    assert len({node.name for node in nodes}) == len(nodes)


def test_planned_bytes_hold_inputs_and_outputs() -> None:
    folder, _ = emitted("residual", "fp32")
    assert 4 * (3 * 16 * 16 + 10) <= read_program(folder, "model.pte").planned_bytes < 2**14


# Quantization that silently did nothing.


def quantized_except(layer: str) -> Callable[[CompressedModel], torch.fx.GraphModule]:
    """``quantize_static_int8``, skipping one layer as a quantizer that does not know it would."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    def skips(node: torch.fx.Node) -> bool:
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        return layer not in paths

    def quantize(model: CompressedModel) -> torch.fx.GraphModule:
        config = get_symmetric_quantization_config(is_per_channel=True)
        quantizer = XNNPACKQuantizer().set_global(config).set_filter_function(skips)
        observed = prepare_pt2e(export_graph(model), quantizer)
        observed(*model.example_inputs)
        return convert_pt2e(observed)

    return quantize


def test_a_layer_that_stayed_float_is_found_by_reading(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(emission, "quantize_graph", quantized_except("conv1"))
    model = compressed("residual", "int8")
    checks = TARGET.checks(tmp_path, TARGET.emit(model, runtime(), tmp_path), model)
    assert "precision" in failed(checks)
    assert "conv1 (conv2d, float32)" in named(checks)["precision"].detail
    assert "3 of 4" in named(checks)["precision"].detail


def test_a_sum_that_stayed_float_between_int8_layers_is_found() -> None:
    """XNNPACK's partitioner makes no such file today, so this one is put together by hand."""
    layer = Node(
        name="conv2d_0", op="conv2d", dtype="int8", where="xnnpack", constants={"w": 4},
        weight_dtype="int8", weight_shape=(1, 1, 1, 4), reads=("",),
    )  # fmt: skip
    back = Node(
        name="convert_1", op="convert", dtype="int8->float32", where="xnnpack", constants={},
        reads=("conv2d_0",),
    )  # fmt: skip
    total = dataclasses.replace(
        back, name="add_2", op="add", dtype="float32", reads=("convert_1", "convert_1")
    )
    written = dataclasses.replace(emitted("perceptron", "int8")[1], layer_of={"add_2": "block.sum"})
    model = model_of(nn.Conv2d(4, 1, 1), "int8", [(4, 2, 2)])

    def islands(node: Node) -> Check:
        program = Program(
            nodes=(layer, back, node), inputs=(), outputs=(), planned_bytes=0, delegate_calls=(0,)
        )
        return named(check_program(program, written, model))["float islands"]

    assert not islands(total).passed
    assert "block.sum (add, float32)" in islands(total).detail
    assert islands(dataclasses.replace(total, reads=("convert_1", "sigmoid_9"))).passed
    assert islands(dataclasses.replace(total, op="softmax")).passed


def test_a_file_that_was_not_quantized_at_all_fails() -> None:
    (folder, written), model = emitted("residual", "fp32"), compressed("residual", "fp32")
    checks = TARGET.checks(folder, written, dataclasses.replace(model, scheme="int8"))
    assert failed(checks) == {"precision"}
    assert "0 of 4" in named(checks)["precision"].detail


def test_a_quantized_file_is_not_float() -> None:
    (folder, written), model = emitted("residual", "int8"), compressed("residual", "int8")
    checks = TARGET.checks(folder, written, dataclasses.replace(model, scheme="fp32"))
    assert "precision" in failed(checks)


def test_int8_without_any_weights_is_no_quantization(tmp_path: Path) -> None:
    model = model_of(nn.ReLU(), "int8", [(3, 8, 8)])
    checks = TARGET.checks(tmp_path, TARGET.emit(model, runtime(), tmp_path), model)
    assert failed(checks) == {"precision"}


def test_operators_outside_the_delegate_and_in_float_are_named(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 2))
    model = model_of(trained(net), "int8", [(8,)])
    written = TARGET.emit(model, runtime(), tmp_path)
    checks = named(TARGET.checks(tmp_path, written, model))
    assert failed(tuple(checks.values())) == set()
    assert "1 (aten::native_layer_norm.out, float32)" in checks["delegation"].detail
    assert "2 (sigmoid, float32)" in checks["float islands"].detail
    outside = [c for c in TARGET.operators(tmp_path, written) if c.where == "portable"]
    assert [(c.op, c.dtype, c.count, c.weight_bytes) for c in outside] == [
        ("aten::native_layer_norm.out", "float32", 1, 64)
    ]


def test_another_models_file_is_noticed() -> None:
    folder, written = emitted("residual", "fp32")
    other = model_of(
        trained(nn.Sequential(nn.Conv2d(3, 16, 5), nn.Flatten())), "fp32", [(3, 16, 16)]
    )
    assert failed(TARGET.checks(folder, written, other)) == {"weights"}
    stated = dataclasses.replace(written, outputs=written.inputs)
    model = compressed("residual", "fp32")
    assert failed(TARGET.checks(folder, stated, model)) == {"inputs and outputs"}


# Files that are damaged.


@given(data=st.data())
def test_damaged_files_are_read_or_refused_but_nothing_else(data: st.DataObject) -> None:
    folder, _ = emitted("perceptron", "int8")
    content = bytearray((folder / "model.pte").read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 8), label="flips")):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "damaged.pte").write_bytes(content)
    with contextlib.suppress(ArtifactError):
        read_program(folder, "damaged.pte")


@pytest.mark.parametrize("content", [b"", b"not a program", bytes(4096)])
def test_files_of_something_else_are_refused(content: bytes, tmp_path: Path) -> None:
    (_, written), model = emitted("perceptron", "int8"), compressed("perceptron", "int8")
    (tmp_path / "model.pte").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.pte"):
        TARGET.operators(tmp_path, written)
    with pytest.raises(ArtifactError, match=r"model\.pte"):
        TARGET.checks(tmp_path, written, model)


def test_a_missing_file_and_one_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder, written = emitted("perceptron", "int8")
    with pytest.raises(ArtifactError, match=r"model\.pte"):
        TARGET.operators(tmp_path, written)
    outside = dataclasses.replace(written, files=(f"../{folder.name}/model.pte",))
    with pytest.raises(ArtifactError, match="not inside"):
        TARGET.operators(tmp_path, outside)
    with pytest.raises(ArtifactError, match="not inside"):
        TARGET.open(tmp_path, outside, "executorch", 1)


def test_the_runtime_refuses_a_truncated_file(tmp_path: Path) -> None:
    folder, written = emitted("residual", "int8")
    content = (folder / "model.pte").read_bytes()
    (tmp_path / "model.pte").write_bytes(content[: len(content) // 2])
    process = ArtifactProcess(
        target="executorch", folder=tmp_path, emission=written, host_runtime="executorch"
    )
    with pytest.raises(ArtifactError), process:
        pass
