"""What may be done about rounding, the cheapest first: the rungs a repair climbs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgesdk.compress.qat import default_qat
from edgesdk.plan import AdaRound, BiasCorrection, Equalize, Qat
from edgesdk.stages.recovery import Recoverer
from edgesdk.stages.request import Request


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Steps that prepare a network for its rounding, and in words what they do."""

    steps: tuple[Equalize | BiasCorrection | AdaRound | Qat, ...]
    does: str

    @property
    def trains(self) -> bool:
        """Whether the network itself is trained."""
        return any(isinstance(step, Qat) for step in self.steps)


EQUALIZED = Rung(
    steps=(Equalize(), BiasCorrection()),
    does="ranges are equalised across layers and biases corrected",
)
FITTED = Rung(
    steps=(Equalize(), AdaRound()),
    does="ranges are equalised and each weight's rounding is chosen (AdaRound)",
)


def climb(request: Request, recoverer: Recoverer) -> Iterator[Rung]:
    """Yield the rungs that the request's effort pays for and its data allows, one by one.

    What a rung costs is only found out when it is asked for: before training its pace is timed.
    """
    if request.quantizer is None:
        return
    yield EQUALIZED
    if not request.effort.spending.trainings or recoverer.is_out_of_time:
        return
    yield FITTED
    step = trained_step(request, recoverer)
    if step is not None:
        yield Rung(
            steps=(Equalize(), step),
            does=f"it is trained on with rounding simulated (QAT), {step.epochs} epochs at most",
        )


def trained_step(request: Request, recoverer: Recoverer) -> Qat | None:
    """Return quantization-aware training as the effort and the time left allow it, else None."""
    if not request.effort.spending.trainings or request.task.training is None:
        return None
    visits = request.effort.spending.sample_visits
    step = default_qat(request.task, samples=recoverer.samples, sample_visits=visits)
    epochs = recoverer.affordable_epochs(step)
    if epochs is None or epochs >= step.epochs:
        return step
    return replace(step, epochs=epochs, patience=max(2, epochs // 2)) if epochs else None


def why_no_more(request: Request, recoverer: Recoverer) -> str:
    """Return why the climb ends below training, empty where it does not."""
    if request.effort.spending.trainings == 0:
        return (
            f"Effort {request.effort.name!r} does no more about rounding; 'standard' would choose "
            "each weight's rounding and train with rounding simulated."
        )
    if request.task.training is None:
        return (
            "The task has no training data; with it, training with rounding simulated (QAT) "
            "could win back more of what rounding costs."
        )
    if trained_step(request, recoverer) is None:
        return "The time allowed is too short for training with rounding simulated."
    return ""
