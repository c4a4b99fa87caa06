"""Sessions: what LiteRT, its reference kernels and TensorFlow Lite Micro answer and report."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_nets import Emitted, compressed, emitted
from torch import nn

from edgesdk.errors import ArtifactError, UnsupportedModel, UsageError
from edgesdk.parity import sqnr_db
from edgesdk.running.adapter import artifact_predict
from edgesdk.running.process import ArtifactProcess
from edgesdk.target import installed_version
from edgesdk.task import output_tensors
from edgesdk_tflite import TARGET
from edgesdk_tflite.flatbuffer import read_model
from edgesdk_tflite.rounding import most_units_apart

pytestmark = pytest.mark.toolchain

HOST_RUNTIMES = ("litert", "litert-reference", "tflite-micro")
# Fully connected layers are absent, last, or followed by arithmetic.
TWINS = {"separable": 0, "features": 0, "residual": 1, "perceptron": None}


def outputs_of_both(file: Emitted) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what the reference kernels and TensorFlow Lite Micro answer, output by output."""
    reference = file.raw_outputs(file.open("litert-reference"))
    micro = file.raw_outputs(file.open("tflite-micro"))
    assert len(micro) == 16 // len(file.model.example_inputs[0])
    for expected, found in zip(reference, micro, strict=True):
        yield from zip(expected, found, strict=True)


@pytest.mark.parametrize("name", ["features", "separable"])
def test_micro_convolves_bit_for_bit_like_the_reference_kernels(name: str) -> None:
    for one, other in outputs_of_both(emitted(name, "int8")):
        assert one.dtype == other.dtype == np.int8
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", ["residual_batch", "perceptron", "wave", "two_heads"])
def test_fully_connected_layers_differ_by_one_unit_at_most(name: str) -> None:
    for one, other in outputs_of_both(emitted(name, "int8")):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_the_difference_is_one_rounding_more_and_nothing_else() -> None:
    """What each runtime does with a sum, written out: equal to the last bit of 64,000 values."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(32, 16)).eval()
    file = Emitted(compressed(layer, (torch.randn(1, 32),), "int8"))
    [op] = read_model(file.path).operators
    source, kernel, bias = (tensor for tensor in op.inputs if tensor is not None)
    result = op.outputs[0]
    assert kernel.data is not None
    assert bias.data is not None
    assert source.scale is not None
    assert result.scale is not None
    values = np.random.default_rng(0).integers(-128, 128, (4000, 1, 32)).astype(np.int8)
    weights = kernel.data.view(np.int8).reshape(kernel.shape).astype(np.int64)
    sums = (values[:, 0].astype(np.int64) - (source.zero_point or 0)) @ weights.T
    sums = sums + bias.data.view("<i4")
    scales = [source.scale * scale / result.scale for scale in kernel.scales]

    for name, rounds in (("litert-reference", once), ("tflite-micro", twice)):
        session = file.open(name)
        found = np.concatenate([session.run([value])[0] for value in values]).astype(np.int64)
        columns = [rounds(sums[:, c], *multiplier(scale)) for c, scale in enumerate(scales)]
        wanted = np.clip(np.stack(columns, axis=1) + (result.zero_point or 0), -128, 127)
        assert np.array_equal(found, wanted), name


def multiplier(scale: float) -> tuple[int, int]:
    """Return a scale below 1 as ``m * 2 ** (s - 31)`` with 31 bits of ``m``."""
    fraction, shift = math.frexp(scale)
    assert shift <= 0
    return round(fraction * (1 << 31)), shift


def once(sums: np.ndarray, m: int, shift: int) -> np.ndarray:
    total = 31 - shift
    return (sums * m + (1 << (total - 1))) >> total


def twice(sums: np.ndarray, m: int, shift: int) -> np.ndarray:
    """To 31 bits, half up; then by the shift, half away from zero."""
    high = (sums * m + (1 << 30)) >> 31
    mask = (1 << -shift) - 1
    threshold = (mask >> 1) + (high < 0)
    return (high >> -shift) + ((high & mask) > threshold)


def test_the_target_knows_how_far_the_two_may_be_apart() -> None:
    apart = {name: most_units_apart(read_model(emitted(name, "int8").path)) for name in TWINS}
    assert apart == TWINS
    assert most_units_apart(read_model(emitted("perceptron", "fp32").path)) == 0
    for name in ("separable", "residual"):
        file = emitted(name, "int8")
        twin = TARGET.twin(file.folder, file.emission, "tflite-micro")
        assert twin is not None
        assert (twin.host_runtime, twin.most_units) == ("litert-reference", TWINS[name])
        assert TARGET.twin(file.folder, file.emission, "litert") is None


class Summing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).sum((2, 3))


@pytest.mark.slow
def test_a_reference_kernel_that_is_wrong_is_not_asked() -> None:
    """SUM in int8: TensorFlow Lite Micro follows PyTorch, LiteRT's reference kernel does not."""
    file = Emitted(compressed(Summing().eval(), (torch.randn(1, 3, 8, 8),), "int8"))
    assert file.noise_db("tflite-micro") > 30
    assert file.noise_db("litert-reference") < 10
    twin = TARGET.twin(file.folder, file.emission, "tflite-micro")
    assert twin is not None
    assert "SUM is wrong" in twin.unusable


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "separable", "wave", "two_heads", "perceptron"])
def test_float_is_bit_for_bit_alike_too(name: str) -> None:
    for one, other in outputs_of_both(emitted(name, "fp32")):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("host_runtime", HOST_RUNTIMES)
