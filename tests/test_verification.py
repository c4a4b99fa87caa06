import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from blobs_task import blobs
from torch import Tensor

import edgesdk
from edgesdk.artifact import (
    GOLDEN,
    MANIFEST,
    MANIFEST_SHA256,
    manifest_seal,
    read_manifest,
    sha256_of,
)
from edgesdk.budget import Budget, Relative
from edgesdk.device import DeviceProfile
from edgesdk.errors import ArtifactError, TaskError, UsageError
from edgesdk.verification import open_artifact, verify_artifact

MODEL = "model.safetensors"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def artifact(
    kept: Path,
    tmp_path: Path,
    reference_device: DeviceProfile,
    in_process: None,
) -> Path:
    """A finished artifact of the reference target, to be damaged."""
    if not (kept / "out").exists():
        edgesdk.compile(
            blobs(),
            device=reference_device,
            budget=Budget(size_bytes=Relative(fraction=0.9)),
            out=kept / "out",
            cache=kept / "cache",
        )
    return Path(shutil.copytree(kept / "out", tmp_path / "artifact"))


def seal_again(folder: Path, change: Callable[[dict[str, Any]], object] = dict) -> None:
    """Make the hashes fit again, as someone would who has more in mind than an accident."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = {
        name: sha256_of(folder / name) for name in manifest["sha256"] if (folder / name).exists()
    }
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder))


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata=metadata)


def test_a_whole_artifact_is_verified_on_its_runtime(artifact: Path) -> None:
    found = verify_artifact(artifact)
    assert (found.status, found.runtime) == ("verified", "numpy")
    assert [check.name for check in found.checks] == ["hashes", "load", "golden vectors"]
    assert all(check.passed for check in found.checks)
    assert "bit-identical" in found.checks[-1].detail
    assert found.accuracy is None
    assert found.sealed_accuracy is not None
    assert found.to_json()["status"] == "ok"


def test_a_task_scores_it_again(artifact: Path) -> None:
    found = verify_artifact(artifact, blobs())
    assert found.status == "verified"
    assert found.accuracy is not None
    assert found.accuracy.value == read_manifest(artifact).verified["accuracy"].value
    assert found.accuracy.source.startswith("500 test samples, numpy")
    assert found.to_json()["accuracy"] == found.to_json()["sealed_accuracy"]


def test_an_accuracy_that_was_made_up_is_found_out(artifact: Path) -> None:
    def boast(manifest: dict[str, Any]) -> None:
        manifest["verified"]["accuracy"]["value"] = 1.0

    seal_again(artifact, boast)
    found = verify_artifact(artifact, blobs())
    assert found.status == "failed"
    assert [check.name for check in found.checks if not check.passed] == ["accuracy"]
    assert found.to_json()["status"] == "error"


def test_an_accuracy_that_was_not_sealed_is_said_to_be_new(artifact: Path) -> None:
    seal_again(artifact, lambda manifest: manifest["verified"].pop("accuracy"))
    found = verify_artifact(artifact, blobs())
    assert found.status == "verified"
    assert "none was sealed" in found.checks[-1].detail


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update({"4.bias": tensors["4.bias"] + 1}),
        lambda tensors: tensors.update({"0.weight": tensors["0.weight"].roll(1, 0)}),
        lambda tensors: tensors.update({"2.weight": tensors["2.weight"] * torch.nan}),
    ],
    ids=["shifted", "rolled", "nan"],
)
def test_other_weights_are_found_out_by_the_golden_vectors(
    artifact: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    change_tensors(artifact / MODEL, change)
    with pytest.raises(ArtifactError, match="SHA-256"):
        verify_artifact(artifact)
    seal_again(artifact)
    found = verify_artifact(artifact)
    assert found.status == "failed"
    assert [check.name for check in found.checks if not check.passed] == ["golden vectors"]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update({"output.0": -t["output.0"]}),
        lambda t: t.update({"output.0": t["output.0"][:, :2].contiguous()}),
        lambda t: t.update({"output.0": t["output.0"][:1].contiguous()}),
        lambda t: t.update({"output.0": t["output.0"][:, None].contiguous()}),
        lambda t: t.update({"output.1": t["output.0"].clone()}),
    ],
    ids=["other values", "fewer classes", "fewer samples", "another rank", "one more"],
)
def test_golden_outputs_that_do_not_fit_are_a_failed_check_and_no_crash(
    artifact: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    change_tensors(artifact / GOLDEN, change)
    seal_again(artifact)
    found = verify_artifact(artifact)
    assert found.status == "failed"


def test_golden_vectors_that_are_no_tensors_are_an_artifact_error(artifact: Path) -> None:
    (artifact / GOLDEN).write_bytes(b"\x00" * 100)
    seal_again(artifact)
    with pytest.raises(ArtifactError, match=GOLDEN):
        verify_artifact(artifact)


def test_a_small_rounding_of_another_build_is_not_a_failure(artifact: Path) -> None:
    def nudge(tensors: dict[str, Tensor]) -> None:
        noise = torch.randn_like(tensors["output.0"])
        tensors["output.0"] = tensors["output.0"] + 1e-4 * noise

    change_tensors(artifact / GOLDEN, nudge)
    seal_again(artifact)
    found = verify_artifact(artifact)
    assert found.status == "verified"
    assert "bit-identical" not in found.checks[-1].detail


def test_what_nothing_here_runs_is_not_verified_and_never_called_so(artifact: Path) -> None:
    seal_again(artifact, lambda manifest: manifest.update(host_runtime=None))
    found = verify_artifact(artifact, blobs())
    assert (found.status, found.runtime, found.accuracy) == ("not verified", None, None)
    assert found.to_json()["verification"] == "not verified"
    with pytest.raises(ArtifactError, match="nothing on this machine"):
        open_artifact(artifact, read_manifest(artifact))


def test_damaged_bytes_are_noticed_even_where_nothing_runs_them(artifact: Path) -> None:
    seal_again(artifact, lambda manifest: manifest.update(host_runtime=None))
    content = bytearray((artifact / MODEL).read_bytes())
    content[-1] ^= 1
    (artifact / MODEL).write_bytes(content)
    with pytest.raises(ArtifactError, match=MODEL):
        verify_artifact(artifact)


def test_a_name_that_leaves_the_folder_is_never_opened(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    for name in ("../secret", "/etc/passwd"):
        with pytest.raises(ArtifactError, match="not inside"):
            open_artifact(artifact, replace(manifest, files=(name,)))


def test_an_artifact_of_an_unknown_target_says_which(artifact: Path) -> None:
    seal_again(artifact, lambda manifest: manifest.update(target="nunpy"))
    with pytest.raises(UsageError, match="unknown target 'nunpy'"):
        verify_artifact(artifact)


def test_a_task_of_another_shape_is_not_scored_silently(artifact: Path) -> None:
    def wide(predict: Any, split: str) -> float:
        predict(torch.zeros(3, 9))
        return 0.5

    with pytest.raises(TaskError, match="shape"):
        verify_artifact(artifact, replace(blobs(), evaluate=wide))
