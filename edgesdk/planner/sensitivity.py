"""What a task loses: narrower groups, lost blocks, split layers, coarser formats, layers in
another scheme."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import ConfigDict

from edgesdk.low_rank import LayerSplit, Splits
from edgesdk.plan import PrunedGroup
from edgesdk.planner.departures import Departure, Departures, Mixes, rank_of
from edgesdk.planner.options import Option
from edgesdk.planner.tables import Choices
from edgesdk.planner.widths import WidthModel, Widths
from edgesdk.scheme import FLOAT_SCHEMES, Scheme

# Of these samples' top classes at most this share may have moved for a loss to count as additive:
# past it an almost empty network answers evenly, and diverges less the more is taken from it.
_SATURATED = 0.6


@dataclass(frozen=True, kw_only=True)
class FormatPoint:
    """The unpruned network in a scheme: ``loss`` and ``disagreement`` as in ``Divergence``;
    ``drop`` is the validation metric's, None without ``evaluate``."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    scheme: Scheme
    loss: float
    disagreement: float | None
    drop: float | None


@dataclass(frozen=True, kw_only=True)
class LayerPoint:
    """The unpruned float network with one layer in a scheme: what that layer alone loses."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    layer: str
    scheme: Scheme
    loss: float


@dataclass(frozen=True, kw_only=True)
class BlockPoint:
    """What a residual block that goes loses before recovery: alone, or where that is more, what it
    adds once every cheaper block is gone."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    block: str
    loss: float


@dataclass(frozen=True, kw_only=True)
class SplitPoint:
    """What a layer that becomes two of a rank loses alone, before recovery."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    layer: str
    rank: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class JointPoint:
    """A network pruned in all groups at once, without several blocks or with all layers split: what
    each group, block or split loses, summed, and what was measured."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    widths: Widths
    sum: float
    loss: float
    disagreement: float | None
    drop: float | None
    removed_blocks: tuple[str, ...] = ()
    splits: Splits = ()


