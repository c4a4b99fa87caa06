"""Decide how a pruned network is won back: which training, how long, and why not longer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from edgesdk.compress.accelerator import seeded
from edgesdk.compress.distil import default_distil
from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.pace import sample_seconds
from edgesdk.compress.rounding import QUANTIZERS, Rounding
from edgesdk.compress.training import count_training
from edgesdk.foreign import Foreign
from edgesdk.plan import Distil, Finetune, Qat
from edgesdk.planner.explanation import Recovery
from edgesdk.stages.request import Request

# Validation after every epoch, and batches that are slower than the quickest.
_PACE_MARGIN = 1.3


@dataclass
class Recoverer:
    """Knows what training a request can have; asked again as time is spent."""

    request: Request
    spent_s: float = 0.0
    _paces: dict[str, float] = field(default_factory=dict)

    def recovery(self) -> Recovery:
        """Return the training that follows pruning, and the reason for it."""
        task, effort = self.request.task, self.request.effort
        if isinstance(task.model, Foreign):
            return Recovery(step=None, reason=f"{task.model.unpruned}.")
        if effort.spending.trainings == 0:
            return Recovery(step=None, reason=f"Effort {effort.name!r} trains nothing.")
        if task.finetune is not None:
            reason = "The task's own finetune() recovers what pruning and splits cost."
            return Recovery(step=Finetune(), reason=reason)
        if task.training is None:
            reason = (
                "The task has no training data, so nothing recovers what pruning and splits cost."
            )
            return Recovery(step=None, reason=reason)
        return self._distillation()

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the block's time as spent on training."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent_s += time.monotonic() - start

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time allowed is spent."""
        allowed = self.request.effort.seconds
        return allowed is not None and self.spent_s >= allowed

    def affordable_epochs(self, step: Distil | Qat) -> int | None:
        """Return how many epochs of training the time left allows, None where it has no bound."""
        allowed = self.request.effort.seconds
        if allowed is None:
            return None
        return max(0, int((allowed - self.spent_s) / self._epoch_seconds(step)))

    def _distillation(self) -> Recovery:
        epochs = self._distil.epochs
        affordable = self.affordable_epochs(self._distil)
        if affordable is None or affordable >= epochs:
            reason = (
                "Distillation from the original recovers what pruning and splits cost, "
                f"{epochs} epochs."
            )
            return Recovery(step=self._distil, reason=reason)
        if affordable == 0:
            reason = (
                f"The time allowed is too short for training: an epoch takes about "
                f"{self._epoch_seconds(self._distil):.0f} s."
            )
            return Recovery(step=None, reason=reason)
        step = replace(self._distil, epochs=affordable, patience=max(3, affordable // 2))
        reason = (
            f"Distillation from the original, {affordable} epochs; more time would allow {epochs}."
        )
        return Recovery(step=step, reason=reason)

    @cached_property
    def samples(self) -> int:
        """The samples of one epoch of training data."""
        task = self.request.task
        self.request.progress.step("Counting the training data")
        with seeded(torch.device("cpu"), task.seed):
            _, samples = count_training(task)
        return samples

    @cached_property
    def _distil(self) -> Distil:
        visits = self.request.effort.spending.sample_visits
        return default_distil(self.request.task, samples=self.samples, sample_visits=visits)

    def _epoch_seconds(self, step: Distil | Qat) -> float:
        """Return the seconds of an epoch, timed once for each kind of training."""
        if step.kind not in self._paces:
            self.request.progress.step("Timing an epoch")
            self._paces[step.kind] = self._sample_seconds(step)
        return _PACE_MARGIN * self._paces[step.kind] * self.samples

    def _sample_seconds(self, step: Distil | Qat) -> float:
        task, device = self.request.task, self.request.accelerator
        if isinstance(step, Distil) or self.request.quantizer is None:
            return sample_seconds(task.model, task, step, device)
        rounding = Rounding(quantizer=QUANTIZERS[self.request.quantizer])
        network = fold_batch_norms(task.model, task.example_inputs)
        return sample_seconds(
            FakeQuantized(network, task.example_inputs, rounding), task, step, device
        )
