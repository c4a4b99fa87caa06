"""``demo:digits`` read by three convolutions: ``benchmarks/tasks/three_layers.py:three_layers``.

Three groups of 24 channels and two precisions make few enough candidates to train every one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from depthwise_digits import trained_on_digits
from torch import Tensor, nn

from edgesdk.demo.digits import digits
from edgesdk.task import Task

_WIDTH = 24


class ThreeLayers(nn.Module):
    """Three 3x3 convolutions with batch norm and ReLU, the last two of stride 2, and a classifier:
    ``[N, 1, 8, 8]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, stride in ((1, 1), (_WIDTH, 2), (_WIDTH, 2)):
            convolution = nn.Conv2d(before, _WIDTH, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(_WIDTH), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[N, 10]``."""
        logits: Tensor = self.classifier(self.pool(self.layers(x)).flatten(1))
        return logits


def three_layers() -> Task:
    """Return the digits task with a network of three convolutions, 11 thousand parameters."""
    return replace(digits(), name="digits-three-layers", model=_trained())


@cache
def _trained() -> nn.Module:
    return trained_on_digits(ThreeLayers)
