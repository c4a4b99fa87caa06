"""Training a student network under a teacher: epochs that can be undone, repeated and resumed."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgesdk.compress.accelerator import seeded
from edgesdk.compress.distil_loss import Features, distillation_loss, feature_loss
from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.compress.shared_training import Shared
from edgesdk.compress.training_state import (
    Progress,
    TrainingState,
    Weights,
    moments_of,
    read_checkpoint,
    save_checkpoint,
    set_moments,
    set_weights,
    weights_of,
)
from edgesdk.document import to_json
from edgesdk.errors import ArtifactError, TaskError, UsageError
from edgesdk.plan import Distil, Training
from edgesdk.target import installed_version
from edgesdk.task import Batch, Task
from edgesdk.task_check import check_finite, training_batches
from edgesdk.task_key import task_key, weights_sha256
from edgesdk.user_code import user_code

_WARMUP_SHARE = 0.05
_WEIGHT_DECAY = 0.01
_GRADIENT_NORM = 5.0
_BACKOFFS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch of recovery came to.

    ``epoch`` counts from 1; 0 is the student as it was given. ``loss`` is the mean training loss
    (None for epoch 0 and for an epoch that diverged and is repeated), ``score`` the validation
    metric where the task has one, ``learning_rate`` the schedule's peak. ``note`` says what else
    happened: a resumed run, a learning rate that was halved, the reason to stop.
    """

    epoch: int
    epochs: int
    loss: float | None
    score: float | None
    best_epoch: int
    learning_rate: float
    note: str = ""


OnEpoch = Callable[[EpochReport], None]


class _DivergenceError(Exception):
    """The loss or its gradient stopped being a finite number."""


@dataclass
class Run:
    """A training run in flight; all of it that changes is in ``state_of(run)``.

    ``student`` and ``teacher`` are on ``device`` and the run's own. ``features`` hold the two
    networks' latest outputs of the step's ``feature_layers``. ``shared``: the processes that share
    every batch, if several do. ``settle`` brings the student up to date with weights that were just
    trained, before it is scored.
    """

    task: Task
    step: Training
    device: torch.device
    seed: int
    student: nn.Module
    teacher: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    best: Weights
    features: tuple[Features, Features] = ({}, {})
    shared: Shared | None = None
    settle: Callable[[], None] = lambda: None

    @property
    def peak(self) -> float:
        """The schedule's highest learning rate, halved as often as the run had to back off."""
        return float(self.step.learning_rate / 2**self.progress.backoffs)


TrainEpoch = Callable[[Run], EpochReport]
"""Train a run's next epoch, wherever that is, and leave the run as it then stands."""


