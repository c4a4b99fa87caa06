"""The benchmarks' networks as tasks: ``benchmarks/tasks/untrained.py:mobilenet_v1``.

Random weights and no data: for what a network costs, not for what it knows. So there is nothing to
calibrate int8 with, and nothing to search.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))

from fresh_networks import fresh_networks
from host_networks import host_networks

from edgesdk.task import Task


def __getattr__(name: str) -> Callable[[], Task]:
    """Return the function that makes the task of a network of that name."""
    if name not in {**host_networks(), **fresh_networks()}:
        raise AttributeError(name)

    def make_task() -> Task:
        return _task(name)

    return make_task


def _task(name: str) -> Task:
    torch.manual_seed(0)
    network = {**host_networks(), **fresh_networks()}[name]()
    return Task(name=name, model=network.module, example_inputs=network.inputs)
