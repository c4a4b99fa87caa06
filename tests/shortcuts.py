"""Small networks with shortcuts: some blocks of theirs can go, others cannot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgesdk.demo.resnet import ResNet

IMAGES = (torch.zeros(1, 3, 12, 12),)


def resnet(blocks: tuple[int, ...] = (2, 2), widths: tuple[int, ...] = (8, 16)) -> ResNet:
    """Return a residual network with random weights; the first block of each stage but the first
    changes the shape."""
    return stirred(ResNet(channels=3, widths=widths, blocks=blocks, classes=4))


def stirred(net: ResNet) -> ResNet:
    """Return the network with batch norms of uneven channels, in eval mode."""
    random = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.5, 1.5, generator=random)
    return net.eval()


class Inverted(nn.Module):
    """Expand, filter channel by channel, project, and add: without a clamp behind (MobileNetV2)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
            nn.ReLU6(),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Inside(nn.Module):
    """A stem, some modules in a row, and a classifier."""

    def __init__(self, *modules: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.rest = nn.Sequential(*modules)
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rest(torch.relu(self.stem(x))).mean((2, 3)))
        return logits
