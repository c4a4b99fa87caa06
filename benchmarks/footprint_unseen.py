"""Networks of other kinds than footprint_networks.py, to see whether what was learnt there holds.

The layouts in ``edgesdk/cost`` were read off files of the networks there. Where files of these were
missed they were looked at too: LSTMs taken apart, tables of embeddings and concatenations that
interleave were added for them.
"""

from __future__ import annotations

import torch
from footprint_networks import Shape, conv_norm, head, perceptron, train_norms
from torch import Tensor, nn

WORDS = 500


def unseen_networks() -> dict[str, tuple[nn.Module, Shape]]:
    """Return networks with the shape of their input; those called token_* read integers."""
    torch.manual_seed(0)
    networks = {
        "grouped": (grouped(64, 4, groups=8), (1, 3, 32, 32)),
        "transposed": (Transposed([16, 32, 64]), (1, 3, 32, 32)),
        "token_embedding": (Embedded(WORDS, 48, 3), (1, 24)),
        "recurrent": (Recurrent(20, 64, 8), (1, 16, 20)),
        "fire": (fire([16, 24, 32, 48]), (1, 3, 48, 48)),
        "wide_linear": (perceptron([784, 1024, 512, 10]), (1, 784)),
        "signal": (signal([16, 32, 64]), (1, 6, 128)),
        "shuffled": (shuffled(48, 4), (1, 3, 32, 32)),
        "attention_gate": (Gated(32), (1, 3, 24, 24)),
    }
    for network, _ in networks.values():
        train_norms(network)
    return networks


def grouped(width: int, blocks: int, *, groups: int) -> nn.Module:
    """Return convolutions in groups, as ResNeXt and RegNet have them."""
    layers = [*conv_norm(3, width, 3, 2), nn.ReLU()]
    for _ in range(blocks):
        layers += [*conv_norm(width, width, 3, 1, groups=groups), nn.ReLU()]
        layers += [*conv_norm(width, width, 1), nn.ReLU()]
    return nn.Sequential(*layers, *head(width))


class Transposed(nn.Module):
    """An encoder, transposed convolutions back to image size, the encoder's images beside them."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = 3
        for width in widths:
            self.down.append(nn.Sequential(*conv_norm(before, width, 3, 2), nn.ReLU()))
            before = width
        for width in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose2d(before, width, 2, 2))
            self.join.append(nn.Sequential(*conv_norm(2 * width, width), nn.ReLU()))
            before = width
        self.last = nn.ConvTranspose2d(before, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        images = []
        for layer in self.down:
            x = layer(x)
            images.append(x)
        for up, join, image in zip(self.up, self.join, reversed(images[:-1]), strict=True):
            x = join(torch.cat([up(x), image], 1))
        scores: Tensor = self.last(x)
        return scores


class Embedded(nn.Module):
    """Token embeddings, layers on each token, the mean of all, a classifier."""

    def __init__(self, words: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = torch.relu(layer(x))
        scores: Tensor = self.classifier(self.norm(x).mean(1))
        return scores


class Recurrent(nn.Module):
    """An LSTM over a sequence ``[N, L, features]`` and a classifier of its last step."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, batch_first=True)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.lstm(x)[0][:, -1])
        return scores


class Fire(nn.Module):
    """SqueezeNet's module: a narrow 1x1 convolution, then 1x1 and 3x3 side by side."""

    def __init__(self, before: int, narrow: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, narrow, 1)
        self.small = nn.Conv2d(narrow, 2 * narrow, 1)
        self.large = nn.Conv2d(narrow, 2 * narrow, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.small(x)), torch.relu(self.large(x))], 1)


def fire(widths: list[int]) -> nn.Module:
    """Return a small SqueezeNet."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2, 2)]
    before = 32
    for width in widths:
        layers.append(Fire(before, width))
        before = 4 * width
    last = [nn.Conv2d(before, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *last)


def signal(widths: list[int]) -> nn.Module:
    """Return convolutions over a signal ``[N, channels, L]``."""
    layers: list[nn.Module] = []
    before = 6
    for width in widths:
        conv = nn.Conv1d(before, width, 5, 2, 2, bias=False)
        layers += [conv, nn.BatchNorm1d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(before, 6))


class Shuffled(nn.Module):
    """ShuffleNet's unit: half of the channels pass, then both halves are interleaved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            *conv_norm(half, half, 1), nn.ReLU(), *conv_norm(half, half, 3, 1, groups=half),
            *conv_norm(half, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        both = torch.cat([first, self.branch(second)], 1)
        batch, channels, rows, columns = both.shape
        halves = both.reshape(batch, 2, channels // 2, rows, columns)
        return halves.transpose(1, 2).reshape(batch, channels, rows, columns)


def shuffled(width: int, units: int) -> nn.Module:
    """Return a small ShuffleNetV2."""
    stem = [*conv_norm(3, width, 3, 2), nn.ReLU()]
    return nn.Sequential(*stem, *(Shuffled(width) for _ in range(units)), *head(width))


class Gated(nn.Module):
    """Convolutions whose image is weighed by a map of its own, and pooled by maximum and mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, width, 3, 2), nn.GELU())
        self.body = nn.Sequential(*conv_norm(width, width, 5, 1, groups=width), nn.LeakyReLU(0.1))
        self.gate = nn.Conv2d(width, 1, 1)
        self.classifier = nn.Sequential(nn.Linear(2 * width, 3 * width), nn.Tanh())
        self.last = nn.Linear(3 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        x = x * torch.sigmoid(self.gate(x))
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        scores: Tensor = self.last(self.classifier(pooled))
        return scores