def test_two_inputs_and_two_outputs_go_where_they_belong(host_runtime: str) -> None:
    assert emitted("two_heads", "int8").noise_db(host_runtime) > 25
    assert emitted("two_heads", "fp32").noise_db(host_runtime) > 100


@pytest.mark.parametrize("host_runtime", HOST_RUNTIMES)
def test_outputs_are_copies(host_runtime: str) -> None:
    file = emitted("perceptron", "int8")
    session = file.open(host_runtime)
    low, high = (np.full((1, 12), value, np.int8) for value in (-100, 100))

    (first,) = session.run([low])
    kept = first.copy()
    (second,) = session.run([high])

    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("host_runtime", HOST_RUNTIMES)
def test_strided_inputs_are_read_by_their_elements(host_runtime: str) -> None:
    file = emitted("separable", "int8")
    session = file.open(host_runtime)
    image = np.random.default_rng(0).integers(-128, 128, (1, 16, 16, 3)).astype(np.int8)

    (expected,) = session.run([image])
    (found,) = session.run([np.asfortranarray(image)])

    assert np.array_equal(expected, found)


@pytest.mark.parametrize("host_runtime", HOST_RUNTIMES)
def test_an_input_of_another_type_or_shape_is_refused(host_runtime: str) -> None:
    session = emitted("separable", "int8").open(host_runtime)

    for wrong in (np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 3, 16, 16), np.int8)):
        with pytest.raises(ValueError, match="Cannot set tensor"):
            session.run([wrong])


def test_identities_say_what_ran() -> None:
    file = emitted("perceptron", "int8")
    identities = {
        name: TARGET.open(file.folder, file.emission, name, 2).identity for name in HOST_RUNTIMES
    }

    assert [identities[name].runtime for name in HOST_RUNTIMES] == list(HOST_RUNTIMES)
    assert [identities[name].threads for name in HOST_RUNTIMES] == [2, 1, 1]
    assert identities["litert"].version == installed_version("ai-edge-litert")
    assert identities["tflite-micro"].version == installed_version("tflite-micro")
    assert all(found.platform.startswith(sys.platform) for found in identities.values())
    assert "reference kernels" in identities["tflite-micro"].platform


def test_the_arena_is_the_smallest_that_the_file_loads_in() -> None:
    from tflite_micro.python.tflite_micro import runtime

    file = emitted("residual", "int8")

    memory_bytes = file.open("tflite-micro").memory_bytes()

    assert memory_bytes is not None
    assert memory_bytes > 2 * 8 * 8 * 8  # two activations of the widest layer live at once
    runtime.Interpreter.from_file(str(file.path), arena_size=memory_bytes)
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_file(str(file.path), arena_size=memory_bytes - 16)


