from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgesdk.errors import ArtifactError
from edgesdk.stages.sealing import read_golden


def test_golden_vectors_come_back_in_their_order_however_many(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    inputs = {f"input.{index}": torch.full((2, 1), float(index)) for index in range(12)}
    outputs = {f"output.{index}": torch.full((2, 1), -float(index)) for index in range(11)}
    safetensors.torch.save_file({**outputs, **inputs}, path)
    found_inputs, found_outputs = read_golden(path)
    assert [float(tensor[0]) for tensor in found_inputs] == list(range(12))
    assert [-float(tensor[0]) for tensor in found_outputs] == list(range(11))


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 100, b"not safetensors at all"])
def test_golden_vectors_that_cannot_be_read_are_an_artifact_error(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"golden\.safetensors"):
        read_golden(path)


def test_missing_golden_vectors_are_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_golden(tmp_path / "golden.safetensors")


@pytest.mark.parametrize("names", [[], ["input.0"], ["output.0"], ["inputs.0", "outputs.0"]])
def test_golden_vectors_without_inputs_or_outputs_are_refused(
    tmp_path: Path, names: list[str]
) -> None:
    path = tmp_path / "golden.safetensors"
    safetensors.torch.save_file({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(ArtifactError, match="no golden inputs and outputs"):
        read_golden(path)
