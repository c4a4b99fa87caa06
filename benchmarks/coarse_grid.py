"""The coarse grid that budgets are held against: every group at the same share of its channels."""

from __future__ import annotations

from torch import nn

from edgesdk.compress.channel_groups import ChannelGroup
from edgesdk.compress.prune import find_groups, prune
from edgesdk.plan import PrunedGroup
from edgesdk.task import Task

SHARES = (1.0, 0.75, 0.5, 0.25)


def uniform_network(task: Task, share: float) -> nn.Module:
    """Return the network with that share of every group's channels."""
    groups = [_removed(group, share) for group in find_groups(task.model, task.example_inputs)]
    return prune(task.model, task.example_inputs, [group for group in groups if group.removed])


def _removed(group: ChannelGroup, share: float) -> PrunedGroup:
    """Return which channels of a group go: whole units from the end, one unit staying at least."""
    kept = max(1, round(share * len(group.units)))
    removed = sorted(channel for unit in group.units[kept:] for channel in unit)
    return PrunedGroup(layer=group.layer, width_before=group.width, removed=tuple(removed))