def test_float_activations_take_a_larger_arena() -> None:
    float_bytes = emitted("residual", "fp32").open("tflite-micro").memory_bytes()
    int8_bytes = emitted("residual", "int8").open("tflite-micro").memory_bytes()

    assert float_bytes is not None
    assert int8_bytes is not None
    assert float_bytes > 1.5 * int8_bytes


def test_litert_does_not_tell_its_memory() -> None:
    assert emitted("perceptron", "fp32").open("litert").memory_bytes() is None


@pytest.mark.slow
@pytest.mark.parametrize("host_runtime", ["litert", "tflite-micro"])
def test_the_worker_process_runs_the_file(host_runtime: str) -> None:
    file = emitted("residual", "int8")

    with ArtifactProcess(
        target="tflite", folder=file.folder, emission=file.emission, host_runtime=host_runtime
    ) as process:
        outputs = output_tensors(artifact_predict(process)(*file.samples))
        assert process.identity.runtime == host_runtime
        assert (process.memory_bytes is not None) == (host_runtime == "tflite-micro")

    assert torch.equal(outputs[0], file.predict(file.open(host_runtime))[0])
    noise_db = sqnr_db(file.reference(), outputs)
    assert noise_db is not None
    assert noise_db > 25


def test_an_operator_that_micro_lacks_is_named_with_its_layer() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)).eval()
    file = Emitted(compressed(module, (torch.randn(1, 4),), "int8"))

    assert file.noise_db("litert") > 25
    with pytest.raises(UnsupportedModel, match=r"Micro has no GELU, at layer 1\b") as raised:
        file.open("tflite-micro")
    assert raised.value.next_step


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(torch.relu(x) + 1)


def test_a_kernel_that_loads_and_cannot_run_is_named_with_its_layer() -> None:
    """TensorFlow Lite Micro loads an int8 SQRT, and asks for float32 at each inference."""
    module = nn.Sequential(nn.Linear(4, 4), Root(), nn.Linear(4, 2)).eval()
    file = Emitted(compressed(module, (torch.randn(1, 4),), "int8"))

    assert file.noise_db("litert") > 20
    with pytest.raises(UnsupportedModel, match=r"cannot run this SQRT, at layer 1\b") as raised:
        file.predict(file.open("tflite-micro"))
    assert "INT8 != FLOAT32" in str(raised.value)
    assert raised.value.next_step


def test_micro_takes_no_float16_weights() -> None:
    with pytest.raises(UnsupportedModel, match=r"DEQUANTIZE.*kTfLiteInt8"):
        emitted("residual", "fp16").open("tflite-micro")


def test_an_unknown_host_runtime_suggests_the_near_one() -> None:
    file = emitted("perceptron", "fp32")

    with pytest.raises(UsageError, match="litert-reference"):
        TARGET.open(file.folder, file.emission, "litert-refrence", 1)


@pytest.mark.parametrize("host_runtime", HOST_RUNTIMES)
def test_a_file_that_is_none_is_refused(host_runtime: str, tmp_path: Path) -> None:
    file = emitted("perceptron", "fp32")

    with pytest.raises(ArtifactError, match="cannot be read"):
        TARGET.open(tmp_path, file.emission, host_runtime, 1)
    (tmp_path / "model.tflite").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ArtifactError, match="is not a"):
        TARGET.open(tmp_path, file.emission, host_runtime, 1)


@pytest.mark.parametrize("host_runtime", HOST_RUNTIMES)
def test_an_emission_of_another_file_is_refused(host_runtime: str) -> None:
    file, other = emitted("perceptron", "fp32"), emitted("two_heads", "fp32")

    with pytest.raises(ArtifactError, match="no input 'input_1'"):
        TARGET.open(file.folder, other.emission, host_runtime, 1)
