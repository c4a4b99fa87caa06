"""Exporting a module: what cannot be, and the layer and line it is in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.export import export_model
from edgesdk.trace import trace


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen[1:] += 1
        return x + self.seen.sum()


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 3).mul_(2)


class OwnMemory(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        y[:, 0] = 0
        return y.relu_()


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Counter(), ["buffer 'inner.seen'", "layer inner", "self.seen[1:] += 1"]),
        (Doubled(), ["input 'input", "layer inner", "x.view(-1, 3).mul_(2)"]),
    ],
)
def test_a_forward_that_changes_what_it_was_given_is_refused(
    layer: nn.Module, words: list[str]
) -> None:
    model = nn.Sequential()
    model.add_module("inner", layer)
    with pytest.raises(UnsupportedModel) as caught:
        export_model(model, (torch.ones(2, 3),))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_forward_may_change_what_it_made_itself() -> None:
    assert trace(OwnMemory(), (torch.ones(2, 3),), name="own").ops


def test_a_forward_that_raises_is_the_users_error() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(TaskError, match=r"RuntimeError.*layer 1 \(Linear\).*\[1, 3, 4\]"):
        export_model(model, (torch.zeros(1, 3, 4),))


class Returning(nn.Module):
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> object:
        return self.result


@pytest.mark.parametrize("result", [None, {"logits": torch.zeros(1)}, (), ("a", "b")])
def test_outputs_are_tensors(result: object) -> None:
    with pytest.raises(TaskError, match="Expected: a tensor"):
        export_model(Returning(result), (torch.zeros(1, 3),))


def test_a_model_that_cannot_be_copied() -> None:
    model = nn.Linear(3, 3)
    model.cached = model(torch.zeros(1, 3))  # type: ignore[assignment]
    with pytest.raises(UnsupportedModel, match="cannot be copied"):
        export_model(model, (torch.zeros(1, 3),))
