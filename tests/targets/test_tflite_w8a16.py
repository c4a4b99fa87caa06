"""int8 weights with int16 activations: what is in the file, who runs it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_nets import Emitted, compressed, emitted, network, runtime
from torch import Tensor, nn

from edgesdk.compressed import CompressedModel
from edgesdk.cost.micro_arena import micro_arena_bytes
from edgesdk.cost.size import predict_size
from edgesdk.cost.tflite_form import tflite_form
from edgesdk.device_files import load_device
from edgesdk.errors import UnsupportedModel
from edgesdk.layer_format import scheme_refusal
from edgesdk.parity import sqnr_db
from edgesdk.planner.simulation import simulate
from edgesdk.running.adapter import decode_outputs, encode_inputs
from edgesdk.target import Emission, Session
from edgesdk.task import output_tensors
from edgesdk.trace import trace
from edgesdk_tflite import TARGET
from edgesdk_tflite.checks import check_file
from edgesdk_tflite.flatbuffer import ETHOS_U, ModelFile, read_model
from edgesdk_tflite.rounding import most_units_apart, reference_is_wrong, why_apart

pytestmark = pytest.mark.toolchain

MICRO = runtime("tflite-micro")
# How far TensorFlow Lite Micro and LiteRT's reference kernels may be apart, in units of the output.
TWINS = {"separable": 0, "features": 0, "residual": 1, "perceptron": None}


class Micro(Emitted):
    """A file for TensorFlow Lite Micro: the one runtime that ``w8a16`` is offered for."""

    def __init__(self, model: CompressedModel, folder: Path, *, integer_io: bool = True) -> None:
        self.model = model
        self.folder = folder
        self.emission: Emission = TARGET.emit(model, replace(MICRO, integer_io=integer_io), folder)
        self.samples = tuple(torch.cat(parts) for parts in zip(*model.calibration, strict=True))

    def failed(self, file: ModelFile | None = None) -> dict[str, str]:
        checks = check_file(file or self.file, self.emission, self.model)
        return {check.name: check.detail for check in checks if not check.passed}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Micro]:
    names = ["residual", "separable", "features", "perceptron", "two_heads"]
    return {
        name: Micro(compressed(*network(name), "w8a16"), tmp_path_factory.mktemp(name))
        for name in names
    }


def outputs(file: Micro, session: Session) -> list[np.ndarray]:
    answers = file.raw_outputs(session)
    return [np.stack(column) for column in zip(*answers, strict=True)]


def test_weights_are_int8_activations_int16_and_biases_int64(files: dict[str, Micro]) -> None:
    for name, file in files.items():
        assert file.failed() == {}, name
        kernels = list(file.file.kernels())
        assert {kernel.dtype for _, kernel in kernels} == {"int8"}
        assert {op.inputs[2].dtype for op, _ in kernels if op.inputs[2]} == {"int64"}
        activations = [t for op in file.file.operators for t in op.activations]
        assert {t.dtype for t in activations} == {"int16"}
        assert {t.zero_point for t in activations} == {0}, "symmetric"
        assert {spec.dtype for spec in (*file.emission.inputs, *file.emission.outputs)} == {"int16"}


def test_it_is_closer_to_the_network_than_int8(files: dict[str, Micro]) -> None:
    for name, file in files.items():
        int8_db = emitted(name, "int8").noise_db("tflite-micro")
        assert file.noise_db("tflite-micro") > max(40, int8_db + 3), name


def test_with_float_tensors_outside_the_answers_are_the_same(
    files: dict[str, Micro], tmp_path: Path
) -> None:
    inside = files["two_heads"]
    outside = Micro(inside.model, tmp_path, integer_io=False)
    assert outside.failed() == {}
    kinds = {spec.dtype for spec in (*outside.emission.inputs, *outside.emission.outputs)}
    assert kinds == {"float32"}
    assert {op.name for op in outside.file.operators} >= {"QUANTIZE", "DEQUANTIZE"}
    pairs = zip(
        inside.predict(inside.open("tflite-micro")),
        outside.predict(outside.open("tflite-micro")),
        strict=True,
    )
    for wanted, found in pairs:
        torch.testing.assert_close(found, wanted)


def test_the_two_runtimes_are_as_far_apart_as_is_known(files: dict[str, Micro]) -> None:
    for name, units in TWINS.items():
        file = files[name]
        assert most_units_apart(file.file) == units, name
        assert (why_apart(file.file) == "") == (units == 0)
        pairs = zip(
            outputs(file, file.open("tflite-micro")),
            outputs(file, file.open("litert-reference")),
            strict=True,
        )
        for one, other in pairs:
            assert one.dtype == other.dtype == np.int16
            assert np.abs(one.astype(int) - other.astype(int)).max() <= (units or 1), name


def test_fully_connected_layers_differ_by_the_bits_of_their_factor(tmp_path: Path) -> None:
    """Each runtime's arithmetic written out: equal to the last bit of 16,000 values."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 16)).eval()
    file = Micro(compressed(layer, (torch.randn(1, 32),), "w8a16"), tmp_path)
    [op] = file.file.operators
    source, kernel, bias = (tensor for tensor in op.inputs if tensor is not None)
    assert kernel.data is not None
    assert bias.data is not None
    assert source.scale is not None
    assert op.outputs[0].scale is not None
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (1000, 1, 32)).astype(np.int16)
    weights = kernel.data.view(np.int8).reshape(kernel.shape).astype(np.int64)
    sums = values[:, 0].astype(np.int64) @ weights.T + bias.data.view("<i8")
    scales = [source.scale * scale / op.outputs[0].scale for scale in kernel.scales]

    for name, bits in (("litert-reference", 31), ("tflite-micro", 15)):
        session = file.open(name)
        found = np.concatenate([session.run([value])[0] for value in values])
        columns = [scaled(sums[:, c], scale, bits) for c, scale in enumerate(scales)]
        wanted = np.clip(np.stack(columns, axis=1), -(2**15), 2**15 - 1)
        assert np.array_equal(found, wanted), name