def check_training(step: Training) -> None:
    """Raise ``UsageError`` naming the numbers of a step that training cannot have."""
    wrong = {
        "epochs": step.epochs < 1,
        "learning_rate": not 0 < step.learning_rate < math.inf,
        "temperature": not 0 < step.temperature < math.inf,
        "alpha": not 0 <= step.alpha <= 1,
        "patience": step.patience < 1,
    }
    found = [f"{name}={getattr(step, name)}" for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise UsageError(
            f"a {getattr(step, 'kind', 'training')} step cannot have {', '.join(found)}",
            expected="finite numbers above zero, and alpha from 0 to 1",
        )


def start_run(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    step: Training,
    *,
    device: torch.device,
    seed: int,
) -> Run:
    """Return a run at its beginning, on copies of both networks."""
    parts = (
        *(weights_sha256(model) for model in (student, teacher)),
        task_key(task),
        to_json(step),
        str(seed),
        device.type,
        torch.__version__,
        str(installed_version("edgesdk")),
    )
    identity = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    pupil = copy.deepcopy(student).to(device).eval()
    return Run(
        task=task,
        step=step,
        device=device,
        seed=seed,
        student=pupil,
        teacher=copy.deepcopy(teacher).to(device).eval().requires_grad_(False),
        optimizer=make_optimizer(pupil, task.name),
        progress=Progress(run=identity, batches=0),
        best=weights_of(pupil),
    )


def train(
    run: Run, *, checkpoint: Path | None, on_epoch: OnEpoch | None,
    train_epoch: TrainEpoch | None = None,
) -> nn.Module:  # fmt: skip
    """Carry the run to its end and return the student with its best weights, on the CPU.

    With ``checkpoint`` the run starts where that left off and saves its state after every epoch.
    ``train_epoch`` trains an epoch somewhere else than here and brings the run up to it.
    """
    note = resume(run, checkpoint)
    if run.progress.epoch == 0:
        given = score_given(run)
        if on_epoch is not None and given is not None:
            on_epoch(given)
    while not run.progress.stopped:
        report = (train_epoch or run_epoch)(run)
        if checkpoint is not None:
            save_checkpoint(checkpoint, state_of(run))
        if on_epoch is not None:
            on_epoch(replace(report, note="; ".join(filter(None, (note, report.note)))))
        note = ""
    set_weights(run.student, run.best)
    run.optimizer.zero_grad(set_to_none=True)
    return run.student.cpu().eval()


def make_optimizer(student: nn.Module, name: str) -> torch.optim.Optimizer:
    """Return AdamW over the weights that are not frozen; ``name`` is the task's, for errors.

    AdamW's steps do not depend on the scale of the loss, so one learning rate serves
    convolutional networks with batch norm, transformers, logits at any temperature and
    regression in any unit. SGD would need one for each.
    """
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    if not trainable:
        raise TaskError(
            f"task {name!r}: every weight of the model is frozen (requires_grad is False)",
            expected="weights that recovery may train",
            next_step="leave requires_grad on, at least for some layers",
        )
    # Decaying a norm's scale or a bias towards zero only distorts it.
    matrices = [parameter for parameter in trainable if parameter.dim() > 1]
    vectors = [parameter for parameter in trainable if parameter.dim() <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": _WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ]
    )


def count_training(task: Task) -> tuple[int, int]:
    """Return the number of batches and of samples in one epoch, by going through it once."""
    if task.training is None:
        raise TaskError(
            f"task {task.name!r} has no training data to distil with",
            next_step="give the Task training=..., or plan without pruning",
        )
    sizes = [len(batch.inputs[0]) for batch in training_batches(task)]
    if not sum(sizes):
        raise TaskError(
            f"task {task.name!r}: training() yielded no samples",
            expected="a new iterable over one epoch of batches at every call",
        )
    return len(sizes), sum(sizes)


def state_of(run: Run) -> TrainingState:
    """Return copies of everything the run's next epoch depends on."""
    return TrainingState(
        progress=run.progress,
        weights=weights_of(run.student),
        best=run.best,
        optimizer=moments_of(run.optimizer),
    )


def restore(run: Run, state: TrainingState) -> None:
    """Put a run where ``state_of`` found it."""
    run.progress, run.best = state.progress, state.best
    set_weights(run.student, state.weights)
    set_moments(run.optimizer, state.optimizer)


def resume(run: Run, checkpoint: Path | None) -> str:
    """Continue from the checkpoint where it is this run's; return what there is to say about it.

    A checkpoint that is damaged or another run's is not used, and the text says so.
    """
    note = ""
    if checkpoint is not None and checkpoint.exists():
        try:
            state = read_checkpoint(checkpoint, run.best)
        except ArtifactError as problem:
            note = f"started from the beginning: {problem}"
        else:
            if state.progress.run == run.progress.run:
                restore(run, state)
                return f"resumed after epoch {state.progress.epoch}"
            note = f"started from the beginning: {checkpoint} belongs to another run"
    with seeded(run.device, run.seed, 0):
        batches, _ = count_training(run.task)
    run.progress = replace(run.progress, batches=batches)
    return note


def score_given(run: Run) -> EpochReport | None:
    """Score the student as it was given, so that training can only improve on it."""
    with seeded(run.device, run.seed, 0):
        score = _score(run)
    run.progress = replace(run.progress, best_score=score)
    return None if score is None else _report(run, epoch=0, score=score)


def _score(run: Run) -> float | None:
    if run.task.evaluate is None:
        return None
    predict = model_predict(run.student, run.device)
    return evaluate_task(run.task, predict, "validation")


def run_epoch(run: Run) -> EpochReport:
    """Train one epoch and advance the run; an epoch that diverges is undone instead."""
    before, epoch = state_of(run), run.progress.epoch + 1
    with seeded(run.device, run.seed, epoch):
        try:
            loss = _train_epoch(run)
        except _DivergenceError as problem:
            restore(run, before)
            return _back_off(run, str(problem))
        run.settle()
        score = _score(run)
    _advance(run, -loss if score is None else score)
    return _report(run, epoch=epoch, loss=loss, score=score, note=run.progress.stopped)


def _advance(run: Run, score: float) -> None:
    """Count the epoch, keep its weights if they are the best, and stop if it was the last."""
    past = run.progress
    better = past.best_score is None or score > past.best_score
    stale = 0 if better else past.stale_epochs + 1
    progress = replace(past, epoch=past.epoch + 1, stale_epochs=stale)
    if better or score == past.best_score:
        progress = replace(progress, best_epoch=progress.epoch, best_score=score)
        run.best = weights_of(run.student)
    if progress.epoch >= run.step.epochs:
        progress = replace(progress, stopped=f"all {progress.epoch} epochs done")
    elif stale >= run.step.patience:
        progress = replace(progress, stopped=f"stopped early: nothing better in {stale} epochs")
    run.progress = progress


def _back_off(run: Run, problem: str) -> EpochReport:
    """Halve the learning rate for the next attempt, or stop when that was done often enough."""
    epoch = run.progress.epoch + 1
    if run.progress.backoffs < _BACKOFFS:
        run.progress = replace(run.progress, backoffs=run.progress.backoffs + 1)
        note = f"{problem}; epoch {epoch} is repeated at half the learning rate"
    else:
        note = (
            f"stopped: {problem}, although the learning rate was halved {_BACKOFFS} times; "
            f"the weights of epoch {run.progress.best_epoch} are kept"
        )
        run.progress = replace(run.progress, stopped=note)
    _log.warning("task %r: %s", run.task.name, note)
    return _report(run, epoch=epoch, note=note)


def _report(
    run: Run,
    *,
    epoch: int,
    loss: float | None = None,
    score: float | None = None,
    note: str = "",
) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        epochs=run.step.epochs,
        loss=loss,
        score=score,
        best_epoch=run.progress.best_epoch,
        learning_rate=run.peak,
        note=note,
    )


