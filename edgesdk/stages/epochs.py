"""Training as a job for workers: an epoch an item, the state of the run goes there and back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar, Self

import torch

from edgesdk.compress.distil import distilling
from edgesdk.compress.qat import start_qat
from edgesdk.compress.rounding import QUANTIZERS, Rounding
from edgesdk.compress.shape import shaped_by
from edgesdk.compress.shared_training import Shared
from edgesdk.compress.training import EpochReport, Run, TrainEpoch, restore, run_epoch, state_of
from edgesdk.compress.training_state import Progress, TrainingState, state_from, tensors_of
from edgesdk.document import from_builtins, to_builtins
from edgesdk.errors import UsageError
from edgesdk.plan import Distil, Qat, Step
from edgesdk.scheme import QuantizerName
from edgesdk.stages.request import Request
from edgesdk.task import Task
from edgesdk.task_check import calibration_batches
from edgesdk.workers.distributed import training_group
from edgesdk.workers.here import Here
from edgesdk.workers.parcel import Parcel, found_under, put_under
from edgesdk.workers.task_parcel import pack_task, unpack_task


class Epochs:
    """The job of training a network, epoch by epoch.

    ``before`` are the plan's steps that gave the network its shape; its weights come with every
    item. ``quantizer`` names the rules that ``Qat`` rounds by.
    """

    alone: ClassVar[bool] = True

    def __init__(
        self, task: Task, step: Distil | Qat, *, before: tuple[Step, ...],
        quantizer: QuantizerName | None, device: torch.device, seed: int,
    ) -> None:  # fmt: skip
        self._task = task
        self._step = step
        self._before = before
        self._quantizer = quantizer
        self._device = device
        self._seed = seed
        self._run: Run | None = None
        self._taps = ExitStack()

    def pack(self) -> Parcel:
        """Return the task and what is trained how."""
        task = pack_task(self._task)
        values = {
            "task": task.values,
            "steps": to_builtins((*self._before, self._step)),
            "quantizer": self._quantizer,
            "device": str(self._device),
            "seed": self._seed,
        }
        return Parcel(values=values, tensors=put_under("task", task.tensors))

    @classmethod
    def unpack(cls, parcel: Parcel) -> Self:
        """Return the job with the task loaded here."""
        values = parcel.values
        tensors = found_under("task", parcel.tensors)
        *before, step = from_builtins(tuple[Step, ...], values["steps"], what="steps")
        assert isinstance(step, Distil | Qat)
        return cls(
            unpack_task(Parcel(values=values["task"], tensors=tensors)),
            step,
            before=tuple(before),
            quantizer=values["quantizer"],
            device=torch.device(values["device"]),
            seed=values["seed"],
        )

    def run(self, item: Parcel) -> Parcel:
        """Return the state of the run after one more epoch, and the epoch's report."""
        run = self._begun()
        restore(run, _state(item))
        report = run_epoch(run)
        return _parcel(state_of(run), report)

    def _begun(self) -> Run:
        """Return the run, set up once; the hooks on its networks go with this process."""
        if self._run is None:
            task, device, seed = self._task, self._device, self._seed
            student = shaped_by(task, self._before)
            if isinstance(self._step, Distil):
                self._run = self._taps.enter_context(
                    distilling(student, task.model, task, self._step, device=device, seed=seed)
                )
            else:
                assert self._quantizer is not None
                self._run = start_qat(
                    student, task.model, task, self._step,
                    Rounding(quantizer=QUANTIZERS[self._quantizer]),
                    calibration=tuple(calibration_batches(task)), device=device, seed=seed,
                )  # fmt: skip
            group = training_group()
            if group is not None and device.type != "cpu":
                raise UsageError(
                    f"processes of torchrun train on the CPU, and the accelerator is {device.type}",
                    next_step="add --accelerator cpu, or start edgesdk without torchrun",
                )
            if group is not None:
                self._run.shared = Shared(self._run.student, group)
        return self._run


def train_by_workers(
    request: Request, step: Distil | Qat, *, before: tuple[Step, ...], seed: int
) -> TrainEpoch | None:
    """Return what has the request's workers train an epoch, None where that is this process."""
    if isinstance(request.workers, Here):
        return None
    job = Epochs(
        request.task,
        step,
        before=before,
        quantizer=request.quantizer,
        device=request.accelerator,
        seed=seed,
    )

    def train_epoch(run: Run) -> EpochReport:
        answers: list[Parcel] = []
        state = _parcel(state_of(run), None)
        request.workers.map(job, [state], lambda _, answer: answers.append(answer))
        [answer] = answers
        restore(run, _state(answer))
        return from_builtins(EpochReport, answer.values["report"], what="report")

    return train_epoch


def _parcel(state: TrainingState, report: EpochReport | None) -> Parcel:
    values = {
        "progress": to_builtins(state.progress),
        "report": None if report is None else to_builtins(report),
    }
    return Parcel(values=values, tensors=tensors_of(state))


def _state(parcel: Parcel) -> TrainingState:
    progress = from_builtins(Progress, parcel.values["progress"], what="progress")
    return state_from(progress, parcel.tensors, what="the state of a training")