def scaled(sums: np.ndarray, scale: float, bits: int) -> list[int]:
    """Return sums times a factor of so many bits, half a unit up."""
    fraction, exponent = np.frexp(scale)
    factor = (round(fraction * 2**31) + (1 << (30 - bits) if bits < 31 else 0)) >> (31 - bits)
    shift = bits - int(exponent)
    return [(int(total) * factor + (1 << (shift - 1))) >> shift for total in sums]


@pytest.mark.parametrize("name", ["residual", "separable", "features", "perceptron", "two_heads"])
def test_arena_and_size_are_predicted_before_there_is_a_file(
    files: dict[str, Micro], name: str
) -> None:
    file = files[name]
    graph = trace(file.model.module, file.model.example_inputs, name="")
    arena = file.open("tflite-micro").memory_bytes()
    assert arena is not None
    predicted = micro_arena_bytes(tflite_form(graph, "w8a16", integer_io=True))
    assert predicted == pytest.approx(arena, rel=0.02)
    size = predict_size(graph, "tflite", "w8a16", integer_io=True)
    assert size.low is not None
    assert size.low <= file.path.stat().st_size <= size.upper


def test_softmax_and_transposed_convolutions_take_what_is_predicted(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(), nn.Linear(4 * 256, 4), nn.Softmax(-1),
    ).eval()  # fmt: skip
    file = Micro(compressed(module, (torch.randn(1, 3, 8, 8),), "w8a16"), tmp_path)
    assert file.failed() == {}
    arena = file.open("tflite-micro").memory_bytes()
    graph = trace(module, file.model.example_inputs, name="")
    predicted = micro_arena_bytes(tflite_form(graph, "w8a16", integer_io=True))
    assert predicted == pytest.approx(arena, rel=0.02)


def test_the_simulation_makes_the_noise_that_the_file_makes(files: dict[str, Micro]) -> None:
    for name in ("residual", "separable"):
        file = files[name]
        simulated = simulate(file.model.module, "w8a16", file.model.calibration, target="tflite")
        with torch.no_grad():
            answers = output_tensors(simulated(*file.samples))
        told = sqnr_db(file.reference(), answers)
        found = sqnr_db(file.reference(), file.predict(file.open("tflite-micro")))
        assert told is not None
        assert found is not None
        assert told == pytest.approx(found, abs=3), name


