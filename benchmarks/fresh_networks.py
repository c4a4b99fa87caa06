"""Networks that neither calibration nor whoever developed it looked at: for the judgement alone.

They are of other families than ``host_networks.py``'s. Whoever changes the cost model because of
one of them names it in ``SEEN``, and adds another here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from host_networks import Network, image, vision
from torch import Tensor, nn
from torch.nn import functional

SEEN = frozenset({"densenet", "efficientnet", "squeezenet", "u_net"})
"""They showed what was wrong (clamps taken for concatenations, a pooling window far larger than its
input), so they judge calibration no longer."""


def fresh_networks() -> dict[str, Callable[[], Network]]:
    """Return a builder for each network, by name."""
    return {
        "u_net": lambda: image(UNet((16, 32, 64)), 3, 64),
        "tcn": lambda: Network(module=Tcn(32, 48, 4).eval(), inputs=(torch.randn(1, 32, 128),)),
        "ecg_resnet": lambda: Network(
            module=WaveResNet((24, 40, 64)).eval(), inputs=(torch.randn(1, 1, 1000),)
        ),
        "densenet": lambda: image(DenseNet(growth=12, layers=4, blocks=3), 3, 48),
        "squeezenet": lambda: image(SqueezeNet(), 3, 96),
        "shufflenet": lambda: image(ShuffleNet((24, 58, 116)), 3, 96),
        "mixer": lambda: image(Mixer(patches=49, width=96, depth=4), 3, 56),
        "super_resolution": lambda: image(SuperResolution(), 1, 48),
        "keypoints": lambda: image(Keypoints(), 3, 64),
        "mobilevit": lambda: vision(
            "MobileViT", 96, image_size=96, hidden_sizes=[48, 64, 80],
            neck_hidden_sizes=[8, 16, 24, 40, 48, 56, 160],
        ),
        "efficientnet": lambda: vision(
            "EfficientNet", 96, width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640
        ),
        "focalnet": lambda: vision(
            "FocalNet", 64, image_size=64, embed_dim=32, depths=[1, 1, 2, 1],
        ),
    }  # fmt: skip


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with nearest upsampling: an image to a map of 4 classes."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(_block(before, after), _block(after, after))
            for before, after in pairwise((3, *widths))
        )
        self.up = nn.ModuleList(
            _block(before + after, after) for after, before in reversed(list(pairwise(widths)))
        )
        self.head = nn.Conv2d(widths[0], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for block, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        answer: Tensor = self.head(x)
        return answer


class Tcn(nn.Module):
    """A temporal convolutional network (Bai et al. 2018): causal, dilated, residual."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, width, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, dilation=2**index) for index in range(depth)
        )
        self.head = nn.Linear(width, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for index, layer in enumerate(self.layers):
            x = torch.relu(x + layer(functional.pad(x, (2 * 2**index, 0))))
        answer: Tensor = self.head(x.mean(-1))
        return answer


class WaveResNet(nn.Module):
    """A residual network of 1-D convolutions, as used on electrocardiograms."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, widths[0], 15, 2, 7)
        pairs = list(pairwise((widths[0], *widths)))
        self.main = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(before, after, 7, 2, 3), nn.ReLU(), nn.Conv1d(after, after, 7, 1, 3)
            )
            for before, after in pairs
        )
        self.short = nn.ModuleList(nn.Conv1d(before, after, 1, 2) for before, after in pairs)
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for main, short in zip(self.main, self.short, strict=True):
            x = torch.relu(main(x) + short(x))
        answer: Tensor = self.head(x.mean(-1))
        return answer


class DenseNet(nn.Module):
    """DenseNet (Huang et al. 2017) of a few layers, its norms after the convolutions."""

    def __init__(self, *, growth: int, layers: int, blocks: int) -> None:
        super().__init__()
        width = 2 * growth
        self.first = _block(3, width)
        self.blocks, self.shrink = nn.ModuleList(), nn.ModuleList()
        for _ in range(blocks):
            self.blocks.append(
                nn.ModuleList(_block(width + i * growth, growth) for i in range(layers))
            )
            width += layers * growth
            self.shrink.append(nn.Conv2d(width, width // 2, 1))
            width //= 2
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block, shrink in zip(self.blocks, self.shrink, strict=True):
            for layer in block:
                x = torch.cat([x, layer(x)], 1)
            x = functional.avg_pool2d(torch.relu(shrink(x)), 2)
        answer: Tensor = self.head(x.mean((2, 3)))
        return answer


class Fire(nn.Module):
    """A fire module of SqueezeNet (Iandola et al. 2016)."""

    def __init__(self, before: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, narrow, 1)
        self.point, self.square = nn.Conv2d(narrow, wide, 1), nn.Conv2d(narrow, wide, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.point(x)), torch.relu(self.square(x))], 1)


class SqueezeNet(nn.Sequential):
    """SqueezeNet with six fire modules and a convolution as its head."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 48, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            Fire(48, 16, 48), Fire(96, 16, 48), nn.MaxPool2d(3, 2),
            Fire(96, 24, 96), Fire(192, 24, 96), nn.MaxPool2d(3, 2),
            Fire(192, 40, 160), Fire(320, 40, 160),
            nn.Conv2d(320, 20, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


class ShuffleUnit(nn.Module):
    """A strided unit of ShuffleNet V2 (Ma et al. 2018): two branches, their channels shuffled."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.left = nn.Sequential(
            nn.Conv2d(before, before, 3, 2, 1, groups=before), nn.Conv2d(before, half, 1), nn.ReLU()
        )
        self.right = nn.Sequential(
            nn.Conv2d(before, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, 2, 1, groups=half),
            nn.Conv2d(half, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        batch, channels, height, width = x.shape
        halves = x.reshape(batch, 2, channels // 2, height, width)
        return halves.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleNet(nn.Module):
    """Strided units of ShuffleNet V2 one after the other."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = _block(3, widths[0], 2)
        self.units = nn.Sequential(*(ShuffleUnit(a, b) for a, b in pairwise(widths)))
        self.last = nn.Conv2d(widths[-1], 256, 1)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.last(self.units(self.first(x))))
        answer: Tensor = self.head(x.mean((2, 3)))
        return answer


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021) over 8x8 patches."""

    def __init__(self, *, patches: int, width: int, depth: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, width, 8, 8)
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(patches, 64), nn.GELU(), nn.Linear(64, patches))
            for _ in range(depth)
        )
        self.within = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x).flatten(2).transpose(1, 2)
        norms = iter(self.norms)
        for across, within in zip(self.across, self.within, strict=True):
            x = x + across(next(norms)(x).transpose(1, 2)).transpose(1, 2)
            x = x + within(next(norms)(x))
        answer: Tensor = self.head(x.mean(1))
        return answer


class SuperResolution(nn.Sequential):
    """ESPCN (Shi et al. 2016): twice the resolution by a shuffle of pixels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 5, 1, 2), nn.ReLU(), nn.Conv2d(32, 16, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(16, 4, 3, 1, 1), nn.PixelShuffle(2),
        )  # fmt: skip


class Keypoints(nn.Module):
    """Heat maps of 8 points: a strided trunk, added to on the way up (Xiao et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.middle, self.high = _block(3, 24, 2), _block(24, 48, 2), _block(48, 96, 2)
        self.from_high, self.from_middle = nn.Conv2d(96, 48, 1), nn.Conv2d(48, 24, 1)
        self.head = nn.Conv2d(24, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        middle = self.middle(low)
        up = functional.interpolate(
            self.from_high(self.high(middle)), scale_factor=2.0, mode="bilinear"
        )
        up = functional.interpolate(
            self.from_middle(up + middle), scale_factor=2.0, mode="bilinear"
        )
        answer: Tensor = torch.sigmoid(self.head(up + low))
        return answer
