"""Which channels to remove: the least important ones of the whole network, in whole steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.errors import UsageError
from edgesdk.plan import PrunedGroup

LEAST_KEPT = 0.1
"""The part of a group's channels that always stays; without it a layer can lose its signal."""


@dataclass(frozen=True, kw_only=True, order=True)
class _Step:
    """Remove the group's least important channels until ``removed`` of them are gone."""

    score: float
    group: int
    removed: int
    size: int


def select_channels(
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Sequence[float]],
    *,
    ratio: float,
    channel_multiple: int,
) -> tuple[PrunedGroup, ...]:
    """Return the channels to remove: about ``ratio`` of all, the least important first.

    ``scores[group.layer][c]`` is the importance of a channel, comparable between groups. Channels
    are taken in steps that leave each group a multiple of ``channel_multiple`` (and of the blocks
    of its grouped convolutions); a step counts as important as its channels on average. The steps
    of all groups are ranked together and taken until their number is nearest to ``ratio``, so
    a larger ratio removes what a smaller one does, and more.

    A group keeps at least one multiple and a tenth of its channels; one that is too narrow for
    that stays whole. Groups that stay whole are not in the result.

    Raises ``UsageError`` for a ratio outside [0, 1), a multiple below 1, or scores that are
    missing, of another number, or not finite.
    """
    if not 0 <= ratio < 1:
        raise UsageError(f"a pruning ratio of {ratio} cannot be", expected="at least 0, below 1")
    if channel_multiple < 1:
        raise UsageError(f"channel_multiple={channel_multiple} cannot be", expected="1 or more")
    orders = [_ascending(group, scores) for group in groups]
    steps = [
        step
        for place, group in enumerate(groups)
        for step in _steps(place, group, orders[place], channel_multiple)
    ]
    wanted = ratio * sum(group.width for group in groups)
    total, removed = 0, [0] * len(groups)
    for step in sorted(steps):
        if total + step.size / 2 > wanted:
            break
        total += step.size
        removed[step.group] = step.removed
    return tuple(
        PrunedGroup(
            layer=group.layer,
            width_before=group.width,
            removed=tuple(sorted(c for _, unit in order[: count // group.unit] for c in unit)),
            heads=group.heads,
        )
        for group, order, count in zip(groups, orders, removed, strict=True)
        if count
    )


_Order = list[tuple[float, tuple[int, ...]]]


def _ascending(group: ChannelGroup, scores: Mapping[str, Sequence[float]]) -> _Order:
    """Return the group's units with their scores per channel, the least important first."""
    of_channels = scores.get(group.layer, ())
    if len(of_channels) != group.width or not all(math.isfinite(score) for score in of_channels):
        raise UsageError(
            f"layer {group.layer!r} has {len(of_channels)} scores for {group.width} channels, or "
            "some that are not finite",
            expected="one finite score per channel",
        )
    return sorted((sum(of_channels[c] for c in unit) / group.unit, unit) for unit in group.units)


def _steps(place: int, group: ChannelGroup, order: _Order, channel_multiple: int) -> list[_Step]:
    multiple = math.lcm(group.unit, channel_multiple)
    most = (group.width - 1) // multiple * multiple
    least = max(1, math.ceil(LEAST_KEPT * group.width / multiple)) * multiple
    steps, start = [], 0
    for kept in range(most, least - 1, -multiple):
        removed = group.width - kept
        part = order[start // group.unit : removed // group.unit]
        score = sum(score for score, _ in part) / len(part)
        steps.append(_Step(score=score, group=place, removed=removed, size=removed - start))
        start = removed
    return steps
