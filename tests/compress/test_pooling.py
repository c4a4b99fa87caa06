"""Pooling windows that are larger than what they pool."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compress.pooling import fit_windows
from edgesdk.demo.digits import digits
from edgesdk.trace import trace

POOLS = {1: (nn.AvgPool1d, nn.MaxPool1d), 2: (nn.AvgPool2d, nn.MaxPool2d)}


def window_of(layer: Any) -> tuple[int, ...]:
    return tuple(torch.atleast_1d(torch.tensor(layer.kernel_size)).tolist())


@given(
    kind=st.sampled_from([(1, 0), (1, 1), (2, 0), (2, 1)]),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    window=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    stride=st.integers(1, 20),
    padding=st.integers(0, 3),
    counts_padding=st.booleans(),
)
def test_the_numbers_stay_and_no_window_is_larger_than_its_input(
    *, kind: tuple[int, int], sizes: tuple[int, int], window: tuple[int, int], stride: int,
    padding: int, counts_padding: bool,
) -> None:  # fmt: skip
    dimensions, which = kind
    padding = min(padding, min(window[:dimensions]) // 2)
    padded = [size + 2 * padding for size in sizes[:dimensions]]
    assume(all(p - w + stride >= 1 for p, w in zip(padded, window, strict=False)))  # else no output
    options: dict[str, Any] = {} if which else {"count_include_pad": counts_padding}
    layer = POOLS[dimensions][which](
        window[:dimensions], stride, padding, ceil_mode=True, **options
    )
    inputs = torch.randn(2, 3, *sizes[:dimensions])
    wanted = layer(inputs)
    fitted, names = fit_windows(nn.Sequential(layer), (inputs,))
    torch.testing.assert_close(fitted(inputs), wanted)
    assert all(w <= size for w, size in zip(window_of(fitted[0]), padded, strict=True))
    assert names == (("0",) if any(map(int.__gt__, window[:dimensions], padded)) else ())


def test_a_global_pooling_written_as_a_huge_window_becomes_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AvgPool2d(640, ceil_mode=True), nn.Flatten())
    inputs = torch.randn(1, 3, 7, 5)
    fitted, names = fit_windows(net, (inputs,))
    assert names == ("1",)
    assert net[1].kernel_size == 640
    torch.testing.assert_close(fitted(inputs), net(inputs))
    [pool] = [op for op in trace(fitted, (inputs,), name="net").ops if op.kind == "avg_pool2d"]
    assert pool.attributes["kernel_size"] == (5, 3)


def test_a_network_without_such_windows_is_itself() -> None:
    task = digits()
    assert fit_windows(task.model, task.example_inputs) == (task.model, ())


class Twice(nn.Module):
    """One pooling layer for images of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(6, 6, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(x) + self.pool(x[..., :4])
        return y


@pytest.mark.parametrize("layer", [Twice(), nn.MaxPool2d(2, dilation=9, padding=1)])
def test_what_cannot_be_told_stays(layer: nn.Module) -> None:
    fitted, names = fit_windows(layer, (torch.randn(1, 2, 8, 8),))
    assert (fitted, names) == (layer, ())
