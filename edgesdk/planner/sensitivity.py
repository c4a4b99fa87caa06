"""Measure what each option costs in accuracy, before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.compress.importance import score_groups
from edgesdk.compress.prune import find_groups, prune, select_channels
from edgesdk.errors import UnsupportedModel
from edgesdk.graph import OpGraph
from edgesdk.planner.divergence import measure_divergence, run_batches
from edgesdk.planner.options import PruningCandidate
from edgesdk.planner.simulation import simulate
from edgesdk.progress import Progress
from edgesdk.scheme import Scheme
from edgesdk.task import OutputSpec, Task, Tensors
from edgesdk.task_source import calibration_batches, training_batches
from edgesdk.trace import trace

PRUNING_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SPREADS: tuple[Literal["global", "uniform"], ...] = ("global", "uniform")
_SAMPLES = 256


@dataclass(frozen=True, kw_only=True)
class SensitivityPoint:
    """One option without recovery: ``loss`` and ``disagreement`` as in ``Divergence``; ``drop``
    is the validation metric's, None without ``evaluate``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    candidate: int
    scheme: Scheme
    loss: float
    disagreement: float | None
    drop: float | None


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Everything the planner needs to know about a task, measured once for a channel multiple.

    ``candidates[0]`` is the original. ``samples`` is how many inputs the divergences rest on, and
    ``inputs`` which; ``metric`` the original's validation score over ``metric_samples`` inputs,
    and ``drop_range`` the drops that its range leaves possible.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    channel_multiple: int
    importance: Literal["taylor", "magnitude"]
    inputs: Literal["calibration", "training", "example"]
    samples: int
    metric: float | None
    metric_samples: int
    drop_range: tuple[float, float]
    candidates: tuple[PruningCandidate, ...]
    points: tuple[SensitivityPoint, ...]
    notes: tuple[str, ...]
    schema_version: Literal[1] = 1

    def point(self, candidate: int, scheme: Scheme) -> SensitivityPoint:
        """Return what was measured of one option."""
        return next(p for p in self.points if (p.candidate, p.scheme) == (candidate, scheme))


def measure_sensitivity(
    task: Task,
    graph: OpGraph,
    outputs: Sequence[OutputSpec],
    *,
    schemes: Sequence[Scheme],
    channel_multiple: int,
    progress: Progress,
) -> Sensitivity:
    """Return the loss and metric drop of every pruning candidate in every scheme, unrecovered."""
    inputs, batches = _sample_inputs(task)
    importance, candidates, notes = _candidates(task, graph, channel_multiple, progress)
    original = run_batches(copy.deepcopy(task.model).eval(), batches)
    metric, metric_samples = _validation(task, task.model)
    points = []
    total = len(candidates) * len(schemes)
    for index, candidate in enumerate(candidates):
        pruned = prune(task.model, task.example_inputs, candidate.groups)
        for scheme in schemes:
            changed = simulate(pruned, scheme, batches)
            divergence = measure_divergence(original, run_batches(changed, batches), outputs)
            score, _ = _validation(task, changed)
            drop = None if metric is None or score is None else task.metric.drop(metric, score)
            points.append(
                SensitivityPoint(
                    candidate=index,
                    scheme=scheme,
                    loss=divergence.loss,
                    disagreement=divergence.disagreement,
                    drop=drop,
                )
            )
            progress.advance(len(points), total, "options")
    return Sensitivity(
        channel_multiple=channel_multiple,
        importance=importance,
        inputs=inputs,
        samples=len(original[0]),
        metric=metric,
        metric_samples=metric_samples,
        drop_range=_drop_range(task, metric),
        candidates=candidates,
        points=tuple(points),
        notes=notes,
    )


def _candidates(
    task: Task, graph: OpGraph, channel_multiple: int, progress: Progress
) -> tuple[Literal["taylor", "magnitude"], tuple[PruningCandidate, ...], tuple[str, ...]]:
    original = PruningCandidate(ratio=0.0, groups=(), graph=graph)
    try:
        groups = find_groups(task.model, task.example_inputs)
        scores = score_groups(task, groups)
    except UnsupportedModel as problem:
        return "magnitude", (original,), (f"pruning is not offered: {problem.found}",)
    candidates = [original]
    ways = [(ratio, spread) for ratio in PRUNING_RATIOS for spread in SPREADS]
    for done, (ratio, spread) in enumerate(ways):
        progress.advance(done, len(ways), "pruning candidates")
        # Uniform is the same selection, made for each group by itself.
        shares = [groups] if spread == "global" else [(group,) for group in groups]
        chosen = tuple(
            pruned
            for share in shares
            for pruned in select_channels(
                share, scores.per_group, ratio=ratio, channel_multiple=channel_multiple
            )
        )
        if not chosen or any(chosen == candidate.groups for candidate in candidates):
            continue
        smaller = prune(task.model, task.example_inputs, chosen)
        smaller_graph = trace(smaller, task.example_inputs, name=task.name)
        candidates.append(
            PruningCandidate(ratio=ratio, spread=spread, groups=chosen, graph=smaller_graph)
        )
    notes = () if len(candidates) > 1 else ("no group of channels can be pruned",)
    return scores.importance, tuple(candidates), notes


def _drop_range(task: Task, metric: float | None) -> tuple[float, float]:
    if metric is None:
        return (-1.0, 1.0)
    return task.metric.drop(metric, task.metric.high), task.metric.drop(metric, task.metric.low)


def _sample_inputs(
    task: Task,
) -> tuple[Literal["calibration", "training", "example"], list[Tensors]]:
    """Return up to about 256 inputs: calibration data, else training data, else the examples."""
    if task.calibration is not None:
        return "calibration", _take(calibration_batches(task))
    if task.training is not None:
        return "training", _take(batch.inputs for batch in training_batches(task))
    return "example", [task.example_inputs]


def _take(batches: Iterable[Tensors]) -> list[Tensors]:
    taken: list[Tensors] = []
    count = 0
    for inputs in islice(batches, _SAMPLES):
        taken.append(inputs)
        count += len(inputs[0])
        if count >= _SAMPLES:
            break
    return taken


def _validation(task: Task, module: nn.Module) -> tuple[float | None, int]:
    """Return the validation metric and the number of samples it was computed on."""
    if task.evaluate is None:
        return None, 0
    predict = model_predict(module, torch.device("cpu"))
    samples = 0

    def counted(*inputs: Tensor) -> Tensor | Tensors:
        nonlocal samples
        samples += len(inputs[0])
        return predict(*inputs)

    return evaluate_task(task, counted, "validation"), samples
