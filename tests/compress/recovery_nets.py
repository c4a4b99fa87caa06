"""Small networks with batch norms that have seen data, and the data to calibrate them with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIZE = 10


class Depthwise(nn.Module):
    """Convolution, depthwise and pointwise convolutions, a flatten and two linear layers."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8))
        self.point = nn.Sequential(nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12))
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(12 * 4, 9)
        self.last = nn.Linear(9, 4)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.depth(self.act(self.stem(x))))
        y = self.pool(self.act(self.point(y))).flatten(1)
        logits: Tensor = self.last(self.act(self.hidden(y)))
        return logits


class Residual(nn.Module):
    """A residual block and a grouped convolution, joined by a sum and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.third = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8))
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(y + self.second(y))
        y = torch.cat([y, self.third(y)], 1)
        logits: Tensor = self.last(y.mean((2, 3)))
        return logits


def seen(net: nn.Module, *, seed: int = 0, spread: float = 1.0) -> Any:
    """Return the network with random weights and batch norms of uneven channels, in eval mode."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=random) / fan**0.5)
                if module.bias is not None:
                    module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=random))
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                shape = module.weight.shape
                module.weight.copy_((spread * torch.randn(shape, generator=random)).exp())
                module.bias.copy_(0.3 * torch.randn(shape, generator=random))
                module.running_mean.copy_(0.2 * torch.randn(shape, generator=random))
                module.running_var.copy_(torch.rand(shape, generator=random) + 0.5)
    return net.eval()


def images(count: int, *, seed: int = 1) -> Tensor:
    """Return images ``[N, 3, 10, 10]``."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def calibration(count: int = 32) -> list[tuple[Tensor, ...]]:
    """Return calibration samples, one a batch."""
    return [(image[None],) for image in images(count, seed=2)]


def run(net: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs, without a gradient."""
    with torch.no_grad():
        outputs: Tensor = net(inputs)
    return outputs
