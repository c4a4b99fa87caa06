"""Copies that share weights: what is named is their own, and nothing reaches the original."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgesdk.compress.shared_copy import shared_copy


class Tied(nn.Module):
    """A decoder that reads with its encoder's weights, and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 4)
        self.last.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(4))


def test_parameters_are_shared_and_buffers_are_not() -> None:
    model = Tied()
    copied = shared_copy(model)
    assert all(a is b for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    assert copied.norm.running_mean is not model.norm.running_mean
    copied.norm.running_mean += 1
    assert not model.norm.running_mean.any()


def test_what_is_assigned_to_the_copy_stays_there() -> None:
    model = Tied()
    shared_copy(model).first.bias = nn.Parameter(torch.zeros(4))
    assert model.first.bias.any()


def test_named_layers_and_parameters_are_the_copys_own() -> None:
    model = Tied()
    before = copy.deepcopy(model.state_dict())
    copied = shared_copy(model, {"norm", "scale", "last"})
    with torch.no_grad():
        for parameter in (copied.norm.weight, copied.scale, copied.last.weight):
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert copied.last.weight is copied.first.weight, "tied weights stay tied"
    assert copied.first.bias is model.first.bias


def test_a_layer_by_itself_is_named_by_the_empty_path() -> None:
    layer = nn.Linear(2, 2)
    assert shared_copy(layer, [""]).weight is not layer.weight
    assert shared_copy(layer).weight is layer.weight
