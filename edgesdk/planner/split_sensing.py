"""Measure what layers lose that become two of lower rank, before any training."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from edgesdk.compress.factorize import layer_directions, replace_layer, split_layer
from edgesdk.compress.samples import sample_inputs
from edgesdk.low_rank import LayerSplit, Splits
from edgesdk.planner.divergence import Divergence, measure_divergence, run_batches
from edgesdk.planner.probing import validation_score
from edgesdk.planner.sensing import affordable
from edgesdk.planner.sensitivity import JointPoint, Sensitivity, SplitPoint
from edgesdk.progress import Progress
from edgesdk.task import OutputSpec, Task

SPLIT_METHOD = "each rank alone, all layers at once at each level, samples together"
"""Tells what was measured otherwise apart; changes with how splits are measured."""

Halves = Mapping[LayerSplit, nn.Sequential]


def measure_splits(
    task: Task, outputs: Sequence[OutputSpec], known: Sensitivity, splits: Splits, *,
    progress: Progress,
) -> Sensitivity:  # fmt: skip
    """Return the sensitivity with every split measured alone, and all layers split at once: to
    their lowest ranks, the next ones, and so on.

    Batch norms need not follow: a split keeps the mean of what its layer answers.
    """
    measuring = _Measuring(task, outputs, known, splits)
    points: list[SplitPoint] = []
    made: dict[LayerSplit, nn.Sequential] = {}
    for index, (split, pair) in enumerate(measuring.halves()):
        progress.advance(index, len(splits), "splits")
        made[split] = pair
        loss = measuring.divergence({split: pair}).loss
        points.append(SplitPoint(layer=split.layer, rank=split.rank, loss=loss))
    rising = _never_less_at_lower_ranks(points)
    found = replace(known, splits=rising)
    joint = [measuring.together(found, {s: made[s] for s in level}) for level in _levels(splits)]
    return replace(found, joint=(*known.joint, *joint))


class _Measuring:
    """The original's outputs on a task's data, to compare networks of split layers with."""

    def __init__(
        self, task: Task, outputs: Sequence[OutputSpec], known: Sensitivity, splits: Splits
    ) -> None:
        inputs, batches = sample_inputs(task)
        self._task, self._outputs, self._known = task, outputs, known
        self._splits = splits
        self._model = copy.deepcopy(task.model).eval()
        each = known.widths.graph.macs // len(task.example_inputs[0])
        self._batches = affordable(batches, each, len(splits))
        self._original = run_batches(self._model, self._batches)
        self._observed = () if inputs == "example" else tuple(batches)

    def halves(self) -> Iterator[tuple[LayerSplit, nn.Sequential]]:
        """Yield every split with its two layers."""
        ranks: dict[str, list[int]] = {}
        for layer, rank in self._splits:
            ranks.setdefault(layer, []).append(rank)
        for layer, directions in layer_directions(self._model, ranks, self._observed):
            module = self._model.get_submodule(layer)
            for rank in ranks[layer]:
                yield LayerSplit(layer, rank), split_layer(module, directions, rank)

    def divergence(self, halves: Halves) -> Divergence:
        """Return how far the outputs move where those layers are split."""
        with _replaced(self._model, halves):
            outputs = run_batches(self._model, self._batches)
        return measure_divergence(self._original, outputs, self._outputs)

    def together(self, found: Sensitivity, halves: Halves) -> JointPoint:
        """Return what layers that are split at once lose, and the metric's drop."""
        losses = {p.layer: p.loss for p in found.splits if LayerSplit(p.layer, p.rank) in halves}
        divergence = self.divergence(halves)
        return JointPoint(
            widths=found.widths.full,
            splits=tuple(halves),
            sum=sum(losses.values()),
            loss=divergence.loss,
            disagreement=divergence.disagreement,
            drop=self._drop(halves),
        )

    def _drop(self, halves: Halves) -> float | None:
        if self._known.metric is None:
            return None
        with _replaced(self._model, halves):
            score, _ = validation_score(self._task, self._model)
        return None if score is None else self._task.metric.drop(self._known.metric, score)


@contextmanager
def _replaced(model: nn.Module, halves: Halves) -> Iterator[None]:
    """Have the layers split for a while."""
    whole = {split.layer: model.get_submodule(split.layer) for split in halves}
    for split, pair in halves.items():
        replace_layer(model, split.layer, pair)
    try:
        yield
    finally:
        for layer, module in whole.items():
            replace_layer(model, layer, module)


def _never_less_at_lower_ranks(points: Sequence[SplitPoint]) -> tuple[SplitPoint, ...]:
    """Return the points, in their order, where a lower rank of a layer never loses less."""
    least: dict[str, float] = {}
    found = []
    for point in sorted(points, key=lambda point: -point.rank):
        least[point.layer] = max(point.loss, least.get(point.layer, 0.0))
        found.append(replace(point, loss=least[point.layer]))
    order = {(point.layer, point.rank): place for place, point in enumerate(points)}
    return tuple(sorted(found, key=lambda point: order[point.layer, point.rank]))


def _levels(splits: Collection[LayerSplit]) -> list[Splits]:
    """Return every layer at its lowest rank, then at the next one, layers with fewer ranks at
    their highest; each level once."""
    ranks: dict[str, list[int]] = {}
    for layer, rank in sorted(splits, key=lambda split: split.rank):
        ranks.setdefault(layer, []).append(rank)
    count = max(map(len, ranks.values()), default=0)
    levels = (
        tuple(LayerSplit(layer, own[min(level, len(own) - 1)]) for layer, own in ranks.items())
        for level in range(count)
    )
    return list(dict.fromkeys(levels))
