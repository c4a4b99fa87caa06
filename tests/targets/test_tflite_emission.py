"""Emission: parity with PyTorch, layouts, names, determinism, and models that cannot be emitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from tflite_nets import NETS, Emitted, Separable, compressed, emitted, network, runtime
from torch import Tensor, nn

from edgesdk.artifact import TensorSpec
from edgesdk.device_files import load_device
from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.scheme import Scheme
from edgesdk.task import InputSpec, OutputSpec
from edgesdk_tflite import TARGET

pytestmark = pytest.mark.toolchain

# float32 kernels in another order; 11 bits of kernel, a rounding error of 2^-12 of each, -66 dB
# at the worst; 8 bits of everything in a few layers.
LEAST_DB = {"fp32": 100.0, "fp16": 60.0, "int8": 25.0}

CHANNELS_LAST = (0, 2, 3, 1)


@pytest.mark.parametrize("name", NETS)
def test_int8_files_compute_what_the_model_computes(name: str) -> None:
    assert emitted(name, "int8").noise_db("litert") > LEAST_DB["int8"]


@pytest.mark.parametrize("name", ["residual", "separable", "wave", "perceptron", "two_heads"])
def test_float_files_compute_what_the_model_computes(name: str) -> None:
    assert emitted(name, "fp32").noise_db("litert") > LEAST_DB["fp32"]


@pytest.mark.parametrize("name", ["residual", "perceptron"])
def test_float16_weights_compute_what_the_model_computes(name: str) -> None:
    file = emitted(name, "fp16")

    assert file.noise_db("litert") > LEAST_DB["fp16"]
    assert file.path.stat().st_size < emitted(name, "fp32").path.stat().st_size


@pytest.mark.parametrize("name", ["residual", "two_heads"])
def test_integer_io_is_the_same_graph_without_its_float_boundary(name: str) -> None:
    float_io, integer_io = emitted(name, "int8", integer_io=False), emitted(name, "int8")

    assert {spec.dtype for spec in float_io.emission.inputs} == {"float32"}
    assert all(spec.scale is None for spec in float_io.emission.inputs)
    for spec in (*integer_io.emission.inputs, *integer_io.emission.outputs):
        assert spec.dtype == "int8"
        assert spec.scale is not None
        assert spec.zero_point is not None
    pairs = zip(
        float_io.predict(float_io.open("litert-reference")),
        integer_io.predict(integer_io.open("litert-reference")),
        integer_io.emission.outputs,
        strict=True,
    )
    for by_float, by_integer, spec in pairs:
        # numpy rounds halves to even and the runtime away from zero: at most one step.
        assert (by_float - by_integer).abs().max() <= 1.01 * spec.scale
        assert (by_float == by_integer).float().mean() > 0.95


def test_specs_are_in_the_file_layout() -> None:
    emission = emitted("separable", "fp32").emission

    assert emission.files == ("model.tflite",)
    assert emission.inputs == (
        TensorSpec(name="input_0", shape=(1, 16, 16, 3), dtype="float32", from_torch=CHANNELS_LAST),
    )
    assert emission.outputs == (
        TensorSpec(name="output_0", shape=(1, 8, 8, 12), dtype="float32", from_torch=CHANNELS_LAST),
    )
    assert emission.tool_versions["litert-torch"]


def test_names_and_labels_are_the_tasks(tmp_path: Path) -> None:
    model = compressed(nn.Linear(3, 2).eval(), (torch.randn(1, 3),))
    model = replace(
        model,
        inputs=(InputSpec(name="sensor"),),
        outputs=(OutputSpec(name="class", kind="logits", labels=("off", "on")),),
    )

    emission = TARGET.emit(model, runtime(), tmp_path)

    assert [spec.name for spec in emission.inputs] == ["sensor"]
    assert [(spec.name, spec.labels) for spec in emission.outputs] == [("class", ("off", "on"))]


def test_the_batch_is_the_example_inputs_batch() -> None:
    assert emitted("residual_batch", "int8").emission.inputs[0].shape[0] == 2
    assert emitted("residual_batch", "int8").noise_db("litert") > LEAST_DB["int8"]


def test_operators_are_named_after_the_layer_they_come_from() -> None:
    layers = emitted("residual", "int8").emission.layer_of

    assert set(layers.values()) >= {"stem", "conv", "down", "head"}
    assert layers["stem"] == "stem"
    assert layers["output_0"] == "head"


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    file = emitted("residual", "int8")
    module, examples = network("residual")

    TARGET.emit(compressed(module, examples, "int8"), runtime(), tmp_path)

    assert (tmp_path / "model.tflite").read_bytes() == file.path.read_bytes()


def test_calibration_order_and_batches_change_nothing(tmp_path: Path) -> None:
    model = emitted("perceptron", "int8").model
    (joined,) = (torch.cat([batch[0] for batch in model.calibration]).flip(0),)

    TARGET.emit(
        replace(model, calibration=tuple((row,) for row in joined.split(3))), runtime(), tmp_path
    )

    assert (tmp_path / "model.tflite").read_bytes() == emitted(
        "perceptron", "int8"
    ).path.read_bytes()


def test_the_last_calibration_sample_counts() -> None:
    model = emitted("perceptron", "int8").model
    outlier = torch.zeros(1, 12)
    outlier[0, 0] = 100.0
    widened = Emitted(replace(model, calibration=(*model.calibration, (outlier,))))

    (spec,) = widened.emission.inputs
    assert spec.scale is not None
    assert spec.scale * (127 - spec.zero_point) == pytest.approx(100.0, rel=0.01)


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


class Segmented(nn.Module):
    """Channels-first arithmetic right before the output: channels-last would only transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.shift = nn.Parameter(torch.randn(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).flatten(2).transpose(1, 2).reshape(-1, 4, 8, 8) + self.shift


@pytest.mark.parametrize(
    ("module", "shape", "taken", "given"),
    [
        (Separable(), (1, 3, 16, 16), CHANNELS_LAST, CHANNELS_LAST),
        (Flattened(), (1, 3, 4, 4), (0, 1, 2, 3), (0, 1)),
        (Segmented(), (1, 3, 8, 8), CHANNELS_LAST, (0, 1, 2, 3)),
    ],
)
def test_channels_are_last_wherever_that_saves_a_transposition(
    module: nn.Module, shape: tuple[int, ...], taken: tuple[int, ...], given: tuple[int, ...]
) -> None:
    file = Emitted(compressed(module.eval(), (torch.randn(shape),)))

    assert file.emission.inputs[0].from_torch == taken
    assert file.emission.outputs[0].from_torch == given
    assert file.noise_db("litert") > LEAST_DB["fp32"]
    assert all(c.passed for c in TARGET.checks(file.folder, file.emission, file.model))


def test_a_wave_keeps_pytorch_axes() -> None:
    assert emitted("wave", "fp32").emission.inputs[0].from_torch == (0, 1, 2)


class ManyTensors(nn.Module):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(value * (index + 2) for index, value in enumerate(inputs))


def test_eleven_inputs_and_outputs_stay_in_order() -> None:
    file = Emitted(compressed(ManyTensors(), tuple(torch.randn(1, 2) for _ in range(11))))

    assert [spec.name for spec in file.emission.inputs] == [f"input_{i}" for i in range(11)]
    assert list(file.file.inputs) == [f"input_{i}" for i in range(11)]
    assert file.noise_db("litert") > LEAST_DB["fp32"]


class Passing(nn.Module):
    """An input nobody reads, an output that is an input."""

    def forward(self, x: Tensor, unread: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_unread_inputs_and_passed_on_inputs_work(scheme: Scheme) -> None:
    file = Emitted(compressed(Passing(), (torch.randn(1, 4), torch.randn(1, 3)), scheme))

    assert file.noise_db("litert") > LEAST_DB[scheme]
    assert all(c.passed for c in TARGET.checks(file.folder, file.emission, file.model))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 6)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens))


