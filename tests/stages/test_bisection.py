"""A file that goes wrong at one layer: the error names it, on real converters and runtimes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edgesdk
from edgesdk.compressed import CompressedModel
from edgesdk.errors import ParityError
from edgesdk.stages import bisection
from edgesdk.target import find_target
from edgesdk.task import Task


class Block(nn.Module):
    """Two convolutions and a skip, so that layers end inside and behind a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(image + self.second(torch.relu(self.first(image))))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), Block(8), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()  # fmt: skip


def task() -> Task:
    torch.manual_seed(1)
    images = torch.randn(32, 1, 8, 8)
    return Task(
        name="blocks",
        model=network(),
        example_inputs=(images[:1],),
        calibration=lambda: [(images,)],
    )


def breaking(layer: str) -> Callable[[CompressedModel], CompressedModel]:
    """Return what a converter does that gets one layer wrong."""

    def broken(model: CompressedModel) -> CompressedModel:
        names = dict(model.module.named_modules())
        found = next((m for name, m in names.items() if name.endswith(layer)), None)
        if found is None:
            return model
        with torch.no_grad():
            found.weight.copy_(torch.randn_like(found.weight))  # type: ignore[operator, arg-type]
        return model

    return broken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "layer", "before"),
    [
        ("executorch", "0", ""),
        ("executorch", "2.second", "2.first"),
        ("tflite", "2.first", "1"),
        ("tflite", "5", "4"),
    ],
)
def test_the_layer_that_a_converter_gets_wrong_is_named(
    target: str, layer: str, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(find_target(target))
    emit, broken = kind.emit, breaking(layer)

    def wrong(self: Any, model: CompressedModel, runtime: Any, folder: Path) -> Any:
        copy = bisection.copy.deepcopy(model.module)
        return emit(self, broken(replace(model, module=copy)), runtime, folder)

    monkeypatch.setattr(kind, "emit", wrong)
    monkeypatch.setattr(kind, "checks", lambda *_: ())
    with pytest.raises(ParityError, match="does not follow the model it was made of") as caught:
        edgesdk.compile(
            task(), device="host", target=target, out=tmp_path / "out", cache=tmp_path / "cache"
        )
    assert f"it goes wrong at layer '{layer}'" in caught.value.found
    assert (f"behind '{before}'" in caught.value.found) == bool(before)
    assert not (tmp_path / "out").exists()
