"""A network that int8 ruins in one layer: a feature 3000 times as large as those beside it."""

from __future__ import annotations

from dataclasses import replace

import torch
from blobs_task import blobs
from torch import nn

from edgesdk import Task

TALL = 3000.0
RUINED = "4"
"""The layer that reads that feature: what is rounded by its range is lost."""


def lopsided() -> Task:
    """Return the blobs' task with weights that compute the same, but for rounding."""
    task = blobs()
    assert isinstance(task.model, nn.Sequential)
    writer, reader = task.model[2], task.model[4]
    assert isinstance(writer, nn.Linear)
    assert isinstance(reader, nn.Linear)
    with torch.no_grad():
        writer.weight[0] *= TALL
        writer.bias[0] *= TALL
        reader.weight[:, 0] /= TALL
    return replace(task, name="lopsided")
