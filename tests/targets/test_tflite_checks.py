"""Checks: every honest file passes them, and each kind of dishonest file fails the right one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tflite_nets import NETS, Emitted, Residual, compressed, emitted, network
from torch import Tensor, nn

from edgesdk.artifact import OpCount, TensorSpec
from edgesdk.compressed import CompressedModel
from edgesdk.export import export_model
from edgesdk.scheme import Scheme
from edgesdk.target import Emission
from edgesdk_tflite import TARGET
from edgesdk_tflite.exported import kernel_elements, outputs_follow_inputs
from edgesdk_tflite.flatbuffer import pack, unpack

pytestmark = pytest.mark.toolchain

ARITHMETIC = "arithmetic is int8"
KERNELS_INT8 = "layers are in their schemes"


def failed(folder: Path, emission: Emission, model: CompressedModel) -> dict[str, str]:
    """Return the failed checks' details by name."""
    checks = TARGET.checks(folder, emission, model)
    assert len({check.name for check in checks}) == len(checks) > 5
    return {check.name: check.detail for check in checks if not check.passed}


def rewritten(file: Emitted, folder: Path, change: Callable[[Any], None]) -> Path:
    """Write a copy of the file, its schema tree changed, into the folder."""
    model = unpack(file.path.read_bytes())
    change(model)
    (folder / "model.tflite").write_bytes(pack(model))
    return folder


@pytest.mark.parametrize("name", NETS)
def test_an_int8_file_passes(name: str) -> None:
    file = emitted(name, "int8")

    assert failed(file.folder, file.emission, file.model) == {}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("residual", "fp32"), ("residual", "fp16"), ("two_heads", "fp32"), ("wave", "fp32")],
)
def test_a_float_file_passes(name: str, scheme: Scheme) -> None:
    file = emitted(name, scheme)

    assert failed(file.folder, file.emission, file.model) == {}


@pytest.mark.parametrize("name", ["residual", "two_heads"])
def test_an_int8_file_with_float_inputs_and_outputs_passes(name: str) -> None:
    file = emitted(name, "int8", integer_io=False)

    assert failed(file.folder, file.emission, file.model) == {}


def test_a_float_file_that_says_int8_fails_and_names_its_operators() -> None:
    file = emitted("residual", "fp32")

    found = failed(file.folder, file.emission, file.presented_as("int8"))

    assert set(found) == {ARITHMETIC, KERNELS_INT8}
    for operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD"):
        assert operator in found[ARITHMETIC]


@pytest.mark.parametrize(("stored", "claimed"), [("fp32", "fp16"), ("fp16", "fp32")])
def test_float_kernels_of_the_other_width_fail(stored: Scheme, claimed: Scheme) -> None:
    file = emitted("residual", stored)

    (name,) = failed(file.folder, file.emission, file.presented_as(claimed))

    assert name == "layers are in their schemes"


def test_an_int8_file_that_says_fp32_fails() -> None:
    file = emitted("perceptron", "int8")

    found = failed(file.folder, file.emission, file.presented_as("fp32"))

    assert set(found) == {
        "arithmetic is floating point",
        "inputs and outputs are of one kind",
        "layers are in their schemes",
    }


def quantized_otherwise(file: Emitted, folder: Path, configure: Callable[[Any], None]) -> Path:
    """Write the float file quantized by a recipe of the test's own."""
    from ai_edge_quantizer import quantizer

    tool = quantizer.Quantizer(file.path.read_bytes())
    configure(tool)
    ranges = None
    if tool.need_calibration:
        batches = [{"input_0": sample[None].numpy()} for sample in file.samples[0]]
        ranges = tool.calibrate({"serving_default": batches}, num_threads=1)
    result = tool.quantize(ranges, enable_progress_report=False)
    (folder / "model.tflite").write_bytes(bytes(result.quantized_model))
    return folder


