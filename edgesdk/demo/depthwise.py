"""A small MobileNet (Howard et al. 2017): depthwise and pointwise convolutions, no shortcuts."""

from __future__ import annotations

from torch import Tensor, nn


class DepthwiseNet(nn.Module):
    """A strided stem, depthwise 3x3 and pointwise 1x1 convolutions, each with batch norm and ReLU,
    and a linear classifier: ``[N, channels, H, W]`` to logits ``[N, classes]``.

    ``blocks`` are (channels out, stride) of each depthwise and pointwise pair.
    """

    def __init__(
        self, *, channels: int, stem: int, blocks: tuple[tuple[int, int], ...], classes: int
    ) -> None:
        super().__init__()
        self.stem = _unit(channels, stem, kernel=3, stride=2)
        pairs, before = [], stem
        for after, stride in blocks:
            depth = _unit(before, before, kernel=3, stride=stride, groups=before)
            pairs.append(nn.Sequential(depth, _unit(before, after, kernel=1)))
            before = after
        self.body = nn.Sequential(*pairs)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[N, classes]``."""
        logits: Tensor = self.classifier(self.pool(self.body(self.stem(x))).flatten(1))
        return logits


def _unit(
    before: int, after: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(
        before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
