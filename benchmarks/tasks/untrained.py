"""The benchmarks' networks as tasks: ``benchmarks/tasks/untrained.py:mobilenet_v1``.

Random weights and random inputs: for what a network costs, not for what it knows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))

from fresh_networks import fresh_networks
from host_networks import host_networks

from edgesdk.task import Task, Tensors

_CALIBRATION = 32


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
    return Task(
        name=name,
        model=network.module,
        example_inputs=network.inputs,
        calibration=partial(_calibration, network.inputs),
    )


def _calibration(inputs: Tensors) -> Iterator[Tensors]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(_CALIBRATION):
        yield tuple(_like(example, generator) for example in inputs)


def _like(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return other values of the same kind: words stay words."""
    if example.is_floating_point():
        return torch.randn(example.shape, generator=generator)
    order = torch.randperm(example.numel(), generator=generator)
    return example.flatten()[order].view(example.shape)
