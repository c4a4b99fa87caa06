"""What stands for a task in cache keys and plans: a hash of what its results depend on."""

from __future__ import annotations

import hashlib
import uuid
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from edgesdk.task import Task


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    named: dict[str, Tensor] = dict([*model.named_parameters(), *model.named_buffers()])
    for name in sorted(named):
        tensor = named[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# Nobody can tell whether the functions of a Task made in Python are those of an earlier run.
_ANONYMOUS: WeakKeyDictionary[Task, bytes] = WeakKeyDictionary()


def task_key(task: Task) -> str:
    """Return the SHA-256 that stands for a task in cache keys and plans.

    It covers the weights, the shapes and types of the example inputs, the task's source,
    ``version`` and ``seed``. Code and data outside the task's own file are for ``version`` to say.
    A task with neither source nor version has a key of its own, the same only for this object.
    """
    digest = hashlib.sha256()
    if not task.source and not task.version:
        digest.update(_ANONYMOUS.setdefault(task, uuid.uuid4().bytes))
    examples = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in task.example_inputs]
    callables = ("calibration", "training", "loss", "evaluate", "finetune")
    given = [name for name in callables if getattr(task, name) is not None]
    for part in (weights_sha256(task.model), examples, task.source, task.version, task.seed, given):
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()