def test_integer_inputs_stay_integers_in_the_width_the_file_has(tmp_path: Path) -> None:
    tokens = torch.randint(0, 20, (1, 5))
    model = compressed(Tokens().eval(), (tokens,))

    emission = TARGET.emit(model, runtime(), tmp_path)
    session = TARGET.open(tmp_path, emission, "litert", 1)

    assert emission.inputs[0].dtype == "int32"
    assert emission.inputs[0].scale is None
    (output,) = session.run([tokens.numpy().astype(np.int32)])
    with torch.no_grad():
        assert np.allclose(output, model.module(tokens).numpy(), atol=1e-5)
    assert all(c.passed for c in TARGET.checks(tmp_path, emission, model))


def test_a_large_int8_file_keeps_its_constants_inside_the_flatbuffer() -> None:
    file = Emitted(compressed(nn.Linear(512, 640).eval(), (torch.randn(1, 512),), "int8"))

    assert file.path.stat().st_size > 512 * 640
    assert file.file.constants_outside == 0
    assert file.noise_db("tflite-micro") > LEAST_DB["int8"]


def test_nothing_is_written_to_the_streams(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = emitted("perceptron", "int8").model

    emission = TARGET.emit(model, runtime(), tmp_path)
    TARGET.operators(tmp_path, emission)
    TARGET.checks(tmp_path, emission, model)

    assert capfd.readouterr() == ("", "")


class Inverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erfinv(x)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x)[0]


