"""Units of recurrent layers go, from their gates, their state and what reads them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgesdk.compress.prune import prune, survey_channels
from edgesdk.errors import UnsupportedModel
from edgesdk.plan import PrunedGroup
from edgesdk.planner.widths import measure_widths
from edgesdk.trace import trace

STEPS = (torch.linspace(-2, 2, 7 * 3).view(1, 7, 3),)
GONE = (1, 4, 5)


class Sequence(nn.Module):
    """Two recurrent layers in one module, read at the last step or all steps flattened."""

    def __init__(self, kind: type[nn.RNNBase], *, flatten: bool = False) -> None:
        super().__init__()
        self.cells = kind(3, 8, num_layers=2, batch_first=True)
        self.flatten = flatten
        self.head = nn.Linear(56 if flatten else 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cells(x)[0]
        return self.head(y.flatten(1) if self.flatten else y[:, -1])


class Stacked(nn.Module):
    """A recurrent layer that another one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(3, 8, batch_first=True), nn.GRU(8, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.relu(self.first(x)[0]))[0][:, -1])


def silenced(model: nn.Module, layer: str) -> nn.Module:
    """The model, changed in place: nothing reads those units of the recurrent layer."""
    with torch.no_grad():
        cells = model.get_submodule(layer)
        for name, weight in cells.named_parameters():
            if name.startswith("weight_hh") or name == "weight_ih_l1":
                weight[:, GONE] = 0
        reader = model.second.weight_ih_l0 if layer == "first" else model.head.weight  # type: ignore[union-attr]
        reader.view(reader.shape[0], -1, 8)[..., GONE] = 0  # type: ignore[operator, union-attr]
    return model


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (Sequence(nn.LSTM), "cells"),
        (Sequence(nn.GRU), "cells"),
        (Sequence(nn.GRU, flatten=True), "cells"),
        (Stacked(), "first"),
    ],
)
def test_units_that_nothing_reads_can_go(model: nn.Module, layer: str) -> None:
    model.eval()
    smaller = prune(model, STEPS, [PrunedGroup(layer=layer, width_before=8, removed=GONE)])
    assert smaller.get_submodule(layer).hidden_size == 5
    with torch.no_grad():
        expected = silenced(model, layer)(*STEPS)
        torch.testing.assert_close(smaller(*STEPS), expected, rtol=1e-4, atol=1e-6)


def test_a_recurrent_layer_is_priced_at_its_width() -> None:
    model = Stacked().eval()
    graph = trace(model, STEPS, name="m")
    groups = survey_channels(model, STEPS).groups
    assert [group.layer for group in groups] == ["first", "second"]
    widths, notes = measure_widths(model, STEPS, groups, graph)
    removed = [
        PrunedGroup(layer="first", width_before=8, removed=GONE),
        PrunedGroup(layer="second", width_before=4, removed=(3,)),
    ]
    assert not notes
    assert widths.at((5, 3)).macs == trace(prune(model, STEPS, removed), STEPS, name="m").macs


def test_two_directions_stay() -> None:
    model = Stacked()
    model.first, model.second = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.GRU(8, 4)
    assert "two directions" in survey_channels(model, STEPS).refused["first"]
    with pytest.raises(UnsupportedModel):
        prune(model, STEPS, [PrunedGroup(layer="first", width_before=4, removed=(0,))])
