from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgesdk.artifact import TensorSpec
from edgesdk.errors import TaskError
from edgesdk.running.adapter import artifact_predict, decode_outputs, encode_inputs, quantize
from edgesdk.running.process import ArtifactProcess
from edgesdk.target import Arrays

NHWC = (0, 2, 3, 1)


def spec(*shape: int, **changes: Any) -> TensorSpec:
    fields = {"name": "x", "dtype": "float32", "from_torch": tuple(range(len(shape)))}
    return TensorSpec(shape=shape, **{**fields, **changes})


class EchoProcess:
    """A process whose artifact answers with its inputs, remembering what it was given."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.emission = SimpleNamespace(inputs=inputs, outputs=outputs)
        self.seen: Arrays = []

    def run(self, stacked: Arrays) -> Arrays:
        self.seen = list(stacked)
        return [array.copy() for array in stacked]


def echo(*specs: TensorSpec) -> tuple[Any, EchoProcess]:
    process = EchoProcess(specs, specs)
    return artifact_predict(cast(ArtifactProcess, process)), process


@given(st.integers(1, 20), st.integers(1, 5))
def test_any_number_of_samples_goes_through_any_batch(count: int, batch: int) -> None:
    predict, process = echo(spec(batch, 3))
    inputs = torch.arange(count * 3, dtype=torch.float32).reshape(count, 3)
    outputs = predict(inputs)
    assert torch.equal(outputs, inputs)
    assert process.seen[0].shape == (-(-count // batch), batch, 3)


def test_the_last_batch_is_filled_with_its_last_sample() -> None:
    predict, process = echo(spec(3, 1))
    assert predict(torch.tensor([[1.0], [2.0], [3.0], [4.0]])).flatten().tolist() == [1, 2, 3, 4]
    assert process.seen[0].reshape(2, 3).tolist() == [[1, 2, 3], [4, 4, 4]]


@given(st.permutations([1, 2, 3]), st.integers(1, 7), st.integers(1, 3))
@settings(max_examples=30)
def test_layouts_are_permuted_there_and_back(axes: list[int], count: int, batch: int) -> None:
    from_torch = (0, *axes)
    torch_shape = (batch, 2, 3, 4)
    file_shape = tuple(torch_shape[axis] for axis in from_torch)
    predict, process = echo(spec(*file_shape, from_torch=from_torch))
    inputs = torch.randn(count, 2, 3, 4)
    assert torch.equal(predict(inputs), inputs)
    assert process.seen[0].shape[1:] == file_shape
    assert process.seen[0].flags.c_contiguous


def test_an_image_reaches_an_nhwc_file_channels_last() -> None:
    image = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    [array], count = encode_inputs([image], [spec(1, 3, 4, 2, from_torch=NHWC)])
    assert count == 1
    assert array.shape == (1, 1, 3, 4, 2)
    assert array[0, 0, 1, 2].tolist() == image[0, :, 1, 2].tolist()


def test_a_channels_last_tensor_arrives_in_its_logical_order() -> None:
    image = torch.randn(2, 3, 4, 4)
    [array], _ = encode_inputs([image.to(memory_format=torch.channels_last)], [spec(1, 3, 4, 4)])
    assert array.flags.c_contiguous
    assert np.array_equal(array.reshape(2, 3, 4, 4), image.numpy())


INT8 = {"dtype": "int8", "scale": 0.5, "zero_point": -3}


def test_quantizing_rounds_shifts_and_clips() -> None:
    real = np.array([0.0, 0.5, 0.74, 0.76, -1.0, 65.5, 1e9, -1e9])
    found = quantize(real, spec(8, **INT8))
    assert found.dtype == np.int8
    assert found.tolist() == [-3, -2, -2, -1, -5, 127, 127, -128]


def test_unsigned_and_symmetric_types_clip_at_their_own_ends() -> None:
    unsigned = spec(3, dtype="uint8", scale=1.0, zero_point=128)
    assert quantize(np.array([-200.0, 0.0, 200.0]), unsigned).tolist() == [0, 128, 255]
    symmetric = spec(2, dtype="int16", scale=1.0)
    assert quantize(np.array([-1e6, 7.0]), symmetric).tolist() == [-32768, 7]


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
    st.floats(0.25, 2.0),
    st.integers(-60, 60),
)
def test_quantized_inputs_and_outputs_lose_at_most_half_a_step(
    values: list[float], scale: float, zero_point: int
) -> None:
    wide = spec(1, 1, dtype="int16", scale=scale, zero_point=zero_point)
    predict, process = echo(wide)
    inputs = torch.tensor(values).reshape(-1, 1)
    outputs = predict(inputs)
    assert process.seen[0].dtype == np.int16
    assert outputs.dtype == torch.float32
    assert float((outputs - inputs).abs().max()) <= scale / 2 * (1 + 1e-4)


@given(st.integers(-128, 127))
def test_every_integer_is_decoded_to_the_number_that_gives_it(integer: int) -> None:
    one = spec(1, 1, **INT8)
    [decoded] = decode_outputs([np.array([[[integer]]], dtype=np.int8)], [one], 1)
    assert float(decoded) == 0.5 * (integer + 3)
    [again], _ = encode_inputs([decoded], [one])
    assert int(again.item()) == integer


def test_float_inputs_are_cast_to_the_files_type() -> None:
    [array], _ = encode_inputs([torch.tensor([[1.5]])], [spec(1, 1, dtype="float16")])
    assert array.dtype == np.float16
    [tokens], _ = encode_inputs([torch.tensor([[7]])], [spec(1, 1, dtype="int32")])
    assert (tokens.dtype, tokens.item()) == (np.int32, 7)


def test_several_inputs_and_outputs_keep_their_order() -> None:
    predict, _ = echo(spec(2, 1, name="a"), spec(2, 3, name="b"))
    first, second = torch.randn(5, 1), torch.randn(5, 3)
    found = predict(first, second)
    assert isinstance(found, tuple)
    assert torch.equal(found[0], first)
    assert torch.equal(found[1], second)


def test_one_output_is_a_tensor() -> None:
    assert isinstance(echo(spec(1, 1))[0](torch.zeros(1, 1)), Tensor)


def test_a_gradient_does_not_hinder() -> None:
    inputs = torch.zeros(2, 1, requires_grad=True)
    assert not echo(spec(1, 1))[0](inputs).requires_grad


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (2,), (0, 3), (3,), ()], ids=str)
def test_a_wrong_shape_is_the_tasks_error_and_says_which_is_right(shape: tuple[int, ...]) -> None:
    with pytest.raises(TaskError) as caught:
        echo(spec(2, 3))[0](torch.zeros(shape))
    assert caught.value.exit_code == 10
    assert str(list(shape)) in str(caught.value)


def test_the_right_shape_is_told_in_pytorch_layout() -> None:
    predict, _ = echo(spec(1, 8, 6, 3, from_torch=NHWC))
    with pytest.raises(TaskError, match=r"\[N, 3, 8, 6\] in PyTorch layout"):
        predict(torch.zeros(1, 8, 6, 3))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_inputs_is_the_tasks_error(count: int) -> None:
    predict, _ = echo(spec(1, 1), spec(1, 1))
    with pytest.raises(TaskError, match=f"{count} inputs, the model has 2"):
        predict(*[torch.zeros(1, 1)] * count)


@pytest.mark.parametrize("batch", [1, 3])
def test_inputs_of_unequal_number_are_never_paired(batch: int) -> None:
    predict, _ = echo(spec(batch, 1), spec(batch, 1))
    with pytest.raises(TaskError, match="same first dimension"):
        predict(torch.zeros(5, 1), torch.zeros(4, 1))
