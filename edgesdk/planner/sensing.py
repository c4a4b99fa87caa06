"""Measure what narrower groups, lost blocks and coarser formats cost, before any training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from edgesdk.compress.depth import shortened, survey_blocks
from edgesdk.compress.evaluation import evaluate_task, model_predict
from edgesdk.compress.fold import folded_weights
from edgesdk.compress.importance import ChannelScores, score_groups
from edgesdk.compress.prune import ChannelGroup, find_groups
from edgesdk.compress.recalibrate import observe_norms, recalibrate
from edgesdk.compress.removal import disconnected
from edgesdk.compress.samples import sample_inputs, taken
from edgesdk.errors import UnsupportedModel
from edgesdk.foreign import Foreign
from edgesdk.graph import OpGraph
from edgesdk.planner.block_costs import countable
from edgesdk.planner.departures import (
    Departure,
    Departures,
    Mixes,
    possible_departures,
)
from edgesdk.planner.divergence import Divergence, measure_divergence, run_batches
from edgesdk.planner.sensitivity import (
    BlockPoint,
    FormatPoint,
    GroupCurve,
    JointPoint,
    LayerPoint,
    Sensitivity,
)
from edgesdk.planner.simulation import simulate
from edgesdk.planner.tables import width_choices
from edgesdk.planner.widths import WidthModel, measure_widths
from edgesdk.progress import Progress
from edgesdk.scheme import FLOAT_SCHEMES, PALETTE_BITS, Scheme
from edgesdk.task import OutputSpec, Task, Tensors

# What all masked inferences together may multiply; larger networks are looked at on fewer samples.
_MAC_BUDGET = 2e12

METHOD = "every width measured, blocks one by one, batch norms follow"
"""Tells sensitivities apart that were measured otherwise; changes with how they are measured."""
_FEWEST_SAMPLES = 16

_NOISY_REPETITIONS = 3

# A network that loses less (nats, or relative squared error) has no layer that must stay float.
_WORTH_MIXING = 5e-3

# A layer looked at alone: its input ranges are observed, then the network is run.
_PASSES_A_LAYER = 2

# A block goes alone, and once more after those that lose less.
_PASSES_A_BLOCK = 2

# Shares of the channels that networks pruned everywhere keep, to see how losses of groups add up.
JOINT_SHARES = (0.9, 0.75, 0.5, 0.25)

# Of the blocks, the cheapest first, so many are gone in networks that are scored as well.
_BLOCK_SHARES = (0.25, 0.5, 0.75, 1.0)


def measure_sensitivity(
    task: Task, graph: OpGraph, outputs: Sequence[OutputSpec], *, target: str,
    schemes: Sequence[Scheme], mixes: Mixes, channel_multiple: int, progress: Progress,
    in_scheme: Callable[[Scheme], nn.Module] | None = None,
) -> Sensitivity:  # fmt: skip
    """Return what every width of every group and every scheme loses, unrecovered.

    ``target`` names whose rules say which layers can have a scheme, ``mixes`` which schemes single
    layers may leave for which. ``in_scheme`` gives the network in a scheme where its layers cannot
    be rounded here.
    """
    inputs, batches = sample_inputs(task)
    measuring = _Measuring(task, outputs, batches, norms_follow=inputs != "example")
    groups, scores, notes = _scored_groups(task)
    progress.advance(0, 3, "channel groups")
    widths, width_notes = measure_widths(task.model, task.example_inputs, groups, graph)
    removable, block_notes = _removable_blocks(task, widths)
    groups = tuple(group for group in groups if group.layer in widths.groups)
    choices = width_choices(widths.full, [group.unit for group in groups], channel_multiple)
    rounded = in_scheme or (lambda scheme: measuring.simulated(scheme, target))
    formats = tuple(measuring.format(scheme, rounded(scheme)) for scheme in schemes)
    mixes = _worth_mixing(mixes, formats)
    single = _single_layers(graph, target, mixes)
    passes = _PASSES_A_LAYER * len(single) + _PASSES_A_BLOCK * len(removable)
    measuring.limit_samples(graph.macs, sum(len(row) - 1 for row in choices) + passes)
    layers = []
    for index, departure in enumerate(single):
        progress.advance(index, len(single), "layers")
        layers.append(measuring.layer(departure, target))
    curves = []
    for index, (group, row) in enumerate(zip(groups, choices, strict=True)):
        progress.advance(index, len(groups), "groups")
        curves.append(measuring.curve(group, row, scores))
    measured = Sensitivity(
        channel_multiple=channel_multiple,
        importance=scores.importance if scores else "magnitude",
        inputs=inputs,
        samples=measuring.samples,
        metric=measuring.metric,
        metric_samples=measuring.metric_samples,
        noise=measuring.noise,
        drop_range=_drop_range(task, measuring.metric),
        widths=widths,
        curves=tuple(curves),
        formats=formats,
        mixes=mixes,
        layers=tuple(layers),
        joint=(),
        moves_batch_norms=measuring.moves_batch_norms,
        notes=(*notes, *width_notes, *block_notes, *measuring.notes),
    )
    return measuring.blocks(measuring.joined(measured, groups, progress), removable, progress)


class _Measuring:
    """The original's outputs and score on a task's data, to compare changed networks with."""

    def __init__(
        self, task: Task, outputs: Sequence[OutputSpec], batches: Sequence[Tensors], *,
        norms_follow: bool,
    ) -> None:  # fmt: skip
        self._task = task
        self._outputs = outputs
        self._model = copy.deepcopy(task.model).eval()
        self._batches = list(batches)
        self._original = run_batches(self._model, self._batches)
        self._norms = observe_norms(self._model, self._batches if norms_follow else ())
        self.moves_batch_norms = bool(self._norms.batches)
        self.samples = len(self._original[0])
        self.metric, self.metric_samples = validation_score(task, task.model)
        self.noise = _noise(task, self.metric)
        self.notes = (_noise_note(self.noise),) if self.noise else ()

    def format(self, scheme: Scheme, changed: nn.Module) -> FormatPoint:
        divergence, drop = self._divergence(changed), self._drop(changed)
        return FormatPoint(
            scheme=scheme, loss=divergence.loss, disagreement=divergence.disagreement, drop=drop
        )

    def layer(self, alone: Departure, target: str) -> LayerPoint:
        """Return what one layer loses in a scheme while the rest of the network stays float."""
        changed = self.simulated("fp32", target, alone)
        loss = self._divergence(changed).loss
        return LayerPoint(layer=alone.layer, scheme=alone.scheme, loss=loss)

    def simulated(self, scheme: Scheme, target: str, *alone: Departure) -> nn.Module:
        """Return the network in a scheme, single layers perhaps in another."""
        layer_schemes = dict(alone)
        has_palette = not {scheme, *layer_schemes.values()}.isdisjoint(PALETTE_BITS)
        return simulate(
            self._model, scheme, self._batches, target=target, layer_schemes=layer_schemes,
            folded=self._folded if has_palette else {},
        )  # fmt: skip

    @cached_property
    def _folded(self) -> dict[str, Tensor]:
        return folded_weights(self._model, self._task.example_inputs)

    def limit_samples(self, macs: int, networks: int) -> None:
        """Keep as many samples as the changed networks can be run on in reasonable time."""
        passes = 1 + self.moves_batch_norms
        self._batches = affordable(self._batches, macs, passes * (networks + len(JOINT_SHARES)))
        self._original = run_batches(self._model, self._batches)
        self._norms = observe_norms(self._model, self._batches if self.moves_batch_norms else ())

    def curve(
        self, group: ChannelGroup, choices: tuple[int, ...], scores: ChannelScores | None
    ) -> GroupCurve:
        """Return a group's curve, measured at every width; a narrower one never loses less.

        Half of a group, with importances for a shape, would say too little: what a group loses
        grows with the channels removed while it still works, and jumps where it stops working.
        """
        assert scores is not None
        of_channel = scores.per_group[group.layer]
        order = sorted(group.units, key=lambda unit: (sum(of_channel[c] for c in unit), unit))
        removed = [(group.width - kept) // group.unit for kept in choices]
        losses = [self._masked_loss([(group, order[:n])]) if n else 0.0 for n in removed]
        rising = np.maximum.accumulate(losses[::-1])[::-1]
        return GroupCurve(
            layer=group.layer,
            order=tuple(order),
            choices=choices,
            losses=tuple(float(loss) for loss in rising),
        )

    def joined(
        self, found: Sensitivity, groups: Sequence[ChannelGroup], progress: Progress
    ) -> Sensitivity:
        """Return the sensitivity with networks measured that are pruned in every group."""
        if not groups:
            return found
        points: list[JointPoint] = []
        for index, share in enumerate(JOINT_SHARES):
            progress.advance(index, len(JOINT_SHARES), "networks")
            widths = tuple(
                min(row, key=lambda kept, full=row[-1]: abs(kept - share * full))  # type: ignore[misc]
                for row in found.choices
            )
            if widths == found.widths.full or any(widths == p.widths for p in points):
                continue
            removal = [
                (group, [(c,) for c in curve.removed(kept)])
                for group, curve, kept in zip(groups, found.curves, widths, strict=True)
            ]
            masked = self._masked(removal)
            divergence = self._divergence(masked)
            points.append(
                JointPoint(
                    widths=widths,
                    sum=found.loss_sum(widths),
                    loss=divergence.loss,
                    disagreement=divergence.disagreement,
                    drop=self._drop(masked),
                )
            )
        return replace(found, joint=tuple(points))

    def blocks(self, found: Sensitivity, names: Sequence[str], progress: Progress) -> Sensitivity:
        """Return the sensitivity with every block measured alone, and once all cheaper ones are
        gone: losses of blocks do not add up, since each corrects what those before it left.

        A network that has failed diverges no further, so no block counts for less than alone.
        """
        alone: dict[str, float] = {}
        for index, name in enumerate(names):
            progress.advance(index, 2 * len(names), "blocks")
            alone[name] = self._divergence(self._without([name])).loss
        order = sorted(names, key=lambda name: alone[name])
        scored = {math.ceil(share * len(order)) for share in _BLOCK_SHARES}
        points: list[BlockPoint] = []
        joint: list[JointPoint] = []
        reached = 0.0
        for count, name in enumerate(order, start=1):
            progress.advance(len(names) + count, 2 * len(names), "blocks")
            changed = self._without(order[:count])
            divergence = self._divergence(changed)
            points.append(BlockPoint(block=name, loss=max(alone[name], divergence.loss - reached)))
            reached = max(reached, divergence.loss)
            if count in scored:
                joint.append(
                    JointPoint(
                        widths=found.widths.full,
                        removed_blocks=tuple(order[:count]),
                        sum=sum(point.loss for point in points),
                        loss=divergence.loss,
                        disagreement=divergence.disagreement,
                        drop=self._drop(changed),
                    )
                )
        points.sort(key=lambda point: names.index(point.block))
        return replace(found, blocks=tuple(points), joint=(*found.joint, *joint))

    def _without(self, blocks: Collection[str]) -> nn.Module:
        return recalibrate(shortened(self._model, blocks), self._norms)

    def _masked_loss(
        self, removal: Sequence[tuple[ChannelGroup, Sequence[Sequence[int]]]]
    ) -> float:
        return self._divergence(self._masked(removal)).loss

    def _masked(self, removal: Sequence[tuple[ChannelGroup, Sequence[Sequence[int]]]]) -> nn.Module:
        """Return the original with nobody reading those channels, and batch norms that follow:
        what pruning computes."""
        channels = [(group, sorted(c for unit in units for c in unit)) for group, units in removal]
        return recalibrate(disconnected(self._model, channels), self._norms)

    def _divergence(self, changed: nn.Module) -> Divergence:
        return measure_divergence(
            self._original, run_batches(changed, self._batches), self._outputs
        )

    def _drop(self, changed: nn.Module) -> float | None:
        if self.metric is None:
            return None
        score, _ = validation_score(self._task, changed)
        return None if score is None else self._task.metric.drop(self.metric, score)


def affordable(batches: Sequence[Tensors], macs: int, networks: int) -> list[Tensors]:
    """Return as many of the batches as so many networks can be run on in reasonable time; an
    inference of the traced batch multiplies ``macs``."""
    runs = max(1, networks * macs // max(1, len(batches[0][0])))
    return taken(batches, max(_FEWEST_SAMPLES, int(_MAC_BUDGET / runs)))


def _worth_mixing(mixes: Mixes, formats: Sequence[FormatPoint]) -> Mixes:
    """Return the mixes without float for layers of networks that lose too little to win back."""
    losses = {point.scheme: point.loss for point in formats}
    found = {
        base: tuple(s for s in others if s not in FLOAT_SCHEMES or losses[base] >= _WORTH_MIXING)
        for base, others in mixes.items()
    }
    return {base: others for base, others in found.items() if others}


def _single_layers(graph: OpGraph, target: str, mixes: Mixes) -> Departures:
    """Return the layers and schemes to be looked at alone: those that departures leave or take."""
    found: dict[Departure, None] = {}
    for base, others in mixes.items():
        for layer, scheme in possible_departures(graph, target, base, others):
            for each in (base, scheme):
                if each not in FLOAT_SCHEMES:
                    found[Departure(layer, each)] = None
    return tuple(found)


def _removable_blocks(task: Task, widths: WidthModel) -> tuple[list[str], tuple[str, ...]]:
    """Return the residual blocks that can go, and a note for each that looks so and cannot."""
    if isinstance(task.model, Foreign):
        return [], ()
    survey = survey_blocks(task.model, task.example_inputs, widths.graph)
    notes = [f"block {name} stays: {reason}" for name, reason in survey.refused.items()]
    found = []
    for block in survey.blocks:
        if countable(widths, block):
            found.append(block.name)
        else:
            notes.append(f"block {block.name} stays: one of its layers reads too many groups")
    return found, tuple(notes)


def _scored_groups(
    task: Task,
) -> tuple[tuple[ChannelGroup, ...], ChannelScores | None, tuple[str, ...]]:
    """Return the prunable groups with their channels' scores, or the reason why there are none."""
    if isinstance(task.model, Foreign):
        return (), None, (task.model.unpruned,)
    try:
        groups = find_groups(task.model, task.example_inputs)
        if not groups:
            return (), None, ("no group of channels can be pruned",)
        return groups, score_groups(task, groups), ()
    except UnsupportedModel as problem:
        return (), None, (f"pruning is not offered: {problem.found}",)


def _noise(task: Task, first: float | None) -> float:
    """Return the largest drop between scores of the original: 0 where ``evaluate`` repeats itself.

    One repetition shows whether it does; where it does not, three more show by how much.
    """
    if first is None:
        return 0.0
    scores = [first]
    for repetitions in (1, _NOISY_REPETITIONS):
        again = (validation_score(task, task.model)[0] for _ in range(repetitions))
        scores += [score for score in again if score is not None]
        if len(set(scores)) == 1:
            return 0.0
    return task.metric.drop(max(scores), min(scores))


def _noise_note(noise: float) -> str:
    return (
        f"evaluate() gives another score each time: the original's own moves by {100 * noise:.2f} "
        "% of the metric's range, and a drop smaller than that is not told from noise"
    )


def _drop_range(task: Task, metric: float | None) -> tuple[float, float]:
    if metric is None:
        return (-1.0, 1.0)
    return task.metric.drop(metric, task.metric.high), task.metric.drop(metric, task.metric.low)


def validation_score(task: Task, module: nn.Module) -> tuple[float | None, int]:
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
