"""The least task there is: a linear layer, with neither data nor metric."""

from __future__ import annotations

import torch
from torch import nn

from edgesdk.task import Task


def linear_task(version: str = "") -> Task:
    torch.manual_seed(0)
    return Task(
        name="t", model=nn.Linear(3, 2), example_inputs=(torch.zeros(1, 3),), version=version
    )
