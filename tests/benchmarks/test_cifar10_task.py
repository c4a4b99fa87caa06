"""The CIFAR-10 benchmark tasks: what they are with the data, what they say without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.errors import TaskError
from edgesdk.task_check import check_task, training_batches
from edgesdk.task_source import load_task

FILE = Path(__file__).parents[2] / "benchmarks" / "tasks" / "cifar10.py"
DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the CIFAR-10 data is not in {DATA}")
def test_resnet20_is_the_network_that_was_published() -> None:
    task = load_task(f"{FILE}:resnet20")
    check_task(task)
    predict = model_predict(task.model, torch.device("cpu"))
    assert evaluate_task(task, predict, "test") == pytest.approx(0.915)
    sizes = [len(batch.inputs[0]) for batch in training_batches(task)]
    assert sum(sizes) == 8_800


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESDK_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"resnet56-4bfd9763\.npz does not exist.*EDGESDK_DATA"):
        load_task(f"{FILE}:resnet56")