class Named(nn.Module):
    """A convolution, and an operator of one's choice behind it, in a layer of its own."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = head
        self.tail = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.middle(self.stem(x)))  # type: ignore[no-any-return]


def test_what_has_no_int16_form_is_refused_by_operator_layer_and_way_out(tmp_path: Path) -> None:
    model = compressed(Named(nn.Hardswish()).eval(), (torch.randn(1, 3, 8, 8),), "w8a16")
    with pytest.raises(UnsupportedModel, match="HARD_SWISH at layer 'middle'") as raised:
        Micro(model, tmp_path)
    assert raised.value.next_step is not None
    assert "int8" in raised.value.next_step


def test_the_planner_does_not_choose_it_where_an_operator_has_no_int16_form() -> None:
    examples = (torch.randn(1, 3, 8, 8),)
    for head, kind in ((nn.Hardswish(), "hardswish"), (nn.LeakyReLU(), "leaky_relu")):
        graph = trace(Named(head).eval(), examples, name="")
        reason = scheme_refusal(graph, "tflite", "w8a16")
        assert reason is not None
        assert f"no int16 form of {kind} at layer 'middle'" in reason
        assert scheme_refusal(graph, "tflite", "int8") is None
    graph = trace(Named(nn.ReLU()).eval(), examples, name="")
    assert scheme_refusal(graph, "tflite", "w8a16") is None


def test_a_kernel_that_fails_only_when_it_runs_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    module = Named(nn.Upsample(scale_factor=2, mode="bilinear")).eval()
    file = Micro(compressed(module, (torch.randn(1, 3, 8, 8),), "w8a16"), tmp_path)
    with pytest.raises(UnsupportedModel, match="RESIZE_BILINEAR, at layer middle") as raised:
        file.open("tflite-micro")
    assert raised.value.next_step is not None
    assert raised.value.next_step.startswith("compile with int8")


def test_an_operator_left_in_int8_or_in_float_is_found(files: dict[str, Micro]) -> None:
    residual = files["residual"]
    other = emitted("residual", "int8")
    wrong = residual.failed(other.file)
    assert wrong["arithmetic is int16"].startswith("not in int16: ADD")
    assert "is int8" in wrong["layers are in their schemes"]
    wrong = residual.failed(emitted("residual", "fp32").file)
    assert wrong["arithmetic is int16"].startswith("in float: ADD")
    presented = replace(residual.model, scheme="int8")
    checks = check_file(residual.file, residual.emission, presented)
    assert "arithmetic is int8" in [check.name for check in checks if not check.passed]


class Summing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).sum((2, 3))  # type: ignore[no-any-return]


def test_a_reference_kernel_that_is_wrong_in_int16_is_not_asked(tmp_path: Path) -> None:
    file = Micro(compressed(Summing().eval(), (torch.randn(1, 3, 8, 8),), "w8a16"), tmp_path)
    assert file.noise_db("tflite-micro") > 40
    assert file.noise_db("litert-reference") < 10
    assert "SUM is wrong in int16" in reference_is_wrong(file.file)


def test_phones_are_told_why_not() -> None:
    for device in ("samsung_galaxy_s24", "host"):
        capability = TARGET.capability(load_device(device).runtime_for("tflite"))
        assert "XNNPACK has no kernels of int16" in capability.refused["w8a16"]
    capability = TARGET.capability(load_device("nucleo_h7a3zi_q").runtime_for("tflite"))
    assert "w8a16" in capability.schemes
    assert capability.mixes["w8a16"] == ()


@pytest.mark.slow
def test_vela_keeps_int16_on_the_npu(files: dict[str, Micro], tmp_path: Path) -> None:
    target = load_device("corstone_300").runtime_for("tflite")
    emission = TARGET.emit(files["separable"].model, target, tmp_path)

    assert [op.name for op in read_model(tmp_path / emission.files[0]).operators] == [ETHOS_U]
    checks = TARGET.checks(tmp_path, emission, files["separable"].model)
    assert [check.name for check in checks if not check.passed] == []
    session = TARGET.open(tmp_path, emission, "tflite-micro", 1)
    stacked, count = encode_inputs(files["separable"].samples, emission.inputs)
    answers = [session.run(list(batch))[0] for batch in zip(*stacked, strict=True)]
    found = decode_outputs([np.stack(answers)], emission.outputs, count)
    noise = sqnr_db(files["separable"].reference(), found)
    assert noise is not None
    assert noise > 30
