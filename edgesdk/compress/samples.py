"""Inputs like the deployed ones, to look at a network with: some hundred of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Literal

from edgesdk.task import Task, Tensors
from edgesdk.task_source import calibration_batches, training_batches

SAMPLES = 256

Source = Literal["calibration", "training", "example"]


def sample_inputs(task: Task) -> tuple[Source, list[Tensors]]:
    """Return up to about 256 inputs: calibration data, else training data, else the examples."""
    if task.calibration is not None:
        return "calibration", taken(calibration_batches(task), SAMPLES)
    if task.training is not None:
        return "training", taken((batch.inputs for batch in training_batches(task)), SAMPLES)
    return "example", [task.example_inputs]


def taken(batches: Iterable[Tensors], most: int) -> list[Tensors]:
    """Return whole batches until there are at least ``most`` samples."""
    found: list[Tensors] = []
    count = 0
    for inputs in islice(batches, most):
        found.append(inputs)
        count += len(inputs[0])
        if count >= most:
            break
    return found
