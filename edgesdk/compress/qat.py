"""Quantization-aware training: training goes on with the target's rounding simulated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from edgesdk.compress.distil import default_distil
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.rounding import Rounding
from edgesdk.compress.training import (
    OnEpoch,
    Run,
    TrainEpoch,
    check_training,
    start_run,
    train,
)
from edgesdk.plan import Qat
from edgesdk.task import Task, Tensors

# Recovery from rounding starts close to its goal: fewer and smaller steps than after pruning.
_EPOCHS_SHARE = 0.4
_RATE_SHARE = 0.1


def default_qat(task: Task, *, samples: int, sample_visits: int) -> Qat:
    """Return the quantization-aware training of a task: like its distillation, but gentler.

    Two fifths of the epochs (at least 2) at a tenth of the learning rate: batch norms are folded,
    so nothing evens out the scale of the weights any more.
    """
    distil = default_distil(task, samples=samples, sample_visits=sample_visits)
    epochs = max(2, round(_EPOCHS_SHARE * distil.epochs))
    return Qat(
        epochs=epochs,
        learning_rate=_RATE_SHARE * distil.learning_rate,
        temperature=distil.temperature,
        alpha=distil.alpha,
        patience=max(2, epochs // 2),
    )


def qat(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    step: Qat,
    rounding: Rounding,
    *,
    calibration: Sequence[Tensors],
    device: torch.device,
    seed: int,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    train_epoch: TrainEpoch | None = None,
) -> nn.Module:
    """Return the student trained to be rounded: a float module, batch norms folded, on the CPU.

    Post-training quantization is where it starts. Weights and activations are rounded in every
    forward as the target's quantizer rounds them, gradients pass straight through (Jacob et al.,
    "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, section 3), and the loss is that of distillation from the float ``teacher``.
    Batch norms are folded before, with the statistics they have, as Nagel et al., "A white paper
    on neural network quantization", 2021, section 4.2.1, recommend. Dropout is off.

    Ranges of activations are found again after every epoch, on ``calibration`` and in float, as
    the target will find them; so the score that picks the best epoch is that of the network which
    quantizing the result gives. The untrained student counts as epoch 0: the result is never
    worse on validation data than post-training quantization. NaN, checkpoints and seeds are
    treated as in ``distil``, and the same errors are raised.
    """
    run = start_qat(
        student, teacher, task, step, rounding, calibration=calibration, device=device, seed=seed
    )
    trained = train(run, checkpoint=checkpoint, on_epoch=on_epoch, train_epoch=train_epoch)
    assert isinstance(trained, FakeQuantized)
    return trained.network


def start_qat(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    step: Qat,
    rounding: Rounding,
    *,
    calibration: Sequence[Tensors],
    device: torch.device,
    seed: int,
) -> Run:
    """Return the run of ``qat`` at its beginning, on copies of both networks."""
    check_training(step)
    examples = tuple(example.to(device) for example in task.example_inputs)
    network = fold_batch_norms(student.to("cpu"), task.example_inputs).to(device)
    fake = FakeQuantized(network, examples, rounding).to(device)
    fake.observe(calibration)
    run = start_run(fake, teacher, task, step, device=device, seed=seed)
    assert isinstance(run.student, FakeQuantized)
    run.settle = partial(run.student.observe, calibration)
    return run
