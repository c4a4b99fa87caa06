"""Widths as variables: the model's graphs and tables against really pruned networks."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowing import RUNTIME
from torch import Tensor, nn

from edgesdk.compress.prune import find_groups, prune
from edgesdk.cost.fusion import fuse, weight_bytes
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.plan import PrunedGroup
from edgesdk.planner.tables import CostTables, cost_tables, width_choices
from edgesdk.planner.widths import WidthModel, Widths, measure_widths
from edgesdk.trace import trace

INPUTS = (torch.zeros(1, 3, 12, 12),)


class Branches(nn.Module):
    """A residual, a depthwise convolution, a concatenation and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 24, 3, padding=1)
        self.outer = nn.Conv2d(24, 16, 1)
        self.spread = nn.Conv2d(16, 16, 3, groups=16, stride=2)
        self.left = nn.Conv2d(16, 8, 1)
        self.right = nn.Conv2d(16, 12, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        x = self.spread(x)
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(torch.relu(x).mean((2, 3)))


@cache
def known() -> tuple[Branches, WidthModel, CostTables]:
    torch.manual_seed(0)
    model = Branches().eval()
    groups = find_groups(model, INPUTS)
    widths, notes = measure_widths(model, INPUTS, groups, trace(model, INPUTS, name="m"))
    assert notes == ()
    choices = width_choices(widths.full, [group.unit for group in groups], 1, most=4)
    return model, widths, cost_tables(widths, choices, RUNTIME, "fp32")


PLACES = st.tuples(*[st.integers(0, 3)] * 4)


def at(places: tuple[int, ...]) -> Widths:
    return tuple(row[i] for row, i in zip(known()[2].choices, places, strict=True))


@settings(max_examples=8)
@given(PLACES)
def test_a_graph_at_some_widths_is_that_of_the_pruned_network(places: tuple[int, ...]) -> None:
    model, widths, _ = known()
    kept = at(places)
    groups = {group.layer: group for group in find_groups(model, INPUTS)}
    chosen = np.random.default_rng(sum(kept))
    removed = []
    for layer, full, keep in zip(widths.groups, widths.full, kept, strict=True):
        gone = chosen.choice(groups[layer].width, full - keep, replace=False).tolist()
        removed.append(PrunedGroup(layer=layer, width_before=full, removed=tuple(sorted(gone))))
    pruned = prune(model, INPUTS, [group for group in removed if group.removed])
    traced = trace(pruned, INPUTS, name="m")
    graph = widths.at(kept)
    assert {n: t.shape for n, t in graph.tensors.items()} == {
        n: t.shape for n, t in traced.tensors.items()
    }
    assert graph.macs == traced.macs
    assert [op.attributes for op in graph.ops] == [op.attributes for op in traced.ops]


@given(PLACES)
def test_latency_and_weights_are_exact_for_all_but_readers_of_many_groups(
    places: tuple[int, ...],
) -> None:
    """Only the classifier reads two groups at once here, and it is a pair like any other."""
    _, widths, tables = known()
    graph = widths.at(at(places))
    latency = predict_latency(graph, RUNTIME, "fp32").total.value
    assert tables.latency_ms.at(places) == pytest.approx(latency, rel=1e-6)
    stored = sum(weight_bytes(kernel, "fp32") for kernel in fuse(graph))
    assert tables.weight_bytes.at(places) == pytest.approx(stored, rel=1e-6)


@given(PLACES)
def test_live_tensors_and_the_rest_come_near_the_predicted_peak(places: tuple[int, ...]) -> None:
    _, widths, tables = known()
    alive = tables.alive_constant + sum(p[i] for p, i in zip(tables.alive, places, strict=True))
    peak = float(np.max(alive)) + tables.resident.at(places)
    predicted = predict_memory(widths.at(at(places)), RUNTIME, "fp32").value
    assert peak == pytest.approx(predicted, rel=0.25)


def test_the_original_is_the_last_place() -> None:
    _, widths, tables = known()
    assert at(tuple(len(row) - 1 for row in tables.choices)) == widths.full


@given(full=st.integers(1, 300), unit=st.integers(1, 4), multiple=st.sampled_from([1, 4, 8, 32]))
def test_choices_are_multiples_and_end_with_the_original(
    full: int, unit: int, multiple: int
) -> None:
    (row,) = width_choices((full * unit,), [unit], multiple)
    assert row[-1] == full * unit
    assert list(row) == sorted(set(row))
    assert len(row) <= 8
    assert all(width % unit == 0 and width > 0 for width in row)
    step = math.lcm(unit, multiple)
    assert all(width % step == 0 for width in row[:-1] if width > step)
    assert all(step % width == 0 for width in row[:-1] if width < step)


def test_narrow_groups_may_go_below_the_multiple() -> None:
    assert width_choices((16, 16, 64), (1, 4, 1), 8) == (
        (2, 4, 8, 16),
        (4, 8, 16),
        (8, 16, 24, 32, 40, 48, 56, 64),
    )
