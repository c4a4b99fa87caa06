"""How fast a task's network trains here, found by training a copy for a moment."""

from __future__ import annotations

import copy
import time

import torch

from edgesdk.compress.accelerator import seeded
from edgesdk.compress.distil_loss import distillation_loss
from edgesdk.plan import Distil
from edgesdk.task import Task, Tensors, output_tensors
from edgesdk.task_source import training_batches

_BATCHES = 3


def sample_seconds(task: Task, step: Distil, device: torch.device) -> float:
    """Return the seconds that one sample takes in one epoch of distillation, unpruned.

    Three batches are trained on copies and the quickest counts: the first one also sets up.
    Validation at the end of an epoch is not in it.
    """
    student = copy.deepcopy(task.model).to(device).train()
    teacher = copy.deepcopy(task.model).to(device).eval()
    seconds = []
    with seeded(device, task.seed):
        for _, batch in zip(range(_BATCHES), training_batches(task), strict=False):
            inputs: Tensors = tuple(tensor.to(device) for tensor in batch.inputs)
            targets = None if batch.targets is None else batch.targets.to(device)
            start = time.perf_counter()
            with torch.no_grad():
                wanted = teacher(*inputs)
            loss = distillation_loss(task, step, student(*inputs), wanted, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            float(output_tensors(wanted)[0].sum())  # an accelerator answers when it is done
            seconds.append((time.perf_counter() - start) / len(inputs[0]))
            student.zero_grad(set_to_none=True)
    return min(seconds)
