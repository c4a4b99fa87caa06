"""Convolutional networks that Qualcomm AI Hub measures and no library builds: FFNet and MiDaS.

Written from the papers and from the sizes that their authors publish; random weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps its padding, a batch norm and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build the block; the shortcut has a convolution where the shape changes."""
        super().__init__()
        self.first = conv_norm_relu(inputs, outputs, 3, stride)
        self.second = conv_norm_relu(outputs, outputs, 3)[:2]
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = conv_norm_relu(inputs, outputs, 1, stride)[:2]

    def forward(self, image: Tensor) -> Tensor:
        """Return the block's features."""
        return functional.relu(self.shortcut(image) + self.second(self.first(image)))


class FFNet(nn.Module):
    """FFNet (Mehta et al. 2022, arXiv 2206.08236): a plain ResNet and an up-sampling head."""

    def __init__(
        self,
        stem: Sequence[tuple[int, int]],
        stages: Sequence[tuple[int, int, int]],
        adapters: Sequence[int],
        scales: Sequence[int],
        head: tuple[int, int],
        *,
        halves_input: bool = False,
    ) -> None:
        """Build it; ``stem`` is (channels, stride), ``stages`` (channels, blocks, stride).

        ``adapters`` and ``scales`` are the head's channels from the finest scale to the coarsest,
        before and after it merges them; ``head`` the last layer's channels and second kernel.
        """
        super().__init__()
        self.smoothing = (
            nn.Conv2d(3, 3, 5, 2, (2, 1), groups=3, bias=False) if halves_input else None
        )
        channels = 3
        layers = []
        for outputs, stride in stem:
            layers.append(conv_norm_relu(channels, outputs, 3, stride))
            channels = outputs
        self.stem = nn.Sequential(*layers)
        widths = [channels] if len(stages) == 3 else []
        self.stages = nn.ModuleList()
        for outputs, blocks, stride in stages:
            stage = [
                BasicBlock(channels if not index else outputs, outputs, 1 if index else stride)
                for index in range(blocks)
            ]
            self.stages.append(nn.Sequential(*stage))
            channels = outputs
            widths.append(channels)
        self.adapters = nn.ModuleList(
            conv_norm_relu(width, adapter, 1)
            for width, adapter in zip(widths, adapters, strict=True)
        )
        self.smooth = nn.ModuleList(
            conv_norm_relu(adapter, scale, 3)
            for adapter, scale in zip(adapters, scales, strict=True)
        )
        self.up = nn.ModuleList(
            conv_norm_relu(adapters[i], adapters[i - 1], 1) for i in range(1, len(adapters))
        )
        mid, kernel = head
        self.head = nn.Sequential(
            nn.Conv2d(sum(scales), mid, 3, padding=1),
            nn.BatchNorm2d(mid),
            nn.ReLU(),
            nn.Conv2d(mid, 19, kernel, padding=kernel // 2),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores of 19 classes at a quarter (or an eighth) of the image's size."""
        if self.smoothing is not None:
            image = self.smoothing(image)
        features = self.stem(image)
        found = [features] if len(self.stages) == 3 else []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        adapted = [adapter(x) for adapter, x in zip(self.adapters, found, strict=True)]
        merged = adapted[-1]
        scales = [self.smooth[-1](merged)]
        for index in range(len(adapted) - 2, -1, -1):
            merged = _resized(self.up[index](merged), adapted[index]) + adapted[index]
            scales.insert(0, self.smooth[index](merged))
        finest = scales[0]
        for coarse in scales[1:]:
            finest = torch.cat([finest, _resized(coarse, scales[0])], dim=1)
        scores: Tensor = self.head(finest)
        return scores


def _resized(image: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(image, like.shape[2:], mode="bilinear", align_corners=False)


def ffnet_s(blocks: Sequence[int]) -> FFNet:
    """Return the S variant with its dBBB head, whose first stage halves the image too."""
    widths = (64, 128, 192, 320)
    return FFNet(
        [(32, 2), (64, 2)],
        [(width, count, 2) for width, count in zip(widths, blocks, strict=True)],
        (64, 128, 128, 256),
        (96, 96, 64, 32),
        (256, 3),
    )


def ffnet_s_lowres(blocks: Sequence[int]) -> FFNet:
    """Return the S variant with its BCC head."""
    widths, strides = (64, 128, 192, 320), (1, 2, 2, 2)
    stages = [
        (width, count, stride) for width, count, stride in zip(widths, blocks, strides, strict=True)
    ]
    return FFNet(
        [(32, 2), (64, 2)],
        stages,
        (128, 128, 128, 128),
        (128, 16, 16, 16),
        (128, 1),
        halves_input=True,
    )


def ffnet_ns_lowres(blocks: Sequence[int]) -> FFNet:
    """Return the NS variant with its CCC head."""
    widths = (64, 128, 256)
    return FFNet(
        [(64, 2), (64, 2), (64, 1)],
        [(width, count, 2) for width, count in zip(widths, blocks, strict=True)],
        (128, 128, 128, 128),
        (128, 16, 16, 16),
        (128, 1),
        halves_input=True,
    )


class _Refine(nn.Module):
    """A fusion block of MiDaS: residual units, twice the size, half the channels."""

    def __init__(self, channels: int, outputs: int, *, skips: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(2 if skips else 1)
        )
        self.project = nn.Conv2d(channels, outputs, 1)

    def forward(self, image: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            image = image + skip + self.units[1](skip)
        image = image + self.units[0](image)
        image = functional.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=True)
        projected: Tensor = self.project(image)
        return projected


class Midas(nn.Module):
    """MiDaS v2.1 small (Ranftl et al. 2022, arXiv 1907.01341) on four scales of a backbone."""

    def __init__(self, backbone: nn.Module, widths: Sequence[int]) -> None:
        """Build the decoder for a backbone that returns features of these channels."""
        super().__init__()
        self.backbone = backbone
        features = (64, 128, 256, 512)
        self.reduce = nn.ModuleList(
            nn.Conv2d(width, feature, 3, padding=1, bias=False)
            for width, feature in zip(widths, features, strict=True)
        )
        self.refine = nn.ModuleList(
            _Refine(feature, max(feature // 2, 64), skips=feature != features[-1])
            for feature in features
        )
        self.first = nn.Conv2d(64, 32, 3, padding=1)
        self.last = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.ReLU()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return inverse depth, as large as the image."""
        scales = [
            conv(feature) for conv, feature in zip(self.reduce, self.backbone(image), strict=True)
        ]
        path = self.refine[3](scales[3])
        for index in (2, 1, 0):
            path = self.refine[index](path, scales[index])
        path = functional.interpolate(
            self.first(path), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        depth: Tensor = self.last(path)
        return depth