@pytest.mark.parametrize(
    ("layer", "operator"), [(Inverse(), "aten.erfinv.default"), (Sorted(), "STABLEHLO_SORT")]
)
def test_an_operator_that_litert_lacks_is_named_with_its_layer(
    layer: nn.Module, operator: str, tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2)).eval()

    with pytest.raises(UnsupportedModel, match=f"{operator}.*layer '1'") as raised:
        TARGET.emit(compressed(module, (torch.randn(1, 4),)), runtime(), tmp_path)

    assert raised.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_int8_is_refused_where_an_operator_would_stay_float(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 2)).eval()
    model = compressed(module, (torch.randn(1, 4),), "int8")

    with pytest.raises(UnsupportedModel, match=r"LEAKY_RELU at layer '1'.*float arithmetic"):
        TARGET.emit(model, runtime(), tmp_path)


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(torch.relu(x) + 1)


def test_int8_that_micro_has_in_float_alone_is_refused_before_it_is_run(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 2)).eval()
    model = compressed(module, (torch.randn(1, 4),), "int8")
    micro = load_device("nucleo_h7a3zi_q").runtime_for("tflite")

    with pytest.raises(UnsupportedModel, match=r"no int8 kernel for SQRT at layer '1'") as raised:
        TARGET.emit(model, micro, tmp_path)
    assert "--scheme fp32" in str(raised.value.next_step)
    TARGET.emit(replace(model, scheme="fp32"), micro, tmp_path)


def test_float16_is_refused_where_a_kernel_would_stay_float32(tmp_path: Path) -> None:
    model = compressed(nn.Conv3d(2, 3, 3).eval(), (torch.randn(1, 2, 4, 4, 4),), "fp16")

    with pytest.raises(UnsupportedModel, match="CONV_3D"):
        TARGET.emit(model, runtime(), tmp_path)


def test_calibration_data_that_cannot_be_used_is_the_tasks_error(tmp_path: Path) -> None:
    model = emitted("perceptron", "int8").model
    not_finite = torch.zeros(1, 12)
    not_finite[0, 3] = float("nan")

    for calibration, found in (
        ((), "no calibration|none"),
        (((torch.zeros(2, 5),),), "calibration"),
        (((not_finite,),), "NaN"),
    ):
        with pytest.raises(TaskError, match=found):
            TARGET.emit(replace(model, calibration=calibration), runtime(), tmp_path)
    assert list(tmp_path.iterdir()) == []
