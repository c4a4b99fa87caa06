"""Prepare a network for the target's quantizer: the steps between pruning and quantizing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from edgesdk.compress.adaround import adaround
from edgesdk.compress.bias_correction import correct_biases
from edgesdk.compress.equalize import equalize
from edgesdk.compress.qat import qat
from edgesdk.compress.rounding import QUANTIZERS, Rounding
from edgesdk.compress.training import TrainEpoch
from edgesdk.errors import UsageError
from edgesdk.plan import AdaRound, BiasCorrection, Equalize, Qat, Step
from edgesdk.stages.request import Request
from edgesdk.task_check import calibration_batches


def prepare(
    request: Request, step: Step, module: nn.Module, *, seed: int, checkpoint: Path,
    train_epoch: TrainEpoch | None = None,
) -> nn.Module:  # fmt: skip
    """Return the module as an ``Equalize``, ``BiasCorrection``, ``AdaRound`` or ``Qat`` leaves it.

    A float module with batch norms folded; quantizing it is still the target's. Progress names
    the layers that a step leaves out. ``train_epoch`` trains epochs somewhere else.
    """
    examples = request.task.example_inputs
    if isinstance(step, Equalize):
        request.progress.step("Equalising channels across layers")
        equalized = equalize(module, examples, step)
        note = _named(equalized.left_out)
        request.progress.advance(len(equalized.pairs), len(equalized.pairs), note)
        return equalized.module
    rounding = rounding_of(request, step)
    calibration = tuple(calibration_batches(request.task))
    if isinstance(step, BiasCorrection):
        request.progress.step("Correcting biases")
        return correct_biases(module, examples, calibration, rounding)
    if isinstance(step, AdaRound):
        request.progress.step("Choosing how weights are rounded (AdaRound)")
        advance = request.progress.advance
        return adaround(
            module, examples, calibration, step, rounding, seed=seed, on_layer=advance
        ).module
    assert isinstance(step, Qat)
    request.progress.step("Training with rounding simulated (QAT)")
    return qat(
        module,
        request.task.model,
        request.task,
        step,
        rounding,
        calibration=calibration,
        device=request.accelerator,
        seed=seed,
        on_epoch=lambda report: request.progress.advance(report.epoch, report.epochs, report.note),
        checkpoint=checkpoint,
        train_epoch=train_epoch,
    )


def rounding_of(request: Request, step: Step) -> Rounding:
    """Return the int8 grids that a step prepares for, by the rules of the target's quantizer.

    Raises ``UsageError`` for a target whose rules are not known.
    """
    if request.quantizer is None:
        raise UsageError(
            f"the plan has a step {step.kind}, and which grids the int8 of target "
            f"{request.target.name!r} rounds to is not known",
            expected="a target that names its quantizer, as executorch, tflite and coreml do",
            next_step="leave the step out, or plan for another target",
        )
    return Rounding(quantizer=QUANTIZERS[request.quantizer])


def _named(left_out: Mapping[str, str]) -> str:
    if not left_out:
        return ""
    return "left out: " + "; ".join(f"{name} ({reason})" for name, reason in left_out.items())
