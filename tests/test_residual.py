"""Which modules count as residual blocks, and what a graph is without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shortcuts import IMAGES, Inside, Inverted, resnet
from torch import Tensor, nn

from edgesdk.graph import OpGraph
from edgesdk.residual import computes_alike, residual_blocks, without_blocks
from edgesdk.trace import trace


def graph_of(model: nn.Module) -> OpGraph:
    return trace(model.eval(), IMAGES, name="m")


def names(model: nn.Module) -> list[str]:
    return [block.name for block in residual_blocks(graph_of(model))]


def test_blocks_that_keep_their_shape_can_go() -> None:
    assert names(resnet((2, 3))) == ["stages.0.0", "stages.0.1", "stages.1.1", "stages.1.2"]


def test_a_sum_without_a_clamp_behind_it_is_one_too() -> None:
    assert names(Inside(Inverted(8, 12), nn.Conv2d(8, 8, 3), Inverted(8, 4))) == [
        "rest.0",
        "rest.2",
    ]


class Both(nn.Module):
    """Two sums in one module, as in a transformer's layer; neither has a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        return torch.relu(x + self.second(x))


def test_a_module_with_several_sums_goes_as_a_whole() -> None:
    assert names(Inside(Both())) == ["rest.0"]


class Nested(nn.Module):
    """A block whose branch holds another one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inverted(8, 4)
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.inner(x))


def test_of_nested_blocks_the_inner_one_counts() -> None:
    assert names(Inside(Nested())) == ["rest.0.inner"]


class Odd(nn.Module):
    """A module that looks like a residual block but for one thing."""

    def __init__(self, combine: Callable[[Odd, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.bias = nn.Parameter(torch.ones(8, 1, 1))
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self, x)


@pytest.mark.parametrize(
    "combine",
    [
        lambda self, x: self.conv(x),
        lambda self, x: self.other(x) + self.conv(x),
        lambda self, x: x * self.conv(x),
        lambda self, x: 0.5 * x + self.conv(x),
        lambda self, x: torch.add(x, self.conv(x), alpha=0.5),
        lambda self, x: torch.sigmoid(x + self.conv(x)),
        lambda self, x: x + self.bias,
        lambda self, x: x + x,
        lambda self, x: torch.relu(x),
        lambda self, x: torch.cat([x, x + self.conv(x)], 1)[:, :8] - self.conv(x),
    ],
    ids=[
        "no shortcut", "a projection", "a gate", "a scaled shortcut", "a scaled sum", "a sigmoid",
        "a bias", "a double", "only a clamp", "a mixture",
    ],
)  # fmt: skip
def test_what_only_looks_like_one_stays(combine: Callable[[Odd, Tensor], Tensor]) -> None:
    assert names(Inside(Odd(combine))) == []


def test_what_reads_the_input_or_gives_the_output_stays() -> None:
    blocks = [Inverted(3, 4) for _ in range(3)]
    assert names(nn.Sequential(*blocks)) == ["1"]


def test_without_blocks_readers_read_what_the_blocks_read() -> None:
    graph = graph_of(resnet((3,), (8,)))
    first, second, third = residual_blocks(graph)
    left = without_blocks(graph, [first, second])
    assert {op.name for op in graph.ops} - {op.name for op in left.ops} == first.ops | second.ops
    assert first.source in {name for op in left.ops if op.name in third.ops for name in op.inputs}
    assert left.parameters == graph.parameters - 2 * 2 * (8 * 8 * 9 + 4 * 8)


def test_a_reader_of_input_and_output_reads_one_tensor() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.head = nn.Conv2d(3, 8, 1), Inverted(8, 4), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            logits: Tensor = self.head((x + self.block(x)).mean((2, 3)))
            return logits

    model = Dense()
    graph = graph_of(model)
    (block,) = residual_blocks(graph)
    left = without_blocks(graph, [block])
    model.block = nn.Identity()  # type: ignore[assignment]
    assert computes_alike(left, graph_of(model))


def test_graphs_of_other_wiring_or_shape_are_not_alike() -> None:
    graph = graph_of(resnet((2,), (8,)))
    assert computes_alike(graph, graph)
    assert not computes_alike(graph, graph_of(resnet((2,), (4,))))
    first, second = residual_blocks(graph)
    assert not computes_alike(without_blocks(graph, [first]), without_blocks(graph, [second]))
    assert not computes_alike(graph, without_blocks(graph, [first]))