def _train_epoch(run: Run) -> float:
    """Return the mean loss per sample of one epoch of training; raises ``_DivergenceError``."""
    run.student.train()
    parameters = [parameter for parameter in run.student.parameters() if parameter.requires_grad]
    done = run.progress.epoch * run.progress.batches
    total_loss, samples = 0.0, 0
    for index, batch in enumerate(training_batches(run.task)):
        factor = learning_rate_factor(done + index, run.step.epochs * run.progress.batches)
        for group in run.optimizer.param_groups:
            group["lr"] = run.peak * factor
        part, weight = (batch, 1.0) if run.shared is None else run.shared.part_of(batch)
        loss = weight * batch_loss(run, part, index)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters, _GRADIENT_NORM)
        value = loss.item() if run.shared is None else run.shared.mean(loss)
        if not math.isfinite(value) or not bool(torch.isfinite(norm)):
            raise _DivergenceError(f"at batch {index} the loss was {value}, its gradient {norm}")
        run.optimizer.step()
        total_loss += value * len(batch.inputs[0])
        samples += len(batch.inputs[0])
    if not samples:
        raise TaskError(
            f"task {run.task.name!r}: training() yielded no samples in epoch "
            f"{run.progress.epoch + 1}, and {run.progress.batches} batches before",
            expected="a new iterable over one epoch of batches at every call",
        )
    return total_loss / samples


def learning_rate_factor(step: int, steps: int) -> float:
    """Return what the peak learning rate is multiplied with at ``step`` of ``steps`` (from 0).

    Linear over the first 5 % of the steps, then a half cosine to zero (Loshchilov and Hutter,
    "SGDR", 2017, eq. 5, without restarts).
    """
    warmup = max(1, round(_WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    share = min(1.0, (step - warmup + 1) / (steps - warmup + 1))
    return 0.5 * (1 + math.cos(math.pi * share))


def batch_loss(run: Run, batch: Batch, index: int) -> Tensor:
    """Return the loss of one batch on the run's device: the teacher's and the student's forward
    pass, and what the step makes of them."""
    inputs = tuple(tensor.to(run.device) for tensor in batch.inputs)
    targets = None if batch.targets is None else batch.targets.to(run.device)
    with user_code(f"task {run.task.name!r}: the model on training batch {index}"):
        with torch.no_grad():
            teacher = run.teacher(*inputs)
        student = (run.shared.student if run.shared else run.student)(*inputs)
    loss = distillation_loss(run.task, run.step, student, teacher, targets)
    if isinstance(run.step, Distil) and run.step.feature_layers:
        loss = loss + run.step.feature_weight * feature_loss(*run.features)
    if not bool(torch.isfinite(loss)):
        check_finite(batch, f"task {run.task.name!r}: training batch {index}")
    return loss
