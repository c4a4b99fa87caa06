"""Measure what narrower groups, lost blocks and coarser formats cost, before any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.depth import survey_blocks
from edgesdk.compress.importance import ChannelScores, score_groups
from edgesdk.compress.prune import find_groups
from edgesdk.compress.recalibrate import observe_norms
from edgesdk.compress.samples import sample_inputs, taken
from edgesdk.document import from_builtins, to_builtins
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
from edgesdk.planner.probing import Change, Finding, Probing
from edgesdk.planner.sensitivity import (
    BlockPoint,
    FormatPoint,
    GroupCurve,
    JointPoint,
    LayerPoint,
    Sensitivity,
)
from edgesdk.planner.tables import Choices, width_choices
from edgesdk.planner.widths import WidthModel, Widths, measure_widths
from edgesdk.progress import Progress
from edgesdk.scheme import FLOAT_SCHEMES, Scheme
from edgesdk.task import OutputSpec, Task, Tensors
from edgesdk.workers.here import Here
from edgesdk.workers.job import Workers
from edgesdk.workers.ledger import Ledger, do_all
from edgesdk.workers.parcel import Parcel

# What all masked inferences together may multiply; larger networks are looked at on fewer samples.
_MAC_BUDGET = 2e12

METHOD = "every width measured, blocks one by one, batch norms follow, samples together"
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
    workers: Workers, ledger: Ledger,
    in_scheme: Callable[[Scheme], nn.Module] | None = None,
) -> Sensitivity:  # fmt: skip
    """Return what every width of every group and every scheme loses, unrecovered.

    ``target`` names whose rules say which layers can have a scheme, ``mixes`` which schemes single
    layers may leave for which. ``workers`` look at the changed networks; ``ledger`` keeps what
    they found, for a run that is interrupted. ``in_scheme`` gives the network in a scheme where
    its layers cannot be rounded here; this process alone can, so it is the one to look.
    """
    inputs, batches = sample_inputs(task)
    groups, scores, notes = _scored_groups(task)
    measuring = _Measuring(
        task, outputs, batches, target=target, groups=groups, norms_follow=inputs != "example",
        progress=progress, workers=Here() if in_scheme else workers, ledger=ledger,
        in_scheme=in_scheme,
    )  # fmt: skip
    progress.advance(0, 3, "channel groups")
    widths, width_notes = measure_widths(task.model, task.example_inputs, groups, graph)
    removable, block_notes = _removable_blocks(task, widths)
    groups = tuple(group for group in groups if group.layer in widths.groups)
    choices = width_choices(widths.full, [group.unit for group in groups], channel_multiple)
    formats = measuring.formats(schemes)
    mixes = _worth_mixing(mixes, formats)
    single = _single_layers(graph, target, mixes)
    passes = _PASSES_A_LAYER * len(single) + _PASSES_A_BLOCK * len(removable)
    measuring.limit_samples(graph.macs, sum(len(row) - 1 for row in choices) + passes)
    layers = measuring.layers(single)
    curves = measuring.curves(groups, choices, scores)
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
        curves=curves,
        formats=formats,
        mixes=mixes,
        layers=layers,
        joint=(),
        moves_batch_norms=measuring.moves_batch_norms,
        notes=(*notes, *width_notes, *block_notes, *measuring.notes),
    )
    return measuring.blocks(measuring.joined(measured), removable)


class _Measuring:
    """The task's data and the original's score, to compare changed networks with."""

    def __init__(
        self, task: Task, outputs: Sequence[OutputSpec], batches: Sequence[Tensors], *, target: str,
        groups: Sequence[ChannelGroup], norms_follow: bool, progress: Progress, workers: Workers,
        ledger: Ledger, in_scheme: Callable[[Scheme], nn.Module] | None,
    ) -> None:  # fmt: skip
        self._task = task
        # As they arrive where they cross to another process: strides may choose the arithmetic.
        self._batches = [tuple(tensor.contiguous() for tensor in inputs) for inputs in batches]
        self._probing = partial(
            Probing, task, outputs, target=target, groups=groups, norms_follow=norms_follow,
            in_scheme=in_scheme,
        )  # fmt: skip
        self._progress = progress
        self._workers = workers
        self._ledger = ledger
        has_norms = bool(observe_norms(task.model, ()).trained)
        self.moves_batch_norms = norms_follow and has_norms
        self.samples = sum(len(inputs[0]) for inputs in self._batches)
        self.metric, self.metric_samples, self.noise = self._score_original()
        self.notes = (_noise_note(self.noise),) if self.noise else ()

    def _look_at(self, changes: Sequence[Change], note: str) -> list[Finding]:
        """Return what each changed network loses, in their order."""
        answers = do_all(
            self._workers,
            self._probing(self._batches),
            [Parcel(values=to_builtins(change)) for change in changes],
            ledger=self._ledger,
            of=f"{len(self._batches)} batches, {self.samples} samples",
            on_done=lambda done: self._progress.advance(done, len(changes), note),
        )
        return [from_builtins(Finding, answer.values, what="finding") for answer in answers]

    def _score_original(self) -> tuple[float | None, int, float]:
        """Return the original's metric, its samples, and the largest drop between its scores.

        That is 0 where ``evaluate`` repeats itself: one repetition shows whether it does; where it
        does not, three more show by how much.
        """
        if self._task.evaluate is None:
            return None, 0, 0.0
        found: list[Finding] = []
        for repetitions in (1, 1, _NOISY_REPETITIONS):
            looks = [
                Change(scored=True, repetition=len(found) + number) for number in range(repetitions)
            ]
            found += self._look_at(looks, "the original")
            scores = [finding.score for finding in found if finding.score is not None]
            if len(scores) > 1 and len(set(scores)) == 1:
                break
        noise = self._task.metric.drop(max(scores), min(scores))
        return scores[0], found[0].scored_samples, noise

    def formats(self, schemes: Sequence[Scheme]) -> tuple[FormatPoint, ...]:
        """Return what the unpruned network loses in each scheme."""
        findings = self._look_at([Change(scheme=s, scored=True) for s in schemes], "precisions")
        return tuple(
            FormatPoint(
                scheme=scheme,
                loss=finding.loss,
                disagreement=finding.disagreement,
                drop=self._drop(finding),
            )
            for scheme, finding in zip(schemes, findings, strict=True)
        )

    def layers(self, single: Departures) -> tuple[LayerPoint, ...]:
        """Return what layers lose in a scheme while the rest of their network stays float."""
        changes = [Change(layer_schemes=dict([alone])) for alone in single]
        findings = self._look_at(changes, "layers")
        return tuple(
            LayerPoint(layer=alone.layer, scheme=alone.scheme, loss=finding.loss)
            for alone, finding in zip(single, findings, strict=True)
        )

    def limit_samples(self, macs: int, networks: int) -> None:
        """Keep as many samples as the changed networks can be run on in reasonable time."""
        passes = 1 + self.moves_batch_norms
        each = macs // len(self._task.example_inputs[0])
        self._batches = affordable(self._batches, each, passes * (networks + len(JOINT_SHARES)))
        self.samples = sum(len(inputs[0]) for inputs in self._batches)

    def curves(
        self, groups: Sequence[ChannelGroup], choices: Choices, scores: ChannelScores | None
    ) -> tuple[GroupCurve, ...]:
        """Return the groups' curves, measured at every width; a narrower one never loses less.

        Half of a group, with importances for a shape, would say too little: what a group loses
        grows with the channels removed while it still works, and jumps where it stops working.
        """
        orders = [_least_important_first(group, scores) for group in groups]
        changes = [
            Change(removed_channels={group.layer: tuple(sorted(c for u in order[:n] for c in u))})
            for group, order, row in zip(groups, orders, choices, strict=True)
            for n in _removed_units(group, row)
            if n
        ]
        losses = iter([finding.loss for finding in self._look_at(changes, "widths")])
        curves = []
        for group, order, row in zip(groups, orders, choices, strict=True):
            own = [next(losses) if n else 0.0 for n in _removed_units(group, row)]
            rising = np.maximum.accumulate(own[::-1])[::-1]
            curves.append(
                GroupCurve(
                    layer=group.layer,
                    order=order,
                    choices=row,
                    losses=tuple(float(loss) for loss in rising),
                    heads=group.heads,
                )
            )
        return tuple(curves)

    def joined(self, found: Sensitivity) -> Sensitivity:
        """Return the sensitivity with networks measured that are pruned in every group."""
        shares = [
            tuple(
                min(row, key=lambda kept, full=row[-1]: abs(kept - share * full))  # type: ignore[misc]
                for row in found.choices
            )
            for share in JOINT_SHARES
        ]
        networks = [widths for widths in dict.fromkeys(shares) if widths != found.widths.full]
        changes = [
            Change(
                removed_channels={
                    curve.layer: tuple(sorted(curve.removed(kept)))
                    for curve, kept in zip(found.curves, widths, strict=True)
                },
                scored=True,
            )
            for widths in networks
        ]
        points = tuple(
            self._joint_point(found.loss_sum(widths), finding, widths=widths)
            for widths, finding in zip(networks, self._look_at(changes, "networks"), strict=True)
        )
        return replace(found, joint=points)

    def blocks(self, found: Sensitivity, names: Sequence[str]) -> Sensitivity:
        """Return the sensitivity with every block measured alone, and once all cheaper ones are
        gone: losses of blocks do not add up, since each corrects what those before it left.

        A network that has failed diverges no further, so no block counts for less than alone.
        """
        singles = self._look_at([Change(removed_blocks=(name,)) for name in names], "blocks")
        alone = {name: finding.loss for name, finding in zip(names, singles, strict=True)}
        order = sorted(names, key=lambda name: alone[name])
        scored = {math.ceil(share * len(order)) for share in _BLOCK_SHARES}
        counts = range(1, len(order) + 1)
        together = self._look_at(
            [Change(removed_blocks=tuple(order[:n]), scored=n in scored) for n in counts],
            "blocks together",
        )
        points: list[BlockPoint] = []
        joint: list[JointPoint] = []
        reached = 0.0
        for count, name, finding in zip(counts, order, together, strict=True):
            points.append(BlockPoint(block=name, loss=max(alone[name], finding.loss - reached)))
            reached = max(reached, finding.loss)
            if count in scored:
                total, gone = sum(point.loss for point in points), tuple(order[:count])
                joint.append(
                    self._joint_point(total, finding, widths=found.widths.full, blocks=gone)
                )
        points.sort(key=lambda point: names.index(point.block))
        return replace(found, blocks=tuple(points), joint=(*found.joint, *joint))

    def _joint_point(
        self, total: float, finding: Finding, *, widths: Widths, blocks: tuple[str, ...] = ()
    ) -> JointPoint:
        return JointPoint(
            widths=widths,
            removed_blocks=blocks,
            sum=total,
            loss=finding.loss,
            disagreement=finding.disagreement,
            drop=self._drop(finding),
        )

    def _drop(self, finding: Finding) -> float | None:
        if self.metric is None or finding.score is None:
            return None
        return self._task.metric.drop(self.metric, finding.score)


def affordable(batches: Sequence[Tensors], macs: int, networks: int) -> list[Tensors]:
    """Return as many of the batches as so many networks can be run on in reasonable time; one
    sample takes ``macs`` multiplications."""
    return taken(batches, max(_FEWEST_SAMPLES, int(_MAC_BUDGET / max(1, networks * macs))))


def _least_important_first(
    group: ChannelGroup, scores: ChannelScores | None
) -> tuple[tuple[int, ...], ...]:
    """Return a group's units in the order in which they go."""
    assert scores is not None
    of_channel = scores.per_group[group.layer]
    return tuple(sorted(group.units, key=lambda unit: (sum(of_channel[c] for c in unit), unit)))


def _removed_units(group: ChannelGroup, choices: Sequence[int]) -> list[int]:
    """Return how many units go at each of a group's widths."""
    return [(group.width - kept) // group.unit for kept in choices]


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


def _noise_note(noise: float) -> str:
    return (
        f"evaluate() gives another score each time: the original's own moves by {100 * noise:.2f} "
        "% of the metric's range, and a drop smaller than that is not told from noise"
    )


def _drop_range(task: Task, metric: float | None) -> tuple[float, float]:
    if metric is None:
        return (-1.0, 1.0)
    return task.metric.drop(metric, task.metric.high), task.metric.drop(metric, task.metric.low)
