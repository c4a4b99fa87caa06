"""Super-resolution and segmentation networks that Qualcomm AI Hub measures, in plain PyTorch.

Written from the papers; random weights.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_SCALE = 4
_COLOURS = 3 * _SCALE**2  # what a pixel shuffle needs for an image of four times the size


class QuickSRNet(nn.Module):
    """QuickSRNet (Berger et al. 2023, arXiv 2303.04336); ``anchored`` adds the input."""

    def __init__(self, channels: int, layers: int, *, anchored: bool) -> None:
        """Build it with that many convolutions between the first and the last."""
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.Hardtanh(0.0, 1.0)]
        for _ in range(layers):
            body += [nn.Conv2d(channels, channels, 3, padding=1), nn.Hardtanh(0.0, 1.0)]
        self.body = nn.Sequential(*body, nn.Conv2d(channels, _COLOURS, 3, padding=1))
        self.anchor = nn.Conv2d(3, _COLOURS, 1) if anchored else None

    def forward(self, image: Tensor) -> Tensor:
        """Return the image at four times the size."""
        found = self.body(image)
        if self.anchor is not None:
            found = self.anchor(image) + found
        return functional.pixel_shuffle(functional.hardtanh(found, 0.0, 1.0), _SCALE)


class Sesr(nn.Module):
    """SESR-M5 (Bhardwaj et al. 2022, arXiv 2103.09404), its linear blocks not collapsed.

    AI Hub measures the network as it is trained: 343 thousand parameters, not 19.
    """

    def __init__(self, blocks: int = 5) -> None:
        """Build it with that many residual blocks."""
        super().__init__()
        self.anchor = nn.Conv2d(3, _COLOURS, 1)
        self.first = self._linear(3, 16, 5)
        self.blocks = nn.ModuleList(self._linear(16, 16, 3) for _ in range(blocks))
        self.last = self._linear(16, _COLOURS, 5)

    @staticmethod
    def _linear(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, 256, kernel, padding=kernel // 2, bias=False),
            nn.Conv2d(256, outputs, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the image at four times the size."""
        first = functional.relu(self.first(image))
        found = first
        for block in self.blocks:
            found = functional.relu(found + block(found))
        found = self.last(found + first) + self.anchor(image)
        return functional.pixel_shuffle(found, _SCALE)


class Xlsr(nn.Module):
    """XLSR (Ayazoglu 2021, arXiv 2105.10288)."""

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        self.skip = nn.Conv2d(3, 16, 3, padding=1)
        body: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1)]
        for _ in range(3):
            body += [nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(32, 32, 1)]
        self.body = nn.Sequential(*body)
        self.tail = nn.Sequential(
            nn.Conv2d(48, 32, 1), nn.ReLU(), nn.Conv2d(32, _COLOURS, 3, padding=1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the image at four times the size."""
        found = self.tail(torch.cat([self.body(image), self.skip(image)], dim=1))
        return functional.hardtanh(functional.pixel_shuffle(found, _SCALE), 0.0, 1.0)


class RealEsrganCompact(nn.Module):
    """The compact generator of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833)."""

    def __init__(self, channels: int = 64, layers: int = 32) -> None:
        """Build it with that many convolutions in its body."""
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(layers):
            body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        self.body = nn.Sequential(*body, nn.Conv2d(channels, _COLOURS, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Return the image at four times the size."""
        found = functional.pixel_shuffle(self.body(image), _SCALE)
        return found + functional.interpolate(image, scale_factor=float(_SCALE), mode="nearest")


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * 4 + [channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + index * growth, width, 3, padding=1)
            for index, width in enumerate(widths)
        )

    def forward(self, image: Tensor) -> Tensor:
        known = [image]
        for layer in self.layers[:-1]:
            joined = torch.cat(known, 1) if len(known) > 1 else image
            known.append(functional.leaky_relu(layer(joined), 0.2))
        return self.layers[-1](torch.cat(known, 1)) * 0.2 + image


class Esrgan(nn.Module):
    """ESRGAN's generator of residual-in-residual dense blocks (Wang et al. 2018, 1809.00219)."""

    def __init__(self, channels: int = 64, blocks: int = 23, growth: int = 32) -> None:
        """Build it with that many blocks."""
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_DenseBlock(channels, growth) for _ in range(3))) for _ in range(blocks)
        )
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.ups = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image at four times the size."""
        first = self.first(image)
        found = first
        for block in self.blocks:
            found = block(found) * 0.2 + found
        found = first + self.body(found)
        for up in self.ups:
            larger = functional.interpolate(found, scale_factor=2.0, mode="nearest")
            found = functional.leaky_relu(up(larger), 0.2)
        image = self.last(functional.leaky_relu(self.wide(found), 0.2))
        return image


class Clamped(nn.Module):
    """A network whose output is an image between 0 and 1."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap the network."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return the clamped image."""
        return self.network(image).clamp(0.0, 1.0)


class UNet(nn.Module):
    """U-Net with padding and batch norms (Ronneberger et al. 2015, arXiv 1505.04597)."""

    def __init__(self, classes: int = 2) -> None:
        """Build it with 64 channels at the top and four halvings."""
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.down = nn.ModuleList(
            self._twice(inputs, outputs)
            for inputs, outputs in zip((3, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(outputs, inputs, 2, 2) for inputs, outputs in pairwise(widths)
        )
        self.merge = nn.ModuleList(self._twice(2 * width, width) for width in widths[:-1])
        self.last = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def _twice(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        return nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores of each class at the image's size."""
        kept: list[Tensor] = []
        found = image
        for index, stage in enumerate(self.down):
            found = stage(functional.max_pool2d(found, 2) if index else found)
            kept.append(found)
        for index in range(len(self.up) - 1, -1, -1):
            found = self.merge[index](torch.cat([kept[index], self.up[index](found)], dim=1))
        scores: Tensor = self.last(found)
        return scores
