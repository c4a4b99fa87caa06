"""How fast a task's network trains here, found by training a copy for a moment."""

from __future__ import annotations

import time

import torch
from torch import nn

from edgesdk.compress.accelerator import seeded
from edgesdk.compress.training import batch_loss, start_run
from edgesdk.plan import Training
from edgesdk.task import Task
from edgesdk.task_check import training_batches

_BATCHES = 3


def sample_seconds(student: nn.Module, task: Task, step: Training, device: torch.device) -> float:
    """Return the seconds that one sample takes when a student is trained against the original.

    Three batches are trained on copies and the quickest counts: the first one also sets up.
    Validation at the end of an epoch is not in it.
    """
    run = start_run(student, task.model, task, step, device=device, seed=task.seed)
    run.student.train()
    seconds = []
    with seeded(device, task.seed):
        for index, batch in zip(range(_BATCHES), training_batches(task), strict=False):
            start = time.perf_counter()
            loss = batch_loss(run, batch, index)
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()  # an accelerator answers when it is done
            seconds.append((time.perf_counter() - start) / len(batch.inputs[0]))
            run.optimizer.zero_grad(set_to_none=True)
    return min(seconds)
