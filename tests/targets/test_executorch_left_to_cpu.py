"""What profiles say XNNPACK leaves to the CPU is what its partitioner really leaves."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgesdk.device_files import load_device, profile_names

X = torch.randn(1, 8, 8, 8)
INDICES = torch.randint(0, 8, (1, 8))
Function = Callable[..., torch.Tensor]

# Each kind of operator alone, or between two others where nothing would be left to compute.
LEFT: dict[str, tuple[Function, tuple[torch.Tensor, ...]]] = {
    "chunk": (lambda x: x.chunk(2, 1)[0].exp(), (X,)),
    "elu": (functional.elu, (X,)),
    "embedding": (nn.Embedding(8, 8), (INDICES,)),
    "flip": (lambda x: x.flip(2), (X,)),
    "gather": (lambda x, i: x[0, 0].gather(1, i), (X, INDICES)),
    "group_norm": (nn.GroupNorm(2, 8), (X,)),
    "index_select": (lambda x, i: x.index_select(1, i[0]), (X, INDICES)),
    "layer_norm": (nn.LayerNorm(8), (X,)),
    "log_softmax": (lambda x: functional.log_softmax(x, 1), (X,)),
    "masked_fill": (lambda x: x.masked_fill(x > 0, 1.0), (X,)),
    "mish": (functional.mish, (X,)),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), (X,)),
    "roll": (lambda x: x.roll(1, 2), (X,)),
    "select": (lambda x: x[:, 0].exp(), (X,)),
    "softplus": (functional.softplus, (X,)),
    "split": (lambda x: x.split(4, 1)[1].exp(), (X,)),
    "split_with_sizes": (lambda x: x.split([3, 5], 1)[1].exp(), (X,)),
    "sum": (lambda x: x.sum(-1), (X,)),
    "upsample_nearest2d": (lambda x: functional.interpolate(x, scale_factor=2), (X,)),
    "where": (lambda x: torch.where(x > 0, x, x.exp()), (X,)),
}
TAKEN: dict[str, Function] = {
    "conv2d": nn.Conv2d(8, 8, 3),
    "linear": nn.Linear(8, 8),
    "gelu": functional.gelu,
    "hardswish": functional.hardswish,
    "max_pool2d": lambda x: functional.max_pool2d(x, 2),
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softmax": lambda x: functional.softmax(x, -1),
    "tanh": torch.tanh,
    "upsample_bilinear2d": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
}


class _Alone(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def left_over(function: Function, inputs: tuple[torch.Tensor, ...]) -> list[str]:
    """Return the operators that the partitioner left outside the delegate."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(_Alone(function).eval(), inputs)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    calls = [n for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    names = [str(getattr(node.target, "__name__", node.target)) for node in calls]
    return [n for n in names if "getitem" not in n and "delegate" not in n and "dim_order" not in n]


def stated() -> set[tuple[str, ...]]:
    """Return what each ExecuTorch runtime of any packaged profile says."""
    return {
        runtime.cpu_operators
        for name in profile_names()
        for runtime in load_device(name).runtime
        if (runtime.target, runtime.delegate) == ("executorch", "xnnpack")
    }


def test_every_profile_says_the_same_of_one_delegate() -> None:
    assert stated() == {tuple(sorted(LEFT))}


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_is_not_delegated(kind: str) -> None:
    assert left_over(*LEFT[kind]) != []


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_not_listed_is_delegated(kind: str) -> None:
    assert left_over(TAKEN[kind], (X,)) == []
