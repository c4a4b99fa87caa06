"""Palettes of weights: what a table and places stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesdk.compress.fold import folded_weights
from edgesdk.compress.palette import decoded_weight, palettise
from edgesdk.errors import UnsupportedModel

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
bits = st.sampled_from([2, 4, 6, 8])


def weights(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(shapes, bits, st.integers(0, 2**32 - 1))
def test_every_weight_has_the_nearest_value_of_the_table(
    shape: tuple[int, ...], bits: int, seed: int
) -> None:
    weight = weights(shape, seed)
    palette = palettise(weight, bits)
    assert palette.table.shape == (2**bits,)
    assert bool((np.diff(palette.table) >= 0).all())
    halves = weight.astype(np.float16).astype(np.float64)
    distances = np.abs(halves[..., None] - palette.table.astype(np.float64))
    own = np.abs(halves - palette.decoded.astype(np.float64))
    assert np.array_equal(own, distances.min(axis=-1))


@given(shapes, bits, st.integers(0, 2**32 - 1))
def test_what_a_palette_stands_for_has_that_palette(
    shape: tuple[int, ...], bits: int, seed: int
) -> None:
    decoded = palettise(weights(shape, seed), bits).decoded
    assert np.array_equal(palettise(decoded, bits).decoded, decoded)


def test_few_values_stay_as_they_are() -> None:
    weight = np.array([[0.5, -1.0], [0.25, 0.5]], np.float32)
    palette = palettise(weight, 2)
    assert np.array_equal(palette.decoded, weight)
    assert palette.table.tolist() == [-1.0, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_channel_of_zeros_stays_one(axis: int) -> None:
    weight = np.abs(weights((40, 30, 3), 0)) + 0.1
    np.moveaxis(weight, axis, 0)[5] = 0
    palette = palettise(weight, 4, axis=axis)
    assert not np.moveaxis(palette.decoded, axis, 0)[5].any()
    assert len(np.unique(palette.table)) == 16


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e6])
def test_what_float16_cannot_hold_is_refused(value: float) -> None:
    weight = weights((4, 4, 1), 0)
    weight[1, 2] = value
    with pytest.raises(UnsupportedModel, match="not finite in float16"):
        palettise(weight, 4)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(8, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.second = nn.BatchNorm2d(12)
        for norm in (self.norm, self.second):
            nn.init.uniform_(norm.weight, -2, 2)
            nn.init.uniform_(norm.running_var, 0.1, 3)
        with torch.no_grad():
            self.norm.weight[3] = 0
            self.conv.weight[5] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(self.up(self.norm(self.conv(x)).relu()))
        return result


def test_a_norm_folded_into_the_weight_gives_what_the_palette_decodes_to() -> None:
    net, inputs = Normed().eval(), (torch.zeros(1, 8, 6, 6),)
    folded = folded_weights(net, inputs)
    assert set(folded) == {"conv", "up"}
    for name, axis in (("conv", 0), ("up", 1)):
        layer = net.get_submodule(name)
        wanted = palettise(folded[name].numpy(), 4, axis=axis).decoded
        with torch.no_grad():
            layer.weight.copy_(decoded_weight(layer.weight, 4, axis=axis, folded=folded[name]))
        found = folded_weights(net, inputs)[name]
        # Folding multiplies again what taking the norm out divided: exact once in float16.
        assert np.array_equal(found.numpy().astype(np.float16), wanted)
