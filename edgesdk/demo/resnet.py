"""Residual networks for small images (He et al. 2016, section 4.2), written to be pruned."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: ``[N, C, H, W]`` to ``[N, width, H/stride, W/stride]``.

    Where shape changes, the shortcut is a 1x1 convolution that starts as the paper's option A
    (every second pixel, new channels zero, half of them on each side). It computes exactly the
    same as slicing and padding, but has weights, so its channels can be pruned with the block's.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut.weight.data = _option_a(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output ``[N, width, H/stride, W/stride]``."""
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return out


def _option_a(channels: int, width: int) -> Tensor:
    """Return 1x1 weights ``[width, channels, 1, 1]`` that centre the channels among zeros."""
    weight = torch.zeros(width, channels, 1, 1)
    first = (width - channels) // 2
    weight[first : first + channels, :, 0, 0] = torch.eye(channels)
    return weight


class ResNet(nn.Module):
    """A stem, one stage of blocks per width and a linear classifier: ``[N, C, H, W]`` to logits.

    Every stage after the first halves height and width. ``blocks=(3, 3, 3)`` and
    ``widths=(16, 32, 64)`` is ResNet-20, ``(9, 9, 9)`` ResNet-56.
    """

    def __init__(
        self, *, channels: int, widths: tuple[int, ...], blocks: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages, before = [], widths[0]
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            first = Block(before, width, 1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(Block(width, width, 1) for _ in range(count - 1))))
            before = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[N, classes]`` for images ``[N, channels, H, W]``."""
        y = self.stages(self.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.linear(self.pool(y).flatten(1))
        return logits
