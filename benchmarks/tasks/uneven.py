"""The same function with channels of very uneven ranges: what makes int8 collapse.

Networks trained with batch norm and few weights a channel come out like this once the norms are
folded (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
correction", figure 2); small ones trained in minutes do not. Here it is provoked.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgesdk.compress.equalize import find_pairs, scale_channels
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.task import Task

_SEED = 0
_TOLERANCE = 1e-3


def uneven(task: Task, *, spread: float) -> Task:
    """Return the task with its network's channels scaled by ``exp(spread * normal)`` each.

    Batch norms are folded; between any two layers that ``equalize`` would pair, a channel is
    multiplied in the first and divided in the second, so the function is the same (checked).
    """
    module = fold_batch_norms(task.model, task.example_inputs)
    random = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for first, second, repeats in find_pairs(module, task.example_inputs)[0]:
            count = first.find(module).weight.shape[0]
            scale = (spread * torch.randn(count, generator=random)).exp()
            scale_channels(first, second, repeats, module, scale)
        wanted: Tensor = task.model(*task.example_inputs)
        found: Tensor = module(*task.example_inputs)
    assert float((wanted - found).abs().max()) < _TOLERANCE * float(wanted.abs().max())
    return replace(task, name=f"{task.name}-uneven", model=module)
