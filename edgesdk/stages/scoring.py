"""Score a model or an artifact on the task's own metric, paired with the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict
from torch import Tensor

from edgesdk.cache import key_of
from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.figure import Figure, FigureName, Standing
from edgesdk.planner.uncertainty import drop_margin
from edgesdk.stages.request import Request
from edgesdk.task import OutputSpec, Predict, Split, Tensors, output_tensors
from edgesdk.top_class import moved_samples


@dataclass(frozen=True, kw_only=True)
class Score:
    """The metric on a split, how many samples it saw, and on which share of them the largest
    logit differs from the original model's (None where no output is logits)."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    value: float
    samples: int
    disagreement: float | None


class PairedPredict:
    """A ``Predict`` that counts its samples and where it disagrees with the original model."""

    def __init__(self, predict: Predict, original: Predict, outputs: Sequence[OutputSpec]) -> None:
        self._predict = predict
        self._original = original
        self._outputs = outputs
        names_classes = any(spec.kind != "tensor" for spec in outputs)
        self.moved: int | None = 0 if names_classes else None
        self.samples = 0

    def __call__(self, *inputs: Tensor) -> Tensor | Tensors:
        """Return the prediction, and compare it with the original's where outputs hold classes."""
        outputs = self._predict(*inputs)
        self.samples += len(inputs[0])
        if self.moved is not None:
            original = output_tensors(self._original(*inputs))
            moved = moved_samples(original, output_tensors(outputs), self._outputs)
            self.moved = None if moved is None else self.moved + int(moved.sum())
        return outputs

    @property
    def disagreement(self) -> float | None:
        """The share of samples whose largest class score differs, None without classes."""
        return None if self.moved is None or not self.samples else self.moved / self.samples


def score_predict(request: Request, predict: Predict, split: Split, key: str) -> Score:
    """Return the score of ``predict`` on a split, cached under ``key``."""

    def build() -> Score:
        paired = PairedPredict(
            predict, model_predict(request.task.model, request.accelerator), request.outputs
        )
        value = evaluate_task(request.task, paired, split)
        return Score(value=value, samples=paired.samples, disagreement=paired.disagreement)

    return request.cache.document("score", key_of(request.key, key, split), Score, build)


def score_original(request: Request, split: Split) -> Score:
    """Return the original PyTorch model's score on a split, cached."""
    return score_predict(
        request, model_predict(request.task.model, request.accelerator), split, "original"
    )


def accuracy_figures(
    request: Request, score: Score, split: Split, *, standing: Standing, source: str
) -> dict[FigureName, Figure]:
    """Return accuracy and accuracy drop with their 90 % sampling intervals."""
    metric = request.task.metric
    drop = metric.drop(score_original(request, split).value, score.value)
    margin = drop_margin(disagreement=score.disagreement, samples=score.samples)
    span = metric.high - metric.low
    text = f"{score.samples} {split} samples, {source}"
    return {
        "accuracy": Figure(
            value=score.value,
            standing=standing,
            low=max(metric.low, score.value - margin * span),
            high=min(metric.high, score.value + margin * span),
            source=text,
        ),
        "accuracy_drop": Figure(
            value=drop, standing=standing, low=drop - margin, high=drop + margin, source=text
        ),
    }
