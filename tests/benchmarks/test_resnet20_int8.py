"""ResNet20 in int8 on real images: the artifact keeps the accuracy and a third of the bytes.

Needs the CIFAR-10 images and trained weights (see benchmarks/tasks/cifar10.py); skipped without.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.budget import Budget, Relative
from edgesdk.pipeline import compile_task
from edgesdk.task import Task
from edgesdk.task_source import load_task
from edgesdk.verification import verify_artifact

CIFAR10 = Path(__file__).parents[2] / "benchmarks" / "tasks" / "cifar10.py"


DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.fixture(scope="module")
def resnet20() -> Task:
    return load_task(f"{CIFAR10}:resnet20")


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the CIFAR-10 data is not in {DATA}")
@pytest.mark.parametrize("target", ["executorch", "tflite"])
def test_int8_alone_keeps_accuracy_at_a_third_of_the_size(
    target: str, resnet20: Task, tmp_path: Path
) -> None:
    budget = Budget(size_bytes=Relative(fraction=0.30))

    result = compile_task(
        resnet20, device="host", target=target, budget=budget, out=tmp_path / "out"
    )

    assert result.plan.option == "int8"
    assert result.baseline["accuracy"].value == pytest.approx(0.915, abs=5e-4)
    assert result.verified["accuracy_drop"].value <= 0.01
    assert result.verified["size_bytes"].value <= 0.30 * result.baseline["size_bytes"].value
    again = verify_artifact(tmp_path / "out", resnet20)
    assert again.status == "verified"
    assert again.accuracy is not None
    assert again.accuracy.value == result.verified["accuracy"].value