def test_int8_kernels_with_float_activations_fail(tmp_path: Path) -> None:
    file = emitted("perceptron", "fp32")

    def dynamic_range(tool: Any) -> None:
        tool.add_dynamic_config(regex=".*", operation_name="*", num_bits=8)

    quantized_otherwise(file, tmp_path, dynamic_range)

    assert set(failed(tmp_path, file.emission, file.presented_as("int8"))) == {
        ARITHMETIC,
        KERNELS_INT8,
    }


def test_one_operator_left_in_float_is_named(tmp_path: Path) -> None:
    file = emitted("perceptron", "fp32")

    def first_layer_only(tool: Any) -> None:
        tool.add_static_config(
            regex="^0;", operation_name="*", activation_num_bits=8, weight_num_bits=8
        )

    quantized_otherwise(file, tmp_path, first_layer_only)

    found = failed(tmp_path, file.emission, file.presented_as("int8"))
    assert set(found) >= {ARITHMETIC, KERNELS_INT8}
    assert "FULLY_CONNECTED (output_0)" in found[ARITHMETIC]


def test_a_file_of_another_network_fails(tmp_path: Path) -> None:
    file = emitted("residual", "fp32")
    other = replace(file.model, module=Residual(1, width=4).eval())

    found = failed(file.folder, file.emission, other)

    assert set(found) == {"kernel elements are those of the model"}


def test_a_removed_kernel_fails(tmp_path: Path) -> None:
    file = emitted("perceptron", "fp32")

    def skip_the_second_layer(model: Any) -> None:
        model.subgraphs[0].operators.pop()

    rewritten(file, tmp_path, skip_the_second_layer)

    assert "kernel elements are those of the model" in failed(tmp_path, file.emission, file.model)


def test_an_output_that_no_input_reaches_fails(tmp_path: Path) -> None:
    file = emitted("separable", "fp32")

    def read_a_constant(model: Any) -> None:
        convolution = model.subgraphs[0].operators[1]
        bias = convolution.inputs[2]
        convolution.inputs = [bias, *convolution.inputs[1:]]

    rewritten(file, tmp_path, read_a_constant)

    found = failed(tmp_path, file.emission, file.model)
    assert set(found) == {"outputs are computed from the inputs"}
    assert "output_0" in found["outputs are computed from the inputs"]


def test_a_model_with_a_constant_output_may_have_one() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchors = nn.Parameter(torch.randn(1, 3))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, self.anchors * 2

    file = Emitted(compressed(Constant(), (torch.randn(1, 4),)))

    assert failed(file.folder, file.emission, file.model) == {}


def test_an_input_transposed_to_another_layout_fails(tmp_path: Path) -> None:
    import litert_torch

    module, examples = network("separable")
    naive = litert_torch.convert(module, examples).model_content()
    (tmp_path / "model.tflite").write_bytes(naive)
    shapes = {"args_0": (1, 3, 16, 16), "output_0": (1, 12, 8, 8)}
    taken, given = (
        TensorSpec(name=name, shape=shape, dtype="float32", from_torch=(0, 1, 2, 3))
        for name, shape in shapes.items()
    )
    emission = replace(emitted("separable", "int8").emission, inputs=(taken,), outputs=(given,))

    found = failed(tmp_path, emission, compressed(module, examples))

    assert set(found) == {"no input is transposed to another layout"}


def test_constants_behind_the_flatbuffer_fail(tmp_path: Path) -> None:
    module = nn.Linear(512, 640).eval()
    file = Emitted(compressed(module, (torch.randn(1, 512),)))

    def weights_only(tool: Any) -> None:
        tool.add_weight_only_config(regex=".*", operation_name="*", num_bits=8)

    quantized_otherwise(file, tmp_path, weights_only)

    found = failed(tmp_path, file.emission, file.presented_as("int8"))
    assert "constants are inside the flatbuffer" in found


