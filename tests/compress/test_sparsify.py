"""Half of every output channel's weights at zero, by magnitude."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgesdk.compress.fold import folded_weights
from edgesdk.compress.palette import decoded_weight, palettise
from edgesdk.compress.sparsify import kept_weights, sparse_weight


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.sampled_from([0, 1]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_the_larger_half_of_each_channel_stays(
    shape: list[int], axis: int, is_coarse: bool, seed: int
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if is_coarse:  # many of equal magnitude, and zeros
        weight = weight.round()
    found = sparse_weight(weight, axis=axis)
    kept = found != 0
    assert torch.equal(found[kept], weight[kept])
    rows, before = (t.movedim(axis, 0).reshape(shape[axis], -1) for t in (found, weight))
    for row, own in zip(rows, before, strict=True):
        assert int((row == 0).sum()) == max(len(row) // 2, int((own == 0).sum()))
        assert row[row != 0].abs().tolist() == [] or (
            float(row[row != 0].abs().min()) >= max(own[row == 0].abs().tolist(), default=0.0)
        )
    most = kept_weights(shape, axis=axis)
    assert int(kept.sum()) == most or (bool((weight == 0).any()) and int(kept.sum()) < most)
    assert torch.equal(sparse_weight(found, axis=axis), found)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_batch_norm_behind_a_layer_changes_nothing(axis: int) -> None:
    torch.manual_seed(0)
    layer: nn.Module = nn.ConvTranspose2d(6, 8, 3) if axis else nn.Conv2d(6, 8, 3)
    net = nn.Sequential(layer, nn.BatchNorm2d(8)).eval()
    nn.init.uniform_(net[1].weight, -3, 3)
    inputs = (torch.randn(1, 6, 5, 5),)
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    folded = folded_weights(net, inputs)["0"]
    zeros = sparse_weight(weight, axis=axis) == 0
    assert torch.equal(sparse_weight(folded, axis=axis) == 0, zeros)


def test_zeros_have_no_say_in_the_table() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    sparse = sparse_weight(weight, axis=0)
    decoded = decoded_weight(sparse, 4, axis=0, zeros_apart=True)
    assert torch.equal(decoded == 0, sparse == 0)
    assert len(decoded[decoded != 0].unique()) == 16
    among = decoded_weight(sparse, 4, axis=0)
    lost = [float((found - sparse).square().sum()) for found in (decoded, among)]
    assert lost[0] < lost[1]


def test_a_palette_of_zeros_alone_decodes_to_zeros() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert np.array_equal(palettise(zeros, 4, zeros_apart=True).decoded, zeros)
