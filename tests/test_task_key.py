"""The hash that stands for a task: what it covers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from linear_task import linear_task
from torch import nn

from edgesdk.task import Task
from edgesdk.task_key import task_key


@pytest.fixture
def task() -> Task:
    return linear_task(version="1")


def test_key_covers_what_a_result_depends_on(task: Task) -> None:
    moved = nn.Linear(3, 2)
    moved.load_state_dict(task.model.state_dict())
    assert task_key(replace(task, model=moved)) == task_key(task)
    moved.weight.data[0, 0] += 1e-6
    keys = {
        task_key(changed)
        for changed in (
            task,
            replace(task, model=moved),
            replace(task, model=nn.Linear(3, 2, bias=False)),
            replace(task, example_inputs=(torch.zeros(2, 3),)),
            replace(task, example_inputs=(torch.zeros(1, 3, dtype=torch.float64),)),
            replace(task, source="x"),
            replace(task, version="2"),
            replace(task, seed=1),
        )
    }
    assert len(keys) == 8
    assert task_key(replace(task, example_inputs=(torch.ones(1, 3),))) == task_key(task)


def test_key_takes_any_kind_of_tensor(task: Task) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scalar", torch.tensor(True))
            self.register_buffer("sixteen", torch.ones(2, 3, dtype=torch.bfloat16).t())
            self.register_buffer("unsaved", torch.zeros(0), persistent=False)

    first, second = Odd(), Odd()
    assert task_key(replace(task, model=first)) == task_key(replace(task, model=second))
    second.sixteen[0, 0] = 2
    assert task_key(replace(task, model=first)) != task_key(replace(task, model=second))


def test_tasks_made_in_python_share_no_results() -> None:
    """Two objects may score differently and look alike; only a version says they are the same."""
    assert task_key(linear_task()) != task_key(linear_task())
    anonymous = linear_task()
    assert task_key(anonymous) == task_key(anonymous)
    first, second = replace(anonymous, version="1"), replace(anonymous, version="1")
    assert task_key(first) == task_key(second)
