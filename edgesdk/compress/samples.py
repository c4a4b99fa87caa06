"""Inputs like the deployed ones, to look at a network with: some hundred of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal

import torch
from torch import nn

from edgesdk.compress.shared_copy import shared_copy
from edgesdk.task import Task, Tensors, output_tensors
from edgesdk.task_check import calibration_batches, training_batches

SAMPLES = 256

# Networks take two to ten times as long for samples that come one by one. Large samples fill a
# core by themselves, and memory if there are several.
_AT_ONCE = 16
_BYTES_AT_ONCE = 16 * 2**20

# Of the largest output: how far answers may move that are computed in another order.
_ROUNDING = 1e-3

Source = Literal["calibration", "training", "example"]


def sample_inputs(task: Task) -> tuple[Source, list[Tensors]]:
    """Return up to about 256 inputs: calibration data, else training data, else the examples.

    Samples that come one by one, or few at a time, are put together where the model answers them
    as it does alone.
    """
    if task.calibration is not None:
        found = taken(calibration_batches(task), SAMPLES)
        return "calibration", _together(task.model, found)
    if task.training is not None:
        found = taken((batch.inputs for batch in training_batches(task)), SAMPLES)
        return "training", _together(task.model, found)
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


def _together(model: nn.Module, batches: list[Tensors]) -> list[Tensors]:
    """Return the samples in batches of up to 16, as they are where the model cannot take those."""
    parts = _parts(batches)
    merged = [tuple(torch.cat(tensors) for tensors in zip(*part, strict=True)) for part in parts]
    if len(merged) == len(batches) or not _answers_alike(model, parts[0], merged[0]):
        return batches
    return merged


def _parts(batches: Sequence[Tensors]) -> list[list[Tensors]]:
    each = sum(tensor[:1].nbytes for tensor in batches[0])
    most = min(_AT_ONCE, _BYTES_AT_ONCE // max(1, each))
    parts: list[list[Tensors]] = []
    room = 0
    for inputs in batches:
        if len(inputs[0]) > room:
            parts.append([])
            room = most
        parts[-1].append(inputs)
        room -= len(inputs[0])
    return parts


@torch.no_grad()
def _answers_alike(model: nn.Module, batches: Sequence[Tensors], merged: Tensors) -> bool:
    """Return whether the model's outputs for samples together are those for each batch."""
    runner = shared_copy(model).eval()
    try:
        alone = [output_tensors(runner(*inputs)) for inputs in batches]
        together = output_tensors(runner(*merged))
        wanted = [torch.cat(tensors) for tensors in zip(*alone, strict=True)]
    except Exception:  # noqa: BLE001 - a forward may refuse another batch in any way
        return False
    return all(
        found.shape == expected.shape and _close(found.double(), expected.double())
        for found, expected in zip(together, wanted, strict=True)
    )


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if not expected.numel():
        return True
    return bool((found - expected).abs().max() <= _ROUNDING * expected.abs().max())
