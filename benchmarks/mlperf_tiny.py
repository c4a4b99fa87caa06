"""The four MLPerf Tiny reference networks, rebuilt from github.com/mlcommons/tiny @ 1afd2c98.

Architectures only (benchmark/training/*/), with random weights: what a cost model needs. Keras pads
"same" at the right and bottom; the explicit padding here gives the same output sizes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from edgesdk.graph import OpGraph
from edgesdk.trace import trace


def reference_graphs() -> dict[str, OpGraph]:
    """Return the graph of each network under the name that the published results use."""
    networks: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "ad01_int8": (_autoencoder(), (1, 640)),
        "kws_ref_model": (_depthwise_separable_cnn(), (1, 1, 49, 10)),
        "pretrainedResnet_quant": (_ResNet8(), (1, 3, 32, 32)),
        "vww_96_int8": (_mobilenet_quarter(), (1, 3, 96, 96)),
    }
    return {
        name: trace(network.eval(), (torch.zeros(shape),), name=name)
        for name, (network, shape) in networks.items()
    }


def _autoencoder() -> nn.Module:
    """Anomaly detection: fully connected 640-128x4-8-128x4-640."""
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    hidden = [
        layer
        for before, after in pairwise(widths)
        for layer in (nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(128, 640))


def _depthwise_separable_cnn() -> nn.Module:
    """Keyword spotting: DS-CNN of 64 channels on 49 x 10 MFCCs."""
    blocks = [layer for _ in range(4) for layer in _separable(64, 64, stride=1)]
    stem = [nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, *_head(64, 12))


def _mobilenet_quarter() -> nn.Module:
    """Visual wake words: MobileNetV1 0.25 at 96 x 96."""
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    widths = [8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256]
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    blocks = [
        layer
        for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        for layer in _separable(before, after, stride)
    ]
    return nn.Sequential(*stem, *blocks, *_head(256, 2))


def _separable(before: int, after: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
    pointwise = nn.Conv2d(before, after, 1, bias=False)
    return [
        *(depthwise, nn.BatchNorm2d(before), nn.ReLU()),
        *(pointwise, nn.BatchNorm2d(after), nn.ReLU()),
    ]


def _head(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes), nn.Softmax(1)]


class _ResNet8(nn.Module):
    """Image classification: three residual stacks of 16, 32 and 64 channels on 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        widths, strides = [16, 16, 32, 64], [1, 2, 2]
        steps = list(zip(widths[:-1], widths[1:], strides, strict=True))
        self.residuals = nn.ModuleList(self._residual(*step) for step in steps)
        self.shortcuts = nn.ModuleList(
            nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride)
            for before, after, stride in steps
        )
        self.head = nn.Sequential(*_head(64, 10))

    @staticmethod
    def _residual(before: int, after: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1),
            nn.BatchNorm2d(after),
        )

    def forward(self, image: Tensor) -> Tensor:
        state = self.stem(image)
        for residual, shortcut in zip(self.residuals, self.shortcuts, strict=True):
            state = torch.relu(residual(state) + shortcut(state))
        scores: Tensor = self.head(state)
        return scores
