"""Recovery: training what pruning left, with the original network as its teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgesdk.compress.accelerator import seeded
from edgesdk.compress.distil_loss import check_features, tapped
from edgesdk.compress.training import (
    OnEpoch,
    Run,
    TrainEpoch,
    check_training,
    start_run,
    train,
)
from edgesdk.errors import TaskError, UsageError
from edgesdk.plan import Distil, Finetune
from edgesdk.task import Task
from edgesdk.task_check import example_outputs
from edgesdk.user_code import user_code

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def default_distil(task: Task, *, samples: int, sample_visits: int) -> Distil:
    """Return the recovery for a task: many epochs over little data, few over much.

    Epochs are chosen for about ``sample_visits``, at least 3 and at most 60 for every 60,000 of
    them, because what a pruned network needs is a number of gradient steps, not of passes; an
    epoch has ``samples``. Most weight is on the soft targets, as Hinton et al. (2015, section 2)
    found best. Patience is half the epochs, since a cosine schedule gains most near its end.
    """
    most = max(3, sample_visits // 1_000)
    epochs = min(most, max(3, round(sample_visits / samples)))
    return Distil(
        epochs=epochs,
        learning_rate=_default_learning_rate(task.model),
        temperature=4.0,
        alpha=0.9,
        patience=max(3, epochs // 2),
    )


def _default_learning_rate(model: nn.Module) -> float:
    """Return how large AdamW's steps may be, by the norm the network has.

    Batch norm makes the layers before it indifferent to the scale of their weights, so they take
    large steps (van Laarhoven, "L2 Regularization versus Batch and Weight Normalization", 2017);
    networks with layer norm are mostly transformers, which are fine-tuned with small ones.
    """
    modules = list(model.modules())
    if any(isinstance(module, nn.LayerNorm | nn.RMSNorm) for module in modules):
        return 1e-4
    if any(isinstance(module, _BATCH_NORMS) for module in modules):
        return 5e-3
    return 1e-3


def recover(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    step: Distil | Finetune,
    *,
    device: torch.device,
    seed: int,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    train_epoch: TrainEpoch | None = None,
) -> nn.Module:
    """Return the student recovered as the step says: by ``distil`` or the task's ``finetune``.

    The module is new, on the CPU and in eval mode; ``student`` and ``teacher`` stay as they are.
    """
    if isinstance(step, Finetune):
        return finetune(student, teacher, task, device=device, seed=seed)
    return distil(
        student,
        teacher,
        task,
        step,
        device=device,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
        train_epoch=train_epoch,
    )


def distil(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    step: Distil,
    *,
    device: torch.device,
    seed: int,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    train_epoch: TrainEpoch | None = None,
) -> nn.Module:
    """Return a copy of the student trained against the teacher, on the CPU and in eval mode.

    Minimises ``distillation_loss`` with AdamW and clipped gradients; the learning rate rises
    over the first 5 % of the steps and follows a half cosine to zero. The weights returned are
    those of the best epoch by ``evaluate(predict, "validation")``, or by training loss where the
    task has no ``evaluate``; ties go to the later epoch, and the student as given counts as epoch
    0 where it can be scored. Training stops early after ``patience`` epochs without a better one.
    An epoch in which the loss stops being finite is undone and repeated at half the learning
    rate, four times in a run at most; then training stops with what it has and says so.

    Every epoch is seeded by ``seed`` and its number. With ``checkpoint`` (a file) the state is
    saved after each, so a run that was killed and is started again ends in the weights it would
    have had; ``train_epoch`` trains them somewhere else. ``training()`` may shuffle with torch's,
    NumPy's or Python's global generator; with a generator of its own that lives from epoch to
    epoch, resumed runs and those trained elsewhere differ.

    Raises ``TaskError`` for training data, a loss or a metric that raise or return the wrong
    thing, ``UsageError`` for a step that cannot be (see also ``check_features``), and
    ``OutputError`` when the checkpoint cannot be written.
    """
    with distilling(student, teacher, task, step, device=device, seed=seed) as run:
        return train(run, checkpoint=checkpoint, on_epoch=on_epoch, train_epoch=train_epoch)


@contextmanager
def distilling(
    student: nn.Module, teacher: nn.Module, task: Task, step: Distil, *, device: torch.device,
    seed: int,
) -> Iterator[Run]:  # fmt: skip
    """Yield the run of ``distil`` at its beginning, on copies of both networks."""
    check_training(step)
    _check_features(step)
    run = start_run(student, teacher, task, step, device=device, seed=seed)
    with ExitStack() as stack:
        if step.feature_layers:
            examples = tuple(example.to(device) for example in task.example_inputs)
            check_features(run.student, run.teacher, step.feature_layers, examples)
            taps = [tapped(model, step.feature_layers) for model in (run.student, run.teacher)]
            run.features = (stack.enter_context(taps[0]), stack.enter_context(taps[1]))
        yield run


def _check_features(step: Distil) -> None:
    if not 0 <= step.feature_weight < math.inf:
        raise UsageError(
            f"a distil step cannot have feature_weight={step.feature_weight}",
            expected="a finite number, zero or more",
        )
    if bool(step.feature_layers) != (step.feature_weight > 0):
        raise UsageError(
            f"a distil step has feature_weight={step.feature_weight} for the layers "
            f"{list(step.feature_layers)}",
            expected="feature_layers with a feature_weight above zero, or neither",
        )


def finetune(
    student: nn.Module, teacher: nn.Module, task: Task, *, device: torch.device, seed: int
) -> nn.Module:
    """Return what the task's own ``finetune(student, teacher)`` makes of copies on the device.

    The module is on the CPU and in eval mode. Raises ``TaskError`` when the task has no
    ``finetune``, when it raises, or when it returns anything but a module with finite weights
    and outputs of the student's shapes.
    """
    if task.finetune is None:
        raise TaskError(
            f"the plan recovers with finetune, and task {task.name!r} has none",
            next_step="give the Task finetune=..., or plan again",
        )
    what = f"task {task.name!r}: finetune(student, teacher)"
    pupil, guide = (copy.deepcopy(model).to(device) for model in (student, teacher))
    with seeded(device, seed), user_code(what):
        returned: object = task.finetune(pupil, guide)
    if not isinstance(returned, nn.Module):
        raise TaskError(f"{what} returned a {type(returned).__name__}", expected="a torch module")
    found = replace(task, model=returned.cpu().eval())  # a Task checks that weights are finite
    expected = _shapes(replace(task, model=student))
    if _shapes(found) != expected:
        raise TaskError(
            f"{what} returned a module with outputs of the shapes {_shapes(found)}",
            expected=f"{expected}, as before",
        )
    found.model.zero_grad(set_to_none=True)
    return found.model


def _shapes(task: Task) -> list[list[int]]:
    return [list(output.shape) for output in example_outputs(task)]
