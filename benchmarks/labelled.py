"""The benchmarks' classification tasks with the labels of their images, score by image."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from recovery import FOLDER, TASKS
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.task import Predict, Split, Task, Tensors, output_tensors
from edgesdk.task_source import load_task

# Too small to say anything about recovery.
_OTHERS = {"digits-three-layers": f"{FOLDER / 'three_layers.py'}:three_layers"}
# Which module knows the labels of a task's images.
_LABELS = {
    "digits": "edgesdk.demo.digits",
    "digits-depthwise": "edgesdk.demo.digits",
    "digits-three-layers": "edgesdk.demo.digits",
    "fashion-depthwise": "fashion_mnist",
    "fashion-residual": "fashion_mnist",
    "resnet20": "cifar10",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a network answered on a split: ``correct`` ``[N]`` and ``losses`` ``[N]`` in nats."""

    correct: Tensor
    losses: Tensor

    @property
    def accuracy(self) -> float:
        """The share of the images that it named right."""
        return float(self.correct.float().mean())

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return float(self.losses.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """A task by its name in ``_LABELS``."""

    name: str
    task: Task

    def answers(self, predict: Predict, split: Split) -> Answers:
        """Return what ``predict`` answers on every image that the task's metric looks at."""
        seen: list[Tensor] = []

        def kept(*inputs: Tensor) -> Tensor | Tensors:
            outputs = predict(*inputs)
            seen.append(output_tensors(outputs)[0])
            return outputs

        score = evaluate_task(self.task, kept, split)
        logits = torch.cat(seen).double()
        labels: Tensor = importlib.import_module(_LABELS[self.name]).labels(split)
        correct = logits.argmax(1) == labels
        # The labels are those of these images in this order only if they give the task's score.
        assert abs(float(correct.float().mean()) - score) < 1e-6
        return Answers(correct=correct, losses=F.cross_entropy(logits, labels, reduction="none"))

    def answers_of(self, module: nn.Module, split: Split) -> Answers:
        """Return what a PyTorch module answers."""
        return self.answers(model_predict(module, torch.device("cpu")), split)


def load_labelled(name: str) -> Labelled:
    """Return one of the tasks, by its name."""
    return Labelled(name=name, task=load_task({**TASKS, **_OTHERS}[name]))