@pytest.mark.parametrize(
    "change",
    [{"scale": 1.0}, {"zero_point": 99}, {"dtype": "float32"}, {"shape": (1, 8, 8, 2)}],
)
def test_an_input_that_is_not_as_stated_fails(change: dict[str, Any]) -> None:
    file = emitted("residual", "int8")
    stated = replace(file.emission, inputs=(replace(file.emission.inputs[0], **change),))

    assert "inputs and outputs are those stated" in failed(file.folder, stated, file.model)


def test_a_wrong_permutation_fails() -> None:
    file = emitted("residual", "int8")
    stated = replace(
        file.emission, inputs=(replace(file.emission.inputs[0], from_torch=(0, 1, 2, 3)),)
    )

    found = failed(file.folder, stated, file.model)

    assert "input shapes follow from the example inputs" in found


def test_a_kernel_too_large_for_float16_fails() -> None:
    module, examples = network("perceptron")
    with torch.no_grad():
        module[0].weight[0, 0] = 1e6  # type: ignore[operator, index]
    file = Emitted(compressed(module, examples, "fp16"))

    found = failed(file.folder, file.emission, file.model)

    assert "infinity" in found["kernels are whole"]


def counted(file: Emitted) -> dict[tuple[str, str], OpCount]:
    return {(op.op, op.dtype): op for op in TARGET.operators(file.folder, file.emission)}


def test_operators_are_counted_with_the_bytes_they_hold() -> None:
    fp32, fp16 = (counted(emitted("residual", scheme)) for scheme in ("fp32", "fp16"))
    int8 = counted(emitted("residual", "int8", integer_io=False))
    elements = {"stem": 72, "conv": 576, "down": 1152, "head": 160}
    convolved = elements["conv"] + elements["down"]

    assert fp32["CONV_2D", "float32"].count == 2
    assert fp32["CONV_2D", "float32"].weight_bytes == 4 * (convolved + 8 + 16)
    assert fp16["DEQUANTIZE", "float16"].weight_bytes == 2 * sum(elements.values())
    assert int8["CONV_2D", "int8"].weight_bytes == convolved + 4 * (8 + 16)
    assert int8["QUANTIZE", "int8"].count == 1
    assert int8["DEQUANTIZE", "int8"].count == 1
    assert all(op.where == "builtin" for ops in (fp32, fp16, int8) for op in ops.values())


def test_shared_constants_count_once(tmp_path: Path) -> None:
    file = emitted("perceptron", "fp32")
    before = TARGET.operators(file.folder, file.emission)

    def run_the_first_layer_twice(model: Any) -> None:
        graph = model.subgraphs[0]
        again = deepcopy(graph.operators[0])
        again.outputs = [len(graph.tensors)]
        graph.tensors.append(deepcopy(graph.tensors[graph.operators[0].outputs[0]]))
        graph.operators.insert(0, again)

    rewritten(file, tmp_path, run_the_first_layer_twice)
    after = TARGET.operators(tmp_path, file.emission)

    assert sum(op.count for op in after) == sum(op.count for op in before) + 1
    assert sum(op.weight_bytes for op in after) == sum(op.weight_bytes for op in before)


class Tied(nn.Module):
    """One kernel used twice, one computed from parameters, and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Linear(4, 4, bias=False)
        self.left = nn.Parameter(torch.randn(4, 2))
        self.right = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tied(torch.relu(self.tied(x)))
        return (x @ x.transpose(0, 1)) @ x @ (self.left @ self.right), self.right


def test_kernel_elements_are_counted_once_and_once_a_use() -> None:
    program = export_model(Tied().eval(), (torch.randn(5, 4),))

    found = kernel_elements(program)

    assert (found.least, found.most) == (16 + 12, 2 * 16 + 12)
    assert outputs_follow_inputs(program) == (True, False)


def test_batch_norms_and_biases_are_no_kernels() -> None:
    module, examples = network("residual")

    found = kernel_elements(export_model(module, examples))

    kernels = [p for p in module.parameters() if p.dim() > 1]
    assert found.least == found.most == sum(np.prod(p.shape) for p in kernels)
