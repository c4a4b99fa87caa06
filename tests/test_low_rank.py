"""Layers that become two: the graph, against the trace of a network that really has them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compress.factorize import factorized
from edgesdk.cost.fusion import fuse
from edgesdk.low_rank import LayerSplit, split_limit, splittable_ops, with_splits
from edgesdk.residual import computes_alike
from edgesdk.trace import trace

IMAGES = (torch.randn(1, 6, 10, 10, generator=torch.Generator().manual_seed(0)),)
ROWS = (torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1)),)


def images(**given_: object) -> nn.Module:
    settings = {"kernel_size": 3, "padding": 1, **given_}
    return nn.Sequential(
        nn.Conv2d(6, 12, **settings),  # type: ignore[arg-type]
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 8),
    ).eval()


class Sequence(nn.Module):
    """Linear layers and a convolution along a sequence ``[N, T, 12]``."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = nn.Linear(12, 24, bias=False), nn.Linear(24, 12)
        self.along = nn.Conv1d(12, 16, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.back(torch.nn.functional.gelu(self.wide(x)))
        return torch.relu(self.along(x.transpose(1, 2))).mean(2)


@pytest.mark.parametrize(
    ("model", "inputs", "ranks"),
    [
        (images(), IMAGES, {"0": 4, "5": 3}),
        (images(stride=2, bias=False), IMAGES, {"0": 5}),
        (images(padding="same", dilation=2), IMAGES, {"0": 2}),
        (images(kernel_size=1, padding=0), IMAGES, {"0": 3}),
        (Sequence().eval(), ROWS, {"wide": 4, "back": 7, "along": 6}),
    ],
)
def test_the_graph_is_that_of_the_factorized_network(
    model: nn.Module, inputs: tuple[Tensor, ...], ranks: dict[str, int]
) -> None:
    graph = trace(model, inputs, name="m")
    splits = [LayerSplit(*item) for item in ranks.items()]
    traced = trace(factorized(model, inputs, ranks, [inputs]), inputs, name="m")
    split = with_splits(graph, splits)
    assert computes_alike(split, traced)
    assert split.parameters == traced.parameters
    assert split.macs == traced.macs < graph.macs
    assert len(fuse(split)) == len(fuse(graph)) + len(ranks)
    assert graph == trace(model, inputs, name="m")


def test_without_splits_nothing_changes() -> None:
    graph = trace(images(), IMAGES, name="m")
    assert with_splits(graph, []) == graph
    assert with_splits(graph, [LayerSplit("elsewhere", 3)]) == graph


class Tied(nn.Module):
    """Layers that cannot be two: shared, called twice, grouped, and weights without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(12, 12), nn.Linear(12, 12)
        self.other.weight = self.one.weight
        self.twice = nn.Linear(12, 12)
        self.depthwise = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.weight = nn.Parameter(torch.randn(12, 12))
        self.free = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.other(self.one(x))))
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.free(nn.functional.linear(x, self.weight))


def test_only_layers_with_weights_of_their_own_can_be_split() -> None:
    graph = trace(Tied().eval(), ROWS, name="m")
    assert [op.layer for op in splittable_ops(graph)] == ["free"]


@given(
    shape=st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple),
)
def test_below_the_limit_weights_are_saved_and_above_not(shape: tuple[int, ...]) -> None:
    out, read = shape[0], math.prod(shape[1:])
    limit = split_limit(shape)
    assert limit * (out + read) < out * read or limit == 0
    assert (limit + 1) * (out + read) >= out * read