@dataclass(frozen=True, kw_only=True)
class GroupCurve:
    """What a group loses at each width it may have, alone and before recovery.

    ``order`` are its units of channels, the least important first; ``losses[i]`` belongs to
    ``choices[i]`` kept channels, ascending, and is 0 for all of them. ``heads``: how many attention
    heads the channels are, where whole heads go, and else 0.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    layer: str
    order: tuple[tuple[int, ...], ...]
    choices: tuple[int, ...]
    losses: tuple[float, ...]
    heads: int = 0

    def loss(self, kept: int) -> float:
        """Return what the group loses at a width among its choices."""
        return self.losses[self.choices.index(kept)]

    def removed(self, kept: int) -> tuple[int, ...]:
        """Return the channels that go where ``kept`` stay, sorted."""
        count = (self.choices[-1] - kept) // len(self.order[0])
        return tuple(sorted(channel for unit in self.order[:count] for channel in unit))


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Everything the planner needs to know about a task, measured once for a channel multiple.

    ``curves`` follow ``widths.groups``. ``samples`` is how many inputs the divergences rest on, and
    ``inputs`` which; ``metric`` the original's validation score over ``metric_samples`` inputs,
    ``noise`` how far that moves when it is scored again (a drop), and ``drop_range`` the drops that
    its range leaves possible. ``joint`` tells how the losses of groups, of blocks and of splits add
    up; ``blocks`` are the residual blocks that may go, ``splits`` the layers that may become two,
    as far as the devices asked for gain by it. ``mixes`` are the schemes that single layers may
    leave for others, as far as that pays, and ``layers`` what those lose in each.
    ``moves_batch_norms``: pruned networks were looked at with batch norms that follow the pruning,
    as they then do in the plan.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    channel_multiple: int
    importance: Literal["taylor", "magnitude"]
    inputs: Literal["calibration", "training", "example"]
    samples: int
    metric: float | None
    metric_samples: int
    noise: float
    drop_range: tuple[float, float]
    widths: WidthModel
    curves: tuple[GroupCurve, ...]
    formats: tuple[FormatPoint, ...]
    mixes: Mixes
    layers: tuple[LayerPoint, ...]
    joint: tuple[JointPoint, ...]
    notes: tuple[str, ...]
    blocks: tuple[BlockPoint, ...] = ()
    splits: tuple[SplitPoint, ...] = ()
    moves_batch_norms: bool = False
    schema_version: Literal[1] = 1

    @property
    def choices(self) -> Choices:
        """The widths each group may have, ascending."""
        return tuple(curve.choices for curve in self.curves)

    def format(self, scheme: Scheme) -> FormatPoint:
        """Return what was measured of the unpruned network in a scheme."""
        return next(point for point in self.formats if point.scheme == scheme)

    def pruned_groups(self, widths: Widths) -> tuple[PrunedGroup, ...]:
        """Return the channels that go at those widths, without the groups that stay whole."""
        return tuple(
            PrunedGroup(
                layer=curve.layer,
                width_before=full,
                removed=curve.removed(kept),
                heads=curve.heads,
            )
            for curve, full, kept in zip(self.curves, self.widths.full, widths, strict=True)
            if kept < full
        )

    def loss(self, option: Option) -> float:
        """Return the expected loss before recovery: the formats' and, summed, that of the groups,
        of the blocks that go and of the splits."""
        return self.format_loss(option.scheme, option.departures) + self._shape_loss(option)

    def _shape_loss(self, option: Option) -> float:
        """Return what an option loses beside its formats."""
        pruned = self.pruning_loss(option.widths, option.removed_blocks)
        return pruned + sum(self.split_loss(split) for split in option.splits)

    def pruning_loss(self, widths: Widths, removed_blocks: Collection[str] = ()) -> float:
        """Return the expected loss of widths among their choices and of blocks that go."""
        blocks = sum(self.block_loss(block) for block in removed_blocks)
        return self.joint_scale * self.loss_sum(widths) + blocks

    def block_loss(self, block: str) -> float:
        """Return what a block that goes is expected to lose."""
        return next(point.loss for point in self.blocks if point.block == block)

    @property
    def looked_at(self) -> Splits:
        """The splits that were measured, the layers in the graph's order, each from its lowest rank
        up."""
        return tuple(LayerSplit(point.layer, point.rank) for point in self.splits)

    def split_loss(self, split: LayerSplit) -> float:
        """Return what a split is expected to lose among others."""
        return self._split_scale * self._split_losses[split]

    @cached_property
    def _split_losses(self) -> Mapping[LayerSplit, float]:
        return dict(zip(self.looked_at, (point.loss for point in self.splits), strict=True))

    @cached_property
    def _split_scale(self) -> float:
        """What losses of layers that are split together come to, over their sum: the median seen,
        and 1 at least."""
        return max(1.0, self._median_ratio([p for p in self.joint if p.splits]))

    def rank(self, option: Option) -> float:
        """Return what options are ranked by: the expected loss, and a little for each departure
        and split."""
        return rank_of(self.loss(option), option.scheme, option.departures, option.splits)

    def format_loss(self, scheme: Scheme, departures: Departures) -> float:
        """Return what the unpruned network loses in a scheme that single layers depart from."""
        changes = sum(self.departure_loss(scheme, departure) for departure in departures)
        return max(0.0, self.format(scheme).loss + changes)

    def departure_loss(self, scheme: Scheme, departure: Departure) -> float:
        """Return what a layer's departure changes: below 0 where the layer gets finer."""
        left = self._layer_loss(departure.layer, scheme)
        return self._layer_loss(departure.layer, departure.scheme) - left

    def _layer_loss(self, layer: str, scheme: Scheme) -> float:
        """Return a layer's share of what the network loses in a scheme.

        Losses of single layers add up to that of all of them but for a factor, which all share.
        """
        return 0.0 if scheme in FLOAT_SCHEMES else self._shares[layer, scheme]

    @cached_property
    def _shares(self) -> Mapping[tuple[str, Scheme], float]:
        totals: dict[Scheme, float] = {}
        for point in self.layers:
            totals[point.scheme] = totals.get(point.scheme, 0.0) + point.loss
        return {
            (point.layer, point.scheme): self.format(point.scheme).loss
            * (point.loss / totals[point.scheme] if totals[point.scheme] > 0 else 0.0)
            for point in self.layers
        }

    def loss_sum(self, widths: Widths) -> float:
        """Return the sum of the groups' own losses at widths among their choices."""
        return sum(curve.loss(kept) for curve, kept in zip(self.curves, widths, strict=True))

    @property
    def joint_scale(self) -> float:
        """What losses of groups pruned together come to, over their sum: the median seen."""
        return self._median_ratio([p for p in self.joint if not p.removed_blocks and not p.splits])

    def _median_ratio(self, points: Sequence[JointPoint]) -> float:
        ratios = [
            point.loss / point.sum
            for point in points
            if point.sum > 0 and (point.disagreement or 0.0) < _SATURATED
        ]
        return float(np.median(ratios)) if ratios else 1.0

    def drop(self, option: Option) -> tuple[float, float] | None:
        """Return the expected metric drop before recovery and how far off it may be, or None.

        Interpolated over the expected losses of the networks that were scored; off by as much as
        the worst of those is from the line through its neighbours.
        """
        found = self._format_drop(option)
        if found is None or option.is_whole(self.widths.full):
            return found
        known, unsure = found
        points = sorted((self._expected(p), p.drop) for p in self.joint if p.drop is not None)
        if not points:
            return known, self.drop_range[1]
        drop = known + _interpolated(self._shape_loss(option), points)
        return min(drop, self.drop_range[1]), unsure + _spread(points)

    def _expected(self, point: JointPoint) -> float:
        """Return what a network that was measured would have been expected to lose."""
        if point.splits:
            return point.sum * self._split_scale
        return point.sum * (1.0 if point.removed_blocks else self.joint_scale)

    def _format_drop(self, option: Option) -> tuple[float, float] | None:
        """Return the drop of an option's formats alone: as scored, or between what was scored.

        A mixture is half as unsure as it is far from the network that its layers depart from.
        """
        known = self.format(option.scheme).drop
        if known is None or not option.departures:
            return None if known is None else (known, 0.0)
        scored = sorted((p.loss, p.drop) for p in self.formats if p.drop is not None)
        drop = _interpolated(self.format_loss(option.scheme, option.departures), scored)
        return drop, abs(drop - known) / 2


def _interpolated(value: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the drop at a summed loss: no less than at any smaller one, and 0 at 0."""
    sums = [0.0, *(point[0] for point in points)]
    drops = np.maximum.accumulate([0.0, *(point[1] for point in points)])
    return float(np.interp(value, sums, drops))


def _spread(points: Sequence[tuple[float, float]]) -> float:
    """Return how far the worst point lies from the line through the others; its own drop alone."""
    misses = [
        abs(point[1] - _interpolated(point[0], [*points[:i], *points[i + 1 :]]))
        for i, point in enumerate(points[:-1])
    ]
    return max(misses, default=abs(points[-1][1]))
