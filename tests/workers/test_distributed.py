"""Processes of ``torchrun`` train together and end where one alone does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import shared_run
import torch
from jobs import Squares

from edgesdk.compress.shared_training import Shared
from edgesdk.errors import UsageError
from edgesdk.task import Batch
from edgesdk.workers import distributed
from edgesdk.workers.choice import find_workers
from edgesdk.workers.here import Here
from edgesdk.workers.parcel import Parcel

TESTS = Path(__file__).parents[1]
BLOBS = f"{TESTS / 'blobs_task.py'}:blobs"

# Two halves of a gradient are added in another order: a rounding error of float32 (6e-8 relative)
# in each of the few dozen steps, each of which moves a weight by at most its learning rate.
_ROUNDING = 1e-5


def environment() -> dict[str, str]:
    found = os.pathsep.join((str(TESTS), str(TESTS / "workers")))
    return {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *starter, *arguments],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_end_in_the_weights_of_one(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    shared_run.train_all(BLOBS, alone, Here())
    done = torchrun(shared_run.__file__, BLOBS, str(together))
    assert done.returncode == 0, done.stderr
    for name in ("distil", "qat"):
        one, two, before = (
            safetensors.torch.load_file(file)
            for file in (
                alone / f"{name}.safetensors",
                together / f"{name}.safetensors",
                alone / f"{name}_before.safetensors",
            )
        )
        for key, wanted in one.items():
            assert torch.allclose(two[key], wanted, rtol=0, atol=_ROUNDING)
        moved = max(float((one[key] - before[key]).abs().max()) for key in one)
        assert moved > 1000 * _ROUNDING


@pytest.mark.slow
def test_only_the_first_process_answers() -> None:
    """Both are started with the same command line; one of them prints."""
    device = ["--device", "samsung_galaxy_s24", "--target", "tflite"]
    done = torchrun("-m", "edgesdk", "plan", BLOBS, *device, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "ok"


def test_workers_beside_torchrun_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert isinstance(find_workers(1), distributed.Distributed)
    with pytest.raises(UsageError, match="leave --workers out"):
        find_workers(4)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="another one"):
        find_workers(1)


def test_one_process_of_torchrun_works_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.rank() is None


@pytest.mark.parametrize(("samples", "processes"), [(8, 2), (7, 2), (7, 3), (3, 3), (2, 3), (1, 2)])
def test_parts_of_a_batch_count_as_much_as_they_hold(samples: int, processes: int) -> None:
    """The mean of the processes' weighted losses is the loss of the whole batch."""
    values = torch.arange(float(samples)) ** 2
    batch = Batch(inputs=(values[:, None],), targets=torch.arange(samples))
    losses, seen = [], []
    for place in range(processes):
        shared = object.__new__(Shared)  # its parts need no group of processes
        shared._rank, shared._count = place, processes
        part, weight = shared.part_of(batch)
        assert part.targets is not None
        assert len(part.inputs[0]) == len(part.targets) > 0
        losses.append(weight * float(part.inputs[0].mean()))
        seen += part.targets.tolist()
    assert sum(losses) / processes == pytest.approx(float(values.mean()))
    assert sorted(set(seen)) == list(range(samples))


def test_a_job_for_one_item_at_a_time_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    answers: dict[int, Parcel] = {}
    distributed.Distributed().map(Squares(), [Parcel(values={})], answers.__setitem__)
    assert answers[0].values["pid"] == os.getpid()
