"""The built-in task: its splits, its network, and the weights it keeps."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.demo import DEMOS, demo_names, digits
from edgesdk.demo.resnet import Block, ResNet
from edgesdk.errors import OutputError, TargetUnavailable
from edgesdk.task import Task
from edgesdk.task_check import calibration_batches, check_task, training_batches
from edgesdk.task_key import task_key, weights_sha256
from edgesdk.task_source import load_task

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(cache: Path) -> Task:
    """The task as it is loaded the first time: trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESDK_CACHE", str(cache))
        return load_task("demo:digits")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for one epoch, where what is tested is not the network's quality."""
    monkeypatch.setattr(digits, "_EPOCHS", 1)


@pytest.mark.slow
def test_the_trained_network_reads_digits(task: Task) -> None:
    check_task(task)
    predict = model_predict(task.model, torch.device("cpu"))
    assert evaluate_task(task, predict, "test") >= 0.97
    assert evaluate_task(task, predict, "validation") >= 0.97
    assert 50_000 < sum(p.numel() for p in task.model.parameters()) < 100_000
    assert not task.model.training


@pytest.mark.slow
def test_the_second_time_it_is_loaded_from_the_cache(
    task: Task, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(model: ResNet) -> None:
        raise AssertionError("trained again")

    monkeypatch.setenv("EDGESDK_CACHE", str(cache))
    monkeypatch.setattr(digits, "_train", train)
    assert task_key(load_task("demo:digits")) == task_key(task)


def test_splits_cover_every_scan_once() -> None:
    scans = [
        (name, scan.numpy().tobytes()) for name in digits._SIZES for scan in digits._split(name)[0]
    ]
    assert len(scans) == 1797
    assert len({scan for _, scan in scans}) == 1797
    for name, size in digits._SIZES.items():
        images, labels = digits._split(name)
        assert images.shape == (size, 1, 8, 8)
        assert set(labels.tolist()) == set(range(10))
        assert float(images.min()) == 0
        assert float(images.max()) == 1


@pytest.mark.usefixtures("short")
def test_data_is_normalised_shifted_and_deterministic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    task = digits.digits()
    torch.manual_seed(1)
    first = [batch.inputs[0] for batch in training_batches(task)]
    torch.manual_seed(1)
    second = [batch.inputs[0] for batch in training_batches(task)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    shifted = torch.cat(first)
    assert shifted.shape == (997, 1, 8, 8)
    assert abs(float(shifted.mean())) < 0.1
    calibration = torch.cat([inputs[0] for inputs in calibration_batches(task)])
    spec = task.inputs[0]
    scans = digits._split("calibration")[0]
    assert torch.allclose(calibration, (scans - spec.mean[0]) / spec.std[0], atol=1e-6)


def test_a_shift_moves_a_scan_by_at_most_one_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits._split("train")
    background = float(digits._normalised(images).min())
    sources = {label: digits._normalised(images[labels == label])[:, 0] for label in range(10)}
    torch.manual_seed(0)
    shifted, targets = next(digits._epoch())
    for image, label in zip(shifted[:8, 0], targets[:8].tolist(), strict=True):
        middle = image[1:7, 1:7]
        matches = [
            torch.isclose(sources[label][:, 1 + y : 7 + y, 1 + x : 7 + x], middle).all((1, 2))
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        ]
        assert torch.stack(matches).any()
        assert float(image.min()) >= background


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
def test_damaged_weights_are_trained_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    expected = weights_sha256(digits.digits().model)
    (path,) = (tmp_path / "demo").iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    damaged = {"truncated": whole[:-9], "flipped": bytes(flipped), "empty": b"", "other": b"x" * 99}
    path.write_bytes(damaged[damage])
    assert weights_sha256(digits.digits().model) == expected
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("short")
def test_training_leaves_the_callers_random_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    digits.digits()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.usefixtures("short")
def test_a_cache_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set EDGESDK_CACHE"):
        digits.digits()


def test_without_scikit_learn_the_install_command_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    monkeypatch.setattr(builtins, "__import__", without)
    digits._scans.cache_clear()
    digits._statistics.cache_clear()
    with pytest.raises(TargetUnavailable, match=r"pip install 'edgesdk\[demo\]'"):
        load_task("demo:digits")


def test_registry() -> None:
    assert demo_names() == tuple(sorted(DEMOS)) == ("digits",)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shortcut_starts_as_option_a(stride: int) -> None:
    block = Block(4, 8, stride).eval()
    x = torch.randn(2, 4, 6, 6)
    padded = torch.nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 2, 2))
    assert torch.equal(block.shortcut(x), padded)


def test_resnet_shapes() -> None:
    model = ResNet(channels=3, widths=(4, 8), blocks=(2, 1), classes=5).eval()
    assert model(torch.zeros(3, 3, 16, 16)).shape == (3, 5)
    assert sum(isinstance(module, Block) for module in model.modules()) == 3
