"""A task: what the user brings. The model, example inputs, data and a way to score it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from edgesdk.errors import TaskError

Split = Literal["validation", "test"]
Tensors = tuple[Tensor, ...]


class Predict(Protocol):
    """Score one batch: PyTorch-layout float inputs of any batch size in, such outputs out.

    A model with one output returns a tensor, one with several returns a tuple. The float model,
    the compressed model and the artifact on its real runtime all come in this form.
    """

    def __call__(self, *inputs: Tensor) -> Tensor | Tensors:
        """Return the outputs for a batch of inputs."""
        ...


Evaluate = Callable[[Predict, Split], float]
"""Return the metric (higher is better) of ``predict`` on a split. Validation and test share no
sample with each other nor with calibration and training data."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One training batch: inputs ``[N, ...]`` each, and targets ``[N, ...]`` if there are any."""

    inputs: Tensors
    targets: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What one input means. ``mean`` and ``std`` are what the training data was normalised with,
    per channel, after scaling to [0, 1]; apps need them, the compiler does not."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    kind: Literal["image", "audio", "tokens", "tensor"] = "tensor"
    layout: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """What one output means; ``labels`` name the classes in order."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    kind: Literal["logits", "probabilities", "tensor"] = "tensor"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The metric's name and range; a drop is a fraction of ``high - low``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = "accuracy"
    low: float = 0.0
    high: float = 1.0

    def drop(self, original: float, compressed: float) -> float:
        """Return how much worse, as a fraction of the range; negative when better."""
        return (original - compressed) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What is to be deployed, and how to tell whether it still works.

    - ``model``: the trained network; edgesdk works on copies and never changes it.
    - ``example_inputs``: one tensor per argument of ``forward``, first dimension the batch that
      will be deployed (usually 1).
    - ``calibration``: yields input tuples that look like the deployed ones; needed for int8.
    - ``training``: yields one epoch of ``Batch``; needed to recover what pruning and splits cost.
      Batches without targets train against the original model's outputs alone.
    - ``loss``: ``loss(outputs, targets)``, a mean over the batch; default cross-entropy where
      the outputs are logits and the targets class indices.
    - ``evaluate``: the metric; without it accuracy is "not measured".
    - ``finetune``: the user's own recovery, ``finetune(student, teacher) -> nn.Module``, used
      instead of edgesdk's distillation.
    - ``version``: change it when data or code outside the task's own file changes; it is part of
      every cache key, as are the weights, the task's source and ``seed``.
    - ``source``: text that stands for the task's code in cache keys; ``load_task`` fills it in. A
      Task without source and without version shares no result with any other Task object, since
      nobody can tell whether its functions are still the same ones.
    - ``reference``: what the command line calls the task; ``load_task`` fills it in.
    """

    name: str
    model: nn.Module
    example_inputs: Tensors
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    calibration: Callable[[], Iterable[Tensors]] | None = None
    training: Callable[[], Iterable[Batch]] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    evaluate: Evaluate | None = None
    metric: Metric = field(default_factory=Metric)
    finetune: Callable[[nn.Module, nn.Module], nn.Module] | None = None
    version: str = ""
    seed: int = 0
    source: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TaskError(
                f"task {self.name!r} has a model of type {type(self.model).__name__}",
                expected="a torch.nn.Module",
            )
        if isinstance(self.example_inputs, Tensor) or not all(
            isinstance(example, Tensor) for example in self.example_inputs
        ):
            raise TaskError(
                f"task {self.name!r} has example_inputs that are not a tuple of tensors",
                expected="one tensor per argument of forward, as in (torch.zeros(1, 3, 32, 32),)",
            )
        if not self.example_inputs or any(example.dim() == 0 for example in self.example_inputs):
            raise TaskError(
                f"task {self.name!r} has no example input with a batch dimension",
                expected="tensors whose first dimension is the batch that will be deployed",
            )
        _check_weights(self.name, self.model)

    @property
    def batch_size(self) -> int:
        """The batch that will be deployed: the first dimension of the first example input."""
        return int(self.example_inputs[0].shape[0])


def _check_weights(name: str, model: nn.Module) -> None:
    for tensor_name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TaskError(
                f"task {name!r}: the weights {tensor_name!r} contain NaN or infinity",
                expected="a trained model with finite weights",
                next_step="check the checkpoint and how it was loaded",
            )


def output_tensors(outputs: Tensor | Tensors) -> Tensors:
    """Return a model's outputs as a tuple, whether it gave one tensor or several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
