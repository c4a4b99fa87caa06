"""Networks that lose heads are priced as what is left of them, exactly."""

from __future__ import annotations

import pytest
from attention_nets import GROUPS, TOKENS, GroupedRotary, network
from torch import nn

from edgesdk.compress.prune import prune, survey_channels
from edgesdk.plan import PrunedGroup
from edgesdk.planner.tables import width_choices
from edgesdk.planner.widths import measure_widths
from edgesdk.trace import trace


@pytest.mark.parametrize("kind", GROUPS)
def test_a_graph_with_fewer_heads_is_that_of_the_pruned_network(kind: type[nn.Module]) -> None:
    model = network(kind)
    groups = survey_channels(model, TOKENS).groups
    widths, notes = measure_widths(model, TOKENS, groups, trace(model, TOKENS, name="m"))
    assert not notes
    for kept in (1, 2):
        requests = [
            PrunedGroup(
                layer=group.layer,
                width_before=group.width,
                removed=tuple(sorted(c for unit in group.units[kept:] for c in unit)),
            )
            for group in groups
        ]
        asked = [request for request in requests if request.removed]
        pruned = trace(prune(model, TOKENS, asked), TOKENS, name="m")
        found = widths.at(tuple(request.width_after for request in requests))
        assert {op.name: op.macs for op in found.ops} == {op.name: op.macs for op in pruned.ops}
        assert found.tensors == pruned.tensors


def test_widths_are_whole_heads() -> None:
    groups = survey_channels(network(GroupedRotary), TOKENS).groups
    (choices,) = width_choices((8,), [group.unit for group in groups], 1)
    assert choices == (4, 8)
