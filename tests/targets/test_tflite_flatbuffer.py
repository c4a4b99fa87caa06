"""Reading files: what is in them, and that damaged ones are refused and never believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tflite_nets import emitted

from edgesdk.errors import ArtifactError
from edgesdk_tflite.flatbuffer import ModelFile, pack, parse_model, read_model, unpack

pytestmark = pytest.mark.toolchain


def content() -> bytes:
    return emitted("perceptron", "int8").path.read_bytes()


def test_a_file_is_read_as_it_is() -> None:
    file = emitted("perceptron", "int8").file

    assert [op.name for op in file.operators] == ["FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert file.input("input_0").shape == (1, 12)
    assert file.output("output_0").dtype == "int8"
    kernels = [kernel for _, kernel in file.kernels()]
    assert [kernel.shape for kernel in kernels] == [(16, 12), (4, 16)]
    assert [len(kernel.scales) for kernel in kernels] == [16, 4]
    assert all(kernel.zero_points == (0,) * len(kernel.scales) for kernel in kernels)
    assert file.producer(file.input("input_0")) is None
    assert file.consumers(file.input("input_0")) == (file.operators[0],)


def test_packing_what_was_unpacked_changes_nothing() -> None:
    assert pack(unpack(content())) == content()


def test_a_kernel_is_found_behind_its_dequantize() -> None:
    file = emitted("perceptron", "fp16").file

    assert [kernel.dtype for _, kernel in file.kernels()] == ["float16", "float16"]


@pytest.mark.parametrize("length", [0, 4, 8, 100])
def test_a_cut_file_is_refused(length: int) -> None:
    with pytest.raises(ArtifactError, match="model"):
        parse_model(content()[:length])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_model(tmp_path / "absent.tflite")


@given(data=st.data())
def test_damage_is_either_harmless_or_an_artifact_error(data: st.DataObject) -> None:
    damaged = bytearray(content())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        file = parse_model(bytes(damaged))
    except ArtifactError:
        return
    assert isinstance(file, ModelFile)


def test_a_name_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ArtifactError, match="input_0"):
        emitted("perceptron", "int8").file.input("image")
