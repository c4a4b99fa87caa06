"""Small networks of many shapes, with random weights, to emit and weigh for footprint.py."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


def small_networks() -> dict[str, tuple[nn.Module, Shape]]:
    """Return networks whose files weigh 5 kB to 3 MB, with the shape of their input."""
    torch.manual_seed(0)
    networks = {
        "resnet_8x8": (ResNet([16, 32], 1, image_channels=1), (1, 1, 8, 8)),
        "resnet8": (ResNet([16, 32, 64], 1), (1, 3, 32, 32)),
        "resnet20": (ResNet([16, 32, 64], 3), (1, 3, 32, 32)),
        "resnet20_half": (ResNet([8, 16, 32], 3), (1, 3, 32, 32)),
        "resnet14_wide": (ResNet([32, 64, 128], 2), (1, 3, 32, 32)),
        "separable": (separable(64, 4, image_channels=1), (1, 1, 49, 10)),
        "separable_deep": (separable(32, 10), (1, 3, 64, 64)),
        "separable_hardswish": (separable(48, 5, activation=nn.Hardswish), (1, 3, 48, 48)),
        "perceptron": (perceptron([640, 128, 128, 8, 128, 640]), (1, 640)),
        "perceptron_small": (perceptron([64, 32, 10]), (1, 64)),
        "pooling": (pooling(16), (1, 3, 32, 32)),
        "dense": (Dense(16, 4), (1, 3, 32, 32)),
        "inverted_residual": (inverted_residuals(16, 5), (1, 3, 64, 64)),
        "squeeze_excitation": (squeezed(24, 3), (1, 3, 32, 32)),
        "upsampling": (upsampling(16), (1, 3, 32, 32)),
        "transformer": (Transformer(64, 2), (1, 16, 64)),
    }
    for network, _ in networks.values():
        train_norms(network)
    return networks


def large_networks() -> dict[str, tuple[nn.Module, Shape]]:
    """Return networks that need megabytes, so that a process's memory shows them."""
    torch.manual_seed(0)
    networks = {
        "resnet14_128": (ResNet([64, 128, 256], 2), (1, 3, 128, 128)),
        "resnet20_256": (ResNet([16, 32, 64], 3), (1, 3, 256, 256)),
        "separable_224": (separable(256, 8), (1, 3, 224, 224)),
        "perceptron_2048": (perceptron([2048, 2048, 2048, 512]), (1, 2048)),
        "pooling_64": (pooling(64), (1, 3, 32, 32)),
    }
    for network, _ in networks.values():
        train_norms(network)
    return networks


def train_norms(network: nn.Module) -> None:
    """Give every norm values of its own, as training does.

    New norms leave all biases zero, and converters store equal constants once: the file of an
    untrained network is smaller than that of the same network after training.
    """
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(norm.weight, 0.8, 1.2)
            nn.init.uniform_(norm.bias, -0.2, 0.2)


def conv_norm(
    before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution without bias and its batch norm."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(after)]


def head(channels: int, classes: int = 10) -> list[nn.Module]:
    """Return global pooling and a classifier."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


class Residual(nn.Module):
    """A branch added to its input, or to a projection of it."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None, *, relu: bool) -> None:
        super().__init__()
        self.branch, self.shortcut, self.relu = branch, shortcut, relu

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.branch(x) + (x if self.shortcut is None else self.shortcut(x))
        return torch.relu(total) if self.relu else total


class ResNet(nn.Sequential):
    """Residual network of ``blocks`` basic blocks a stage, on small images."""

    def __init__(self, widths: list[int], blocks: int, *, image_channels: int = 3) -> None:
        layers: list[nn.Module] = [*conv_norm(image_channels, widths[0]), nn.ReLU()]
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                branch = [*conv_norm(before, width, 3, stride), nn.ReLU(), *conv_norm(width, width)]
                projection = conv_norm(before, width, 1, stride) if before != width else None
                shortcut = nn.Sequential(*projection) if projection else None
                layers.append(Residual(nn.Sequential(*branch), shortcut, relu=True))
                before = width
        super().__init__(*layers, *head(before))


def separable(
    width: int, blocks: int, *, image_channels: int = 3, activation: type[nn.Module] = nn.ReLU6
) -> nn.Module:
    """Return depthwise and pointwise convolutions in turn."""
    layers = [*conv_norm(image_channels, width, 3, 2), activation()]
    for _ in range(blocks):
        layers += [*conv_norm(width, width, 3, 1, groups=width), activation()]
        layers += [*conv_norm(width, width, 1), activation()]
    return nn.Sequential(*layers, *head(width))


def perceptron(widths: list[int]) -> nn.Module:
    """Return fully connected layers with ReLU between them."""
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def pooling(width: int) -> nn.Module:
    """Return convolutions, maximum pooling and two large fully connected layers."""
    return nn.Sequential(
        *conv_norm(3, width), nn.ReLU(), nn.MaxPool2d(2, 2),
        *conv_norm(width, 2 * width), nn.ReLU(), nn.MaxPool2d(2, 2),
        *conv_norm(2 * width, 4 * width), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * width * 64, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10),
    )  # fmt: skip


class Dense(nn.Module):
    """Concatenates the output of every layer to its input."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, width, 3, 2), nn.ReLU())
        self.layers = nn.ModuleList(
            nn.Sequential(*conv_norm(width * (i + 1), width), nn.ReLU()) for i in range(layers)
        )
        self.classifier = nn.Linear(width * (layers + 1), 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        scores: Tensor = self.classifier(x.mean((2, 3)))
        return scores


def inverted_residuals(width: int, blocks: int) -> nn.Module:
    """Return a narrow MobileNetV2."""
    layers: list[nn.Module] = [*conv_norm(3, width, 3, 2), nn.ReLU6()]
    for _ in range(blocks):
        wide = 6 * width
        branch = [*conv_norm(width, wide, 1), nn.ReLU6()]
        branch += [
            *conv_norm(wide, wide, 3, 1, groups=wide),
            nn.ReLU6(),
            *conv_norm(wide, width, 1),
        ]
        layers.append(Residual(nn.Sequential(*branch), None, relu=False))
    return nn.Sequential(*layers, *head(width))


class SqueezeExcitation(nn.Module):
    """Scales channels by a gate computed from their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.gate(x)
        return scaled


def squeezed(width: int, blocks: int) -> nn.Module:
    """Return convolutions with squeeze and excitation."""
    layers: list[nn.Module] = [*conv_norm(3, width, 3, 2), nn.SiLU()]
    for _ in range(blocks):
        layers += [*conv_norm(width, width), nn.SiLU(), SqueezeExcitation(width)]
    return nn.Sequential(*layers, *head(width))


def upsampling(width: int) -> nn.Module:
    """Return an encoder and a decoder back to image size."""
    return nn.Sequential(
        *conv_norm(3, width, 3, 2), nn.ReLU(), *conv_norm(width, 2 * width, 3, 2), nn.ReLU(),
        nn.Upsample(scale_factor=2), *conv_norm(2 * width, width), nn.ReLU(),
        nn.Upsample(scale_factor=2), *conv_norm(width, width), nn.ReLU(), nn.Conv2d(width, 4, 1),
    )  # fmt: skip


class Transformer(nn.Module):
    """Pre-norm attention blocks over embedded tokens ``[N, L, width]``."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, 4) for _ in range(layers))
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.classifier(x.mean(1))
        return scores


class TransformerBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.first(x)
        batch, length, width = x.shape
        query, key, value = (
            layer(normed).reshape(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        total: Tensor = x + self.feed(self.second(x))
        return total
