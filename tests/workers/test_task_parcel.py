"""A task crosses by its reference and its weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from blobs_task import blobs
from torch import nn

from edgesdk.errors import UsageError, WorkerError
from edgesdk.task import Task
from edgesdk.task_key import task_key
from edgesdk.task_source import load_task
from edgesdk.workers.parcel import Parcel
from edgesdk.workers.task_parcel import pack_task, unpack_task

BLOBS = f"{Path(__file__).parents[1] / 'blobs_task.py'}:blobs"

TASK = """
import torch
from edgesdk import Task

def task():
    model = torch.nn.Sequential(torch.nn.Linear(2, {width}), torch.nn.BatchNorm1d({width}))
    return Task(name="random", model=model.eval(), example_inputs=(torch.zeros(1, 2),))
"""


def crossed(task: Task) -> Task:
    return unpack_task(Parcel.from_bytes(pack_task(task).to_bytes()))


def written(file: Path, text: str) -> str:
    file.write_text(text)
    return f"{file}:task"


def test_the_task_over_there_is_the_same() -> None:
    task = load_task(BLOBS)
    found = crossed(task)
    assert task_key(found) == task_key(task)
    assert (found.name, found.reference) == (task.name, BLOBS)
    assert found.evaluate is not None


def test_weights_cross_even_where_each_load_draws_others(tmp_path: Path) -> None:
    task = load_task(written(tmp_path / "task.py", TASK.format(width=3)))
    with torch.no_grad():
        task.model[1].running_mean.fill_(0.25)  # type: ignore[index, union-attr, operator]
    assert task_key(crossed(task)) == task_key(task)


def test_a_task_made_in_python_cannot_cross() -> None:
    with pytest.raises(UsageError, match=r"leave workers at 1"):
        pack_task(blobs())


def test_a_file_that_changed_meanwhile_is_named(tmp_path: Path) -> None:
    task = load_task(written(tmp_path / "task.py", TASK.format(width=3)))
    packed = pack_task(task)
    written(tmp_path / "task.py", TASK.format(width=3) + "# changed\n")
    with pytest.raises(WorkerError, match="another task where a worker loads it"):
        unpack_task(packed)


def test_a_network_of_other_shapes_is_named(tmp_path: Path) -> None:
    task = load_task(written(tmp_path / "task.py", TASK.format(width=3)))
    other = replace(task, model=nn.Linear(2, 5))
    with pytest.raises(WorkerError, match="other shapes"):
        crossed(other)


def test_other_versions_over_there_are_named() -> None:
    packed = pack_task(load_task(BLOBS))
    values = {**packed.values, "versions": {**packed.values["versions"], "torch": "1.0"}}
    with pytest.raises(WorkerError, match=r"Expected: .*torch 1\.0"):
        unpack_task(Parcel(values=values, tensors=packed.tensors))


def test_a_relative_reference_is_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "task.py", TASK.format(width=3))
    monkeypatch.chdir(tmp_path)
    task = load_task("task.py:task")
    assert os.path.samefile(Path.cwd(), tmp_path)
    assert task_key(crossed(task)) == task_key(task)
