"""Layers of the field's own that pruning knows: each is cut as what it computes asks for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgesdk.compress.narrowing import narrow_layer
from edgesdk.compress.prune import prune, survey_channels
from edgesdk.plan import PrunedGroup

IMAGE = (torch.linspace(-1, 1, 3 * 6 * 6).view(1, 3, 6, 6),)
ROW = (torch.linspace(-1, 1, 8).view(1, 8),)
GONE, KEPT = (1, 2, 5), (0, 3, 4, 6, 7)


class ScaledRMSNorm(nn.Module):
    """As language models write it themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class StandardisedConv(nn.Conv2d):
    """BiT's: each filter has mean 0 and deviation 1 before it is used."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (self.weight.std((1, 2, 3), keepdim=True) + 1e-6)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class FrozenBatchNorm2d(nn.Module):
    """A detector's: statistics and scales are buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (b.view(1, -1, 1, 1) for b in self.buffers())
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + bias - mean * scale


def chain(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("norm", [ScaledRMSNorm(8), nn.RMSNorm(8)])
def test_a_norm_over_all_channels_goes_on_over_those_that_stay(norm: nn.Module) -> None:
    model = chain(nn.Linear(8, 8), norm, nn.Linear(8, 3))
    smaller = prune(model, ROW, [PrunedGroup(layer="0", width_before=8, removed=GONE)])
    first, _, last = model
    with torch.no_grad():
        y = first(*ROW)[:, KEPT]
        y = norm.weight[list(KEPT)] * y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)  # type: ignore[index, operator]
        expected = y @ last.weight[:, KEPT].T + last.bias
        torch.testing.assert_close(smaller(*ROW), expected, rtol=1e-4, atol=1e-5)


def test_a_standardised_filter_is_standardised_without_what_it_no_longer_reads() -> None:
    model = chain(nn.Conv2d(3, 8, 1), nn.ReLU(), StandardisedConv(8, 4, 3, padding=1))
    smaller = prune(model, IMAGE, [PrunedGroup(layer="0", width_before=8, removed=GONE)])
    last = model[2]
    with torch.no_grad():
        y = F.relu(model[0](*IMAGE))[:, KEPT]
        weight = last.weight[:, KEPT]
        mean, deviation = weight.mean((1, 2, 3), True), weight.std((1, 2, 3), keepdim=True)
        expected = F.conv2d(y, (weight - mean) / (deviation + 1e-6), last.bias, padding=1)
        torch.testing.assert_close(smaller(*IMAGE), expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_norm_loses_its_statistics_too() -> None:
    model = chain(nn.Conv2d(3, 8, 1), FrozenBatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    smaller = prune(model, IMAGE, [PrunedGroup(layer="0", width_before=8, removed=GONE)])
    assert {len(buffer) for buffer in smaller[1].buffers()} == {5}  # type: ignore[index]
    with torch.no_grad():
        model[3].weight[:, GONE] = 0
        torch.testing.assert_close(smaller(*IMAGE), model(*IMAGE), rtol=1e-4, atol=1e-5)


def test_the_linear_layer_of_gpt2_is_cut_on_its_other_side() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    model = chain(nn.Linear(8, 4), conv1d(8, 4), nn.GELU(), conv1d(4, 8), nn.Linear(4, 2))
    smaller = prune(model, ROW, [PrunedGroup(layer="1", width_before=8, removed=GONE)])
    assert (smaller[1].nf, smaller[3].nx, smaller[1].weight.shape) == (5, 5, (4, 5))  # type: ignore[index]
    with torch.no_grad():
        model[3].weight[list(GONE)] = 0
        torch.testing.assert_close(smaller(*ROW), model(*ROW), rtol=1e-4, atol=1e-5)


class Remembering(nn.Module):
    """Keeps in eval mode what it once computed from its weights, as LeViT's attentions do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.rand(8))
        self.kept: Tensor | None = None

    def train(self, mode: bool = True) -> Remembering:
        if mode:
            self.kept = None
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.scale * 2
        return self.last(self.first(x) * self.kept)


def test_what_a_module_remembers_of_its_weights_is_forgotten() -> None:
    model = Remembering().eval()
    with torch.no_grad():
        model(*ROW)
    (group,) = survey_channels(model, ROW).groups
    smaller = prune(model, ROW, [PrunedGroup(layer="first", width_before=8, removed=GONE)])
    assert group.layer == "first"
    with torch.no_grad():
        model.last.weight[:, GONE] = 0
        torch.testing.assert_close(smaller(*ROW), model(*ROW), rtol=1e-4, atol=1e-5)


def test_a_narrowed_norm_gives_zero_for_what_it_leaves_out() -> None:
    norm = ScaledRMSNorm(8)
    narrow_layer(norm, list(GONE))
    with torch.no_grad():
        found = norm(torch.ones(2, 3, 8))
    assert found[..., GONE].abs().max() == 0
    torch.testing.assert_close(found[0, 0, KEPT], torch.linspace(0.5, 1.5, 8)[list(KEPT)])
