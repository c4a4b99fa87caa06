"""``timm:NAME``, with a stand-in for the package, which nothing here requires."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from torch import Tensor, nn

from edgesdk.errors import TaskError
from edgesdk.task_check import check_task
from edgesdk.task_source import load_task


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {
            "input_size": (3, 16, 16),
            "mean": (0.5,) * 3,
            "std": (0.2,) * 3,
        }
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image).mean((2, 3))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    asked: list[bool] = []

    def create(name: str, *, pretrained: bool) -> nn.Module:
        asked.append(pretrained)
        return Network()

    module = ModuleType("timm")
    module.__dict__.update(
        __version__="1.0",
        create_model=create,
        is_model=lambda name: name == "resnet18",
        list_models=lambda: ["resnet18"],
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    return asked


def test_the_network_has_random_weights_and_says_so(timm: list[bool]) -> None:
    task = load_task("timm:resnet18")
    check_task(task)
    assert task.name == "resnet18 (random weights)"
    assert timm == [False]
    assert task.inputs[0].mean == (0.5,) * 3


def test_an_unknown_network_names_the_near_one(timm: list[bool]) -> None:
    with pytest.raises(TaskError) as caught:
        load_task("timm:resnet81")
    assert caught.value.next_step == "did you mean resnet18?"


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TaskError, match="timm cannot be imported"):
        load_task("timm:resnet18")
