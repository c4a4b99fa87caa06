from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from blobs_task import blobs, training, uneven_blobs
from torch import Tensor, nn

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.qat import default_qat, qat
from edgesdk.compress.rounding import AI_EDGE, Rounding
from edgesdk.compress.training import EpochReport
from edgesdk.errors import UsageError
from edgesdk.plan import Qat
from edgesdk.task import Batch, Task
from edgesdk.task_check import calibration_batches

CPU = torch.device("cpu")
INT8 = Rounding(quantizer=AI_EDGE)
STEP = Qat(epochs=6, learning_rate=5e-3, temperature=2.0, alpha=0.9, patience=6)


def trained(task: Task, step: Qat = STEP, **changes: object) -> nn.Module:
    given: dict[str, object] = {
        "calibration": list(calibration_batches(task)), "device": CPU, "seed": 0,
    }  # fmt: skip
    given |= changes
    return qat(task.model, task.model, task, step, INT8, **given)  # type: ignore[arg-type]


def quantized(module: nn.Module, task: Task) -> FakeQuantized:
    fake = FakeQuantized(module, task.example_inputs, INT8)
    fake.observe(list(calibration_batches(task)))
    return fake


def score(module: nn.Module, task: Task) -> float:
    return evaluate_task(task, model_predict(module, CPU), "validation")


def test_it_recovers_half_of_what_int8_cost_and_keeps_the_original() -> None:
    task = uneven_blobs()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    original, ptq = score(task.model, task), score(quantized(task.model, task), task)
    module = trained(task)
    assert ptq < original - 0.05
    assert score(quantized(module, task), task) > ptq + 0.5 * (original - ptq)
    assert type(module) is nn.Sequential
    assert not module.training
    assert all(torch.equal(before[n], value) for n, value in task.model.state_dict().items())


def test_the_score_it_reports_is_that_of_quantizing_the_result() -> None:
    task = uneven_blobs()
    reports: list[EpochReport] = []
    module = trained(task, on_epoch=reports.append)
    best = max(report.score or 0.0 for report in reports)
    assert reports[0].epoch == 0
    assert reports[0].score == score(quantized(task.model, task), task)
    assert score(quantized(module, task), task) == best


class _StoppedError(Exception):
    pass


def test_a_killed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    task = blobs()

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise _StoppedError

    whole = trained(task).state_dict()
    with pytest.raises(_StoppedError):
        trained(task, checkpoint=tmp_path / "c", on_epoch=stop)
    notes: list[str] = []
    resumed = trained(task, checkpoint=tmp_path / "c", on_epoch=lambda r: notes.append(r.note))
    assert notes[0].startswith("resumed after epoch 2")
    assert all(torch.equal(whole[name], value) for name, value in resumed.state_dict().items())


def test_a_loss_that_turns_nan_stops_with_the_last_good_state() -> None:
    task, epochs = blobs(), 0

    def exploding() -> Iterator[Batch]:
        nonlocal epochs
        epochs += 1
        yield from training()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value * (float("nan") if epochs > 3 else 1.0)

    reports: list[EpochReport] = []
    module = trained(replace(task, training=exploding, loss=loss), on_epoch=reports.append)
    assert "stopped" in reports[-1].note
    assert "halved" in reports[-1].note
    assert reports[-1].best_epoch <= 2
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())


def test_a_pruned_student_learns_from_the_whole_teacher() -> None:
    task = blobs()
    torch.manual_seed(0)
    student = nn.Sequential(
        nn.Linear(8, 24),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 4),
    )
    step = replace(STEP, epochs=4, learning_rate=1e-2)
    module = qat(
        student, task.model, task, step, INT8,
        calibration=list(calibration_batches(task)), device=CPU, seed=0,
    )  # fmt: skip
    assert isinstance(module[1], nn.Identity)  # type: ignore[index]
    assert score(quantized(module, task), task) > 0.8


def test_numbers_that_training_cannot_have_are_named() -> None:
    with pytest.raises(UsageError, match=r"a qat step cannot have epochs=0, learning_rate=nan"):
        trained(blobs(), replace(STEP, epochs=0, learning_rate=float("nan")))


def test_the_default_is_gentler_than_distillation_and_longer_with_more_effort() -> None:
    step = default_qat(blobs(), samples=256, sample_visits=60_000)
    assert (step.epochs, step.patience) == (24, 12)
    assert step.learning_rate == pytest.approx(1e-4)
    assert default_qat(blobs(), samples=256, sample_visits=240_000).epochs == 96
