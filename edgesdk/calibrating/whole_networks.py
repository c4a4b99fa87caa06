"""Whole small networks: they tie the kernels together, and show how far a prediction is off."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgesdk.calibrating.blocks import (
    Bottleneck,
    Branches,
    ConvNextBlock,
    Gate,
    Patches,
    PoolBlock,
    Residual,
    TokenBlock,
    Tokens,
)
from edgesdk.calibrating.microbenchmark import (
    Layer,
    Microbenchmark,
    classifier,
    conv,
    row,
    sequence,
)


def whole_networks() -> tuple[Microbenchmark, ...]:
    """Return them, in a fixed order: each a family that people use, much smaller.

    What is wrong with a model of kernels shows on networks that mix them, each in its own way, so
    there is one of every family rather than several of one. A family is left out as a whole when
    the fit is judged: a network that people bring is seldom of a make that was measured.
    """
    return (*_convolutional(), *_padded_and_grouped(), *_of_tokens(), *_of_sound())


def _whole(family: str, name: str, shape: tuple[int, ...], *layers: Layer) -> Microbenchmark:
    return sequence(name, shape, *layers, family=family)


def _residual(channels: int) -> Layer:
    parts = [*row(conv(channels, channels, 3), 1), conv(channels, channels, 3)]
    return lambda: Residual(nn.Sequential(*(part() for part in parts)))


def _inverted(narrow: int, wide: int) -> Layer:
    depthwise = conv(wide, wide, 3, groups=wide)
    parts = [*row(conv(narrow, wide, 1), 1), *row(depthwise, 1), conv(wide, narrow, 1)]
    return lambda: Residual(nn.Sequential(*(part() for part in parts)))


def _separable(before: int, after: int, stride: int) -> Sequence[Layer]:
    depthwise = conv(before, before, 3, stride=stride, groups=before)
    return [*row(depthwise, 1), *row(conv(before, after, 1), 1)]


def _convolutional() -> tuple[Microbenchmark, ...]:
    return (
        _whole("residual", "residual blocks", (24, 24, 24), *[_residual(24)] * 3),
        _whole("separable", "inverted residuals", (20, 24, 24), *[_inverted(20, 120)] * 3),
        _whole("gated", "gated channels", (40, 20, 20), *[lambda: Gate(40)] * 3),
        _whole("residual", "small residual network", (3, 40, 40), *row(conv(3, 24, 3, stride=2), 1),
               _residual(24), *row(conv(24, 48, 3, stride=2), 1), _residual(48), *classifier(48)),
        _whole("separable", "small separable network", (3, 80, 80),
               *row(conv(3, 24, 3, stride=2), 1),
               *_separable(24, 48, 1), *_separable(48, 96, 2), *_separable(96, 192, 2),
               *classifier(192)),
        _whole("separable", "small inverted network", (3, 72, 72),
               lambda: nn.Conv2d(3, 16, 3, 2, 1),
               nn.Hardswish, _inverted(16, 64), *row(conv(16, 40, 3, stride=2), 1),
               _inverted(40, 160), lambda: Gate(40), *row(conv(40, 240, 1), 1), *classifier(240)),
        _whole("plain", "small plain network", (3, 32, 32), *row(conv(3, 24, 3), 1),
               *row(conv(24, 24, 3), 1), lambda: nn.MaxPool2d(2), *row(conv(24, 56, 3), 1),
               *row(conv(56, 56, 3), 1), lambda: nn.MaxPool2d(2), *row(conv(56, 112, 3), 1),
               nn.Flatten, lambda: nn.Linear(112 * 64, 64), nn.ReLU, lambda: nn.Linear(64, 10)),
        _whole("residual", "small bottleneck network", (3, 96, 96),
               *row(conv(3, 32, 7, stride=2), 1),
               lambda: nn.MaxPool2d(3, 2, 1), lambda: Bottleneck(32, 16, 64, 1),
               lambda: Bottleneck(64, 32, 128, 2), lambda: Bottleneck(128, 64, 256, 2),
               *classifier(256)),
        _whole("branching", "small branching network", (3, 56, 56),
               *row(conv(3, 32, 3, stride=2), 1),
               lambda: Branches(32, 16), lambda: Branches(48, 24), lambda: nn.MaxPool2d(2),
               lambda: Branches(72, 32), *classifier(96)),
    )  # fmt: skip


def _padded_and_grouped() -> tuple[Microbenchmark, ...]:
    return (
        _whole("separable", "small padded network", (3, 64, 64),
               *padded(3, 16, 2), *padded(16, 16, 1, 16),
               *row(conv(16, 40, 1), 1), *padded(40, 40, 2, 40), *row(conv(40, 80, 1), 1),
               *padded(80, 80, 1, 80), *row(conv(80, 120, 1), 1), *classifier(120)),
        _whole("grouped", "small grouped network", (3, 64, 64), *row(conv(3, 32, 3, stride=2), 1),
               lambda: Bottleneck(32, 48, 48, 2, groups=4),
               lambda: Bottleneck(48, 96, 96, 2, groups=6),
               lambda: Bottleneck(96, 96, 96, 1, groups=6), *classifier(96)),
        _whole("pooling", "small pooling network", (3, 64, 64), lambda: nn.Conv2d(3, 32, 7, 4, 2),
               *[lambda: PoolBlock(32)] * 2, lambda: nn.Conv2d(32, 80, 3, 2, 1),
               lambda: PoolBlock(80), *classifier(80)),
        _whole("wide kernels", "small wide-kernel network", (3, 64, 64),
               lambda: nn.Conv2d(3, 32, 4, 4),
               *row(conv(32, 32, 7, groups=32), 1), *row(conv(32, 64, 1, stride=2), 1),
               *row(conv(64, 64, 7, groups=64), 1), *row(conv(64, 224, 1, stride=2), 1),
               *row(conv(224, 224, 7, groups=224), 1), *classifier(224)),
    )  # fmt: skip


def _of_tokens() -> tuple[Microbenchmark, ...]:
    return (
        _whole("tokens", "encoder layers", (40, 96), *[lambda: TokenBlock(96, 3)] * 2),
        _whole("wide kernels", "small patch network", (3, 64, 64), lambda: nn.Conv2d(3, 48, 4, 4),
               *[lambda: ConvNextBlock(48)] * 2, *row(lambda: nn.Conv2d(48, 96, 2, 2), 1),
               lambda: ConvNextBlock(96), *classifier(96)),
        _whole("tokens", "small token network", (3, 64, 64), lambda: Patches(128, 8),
               *[lambda: TokenBlock(128, 4)] * 2),
        _whole("tokens", "small hybrid network", (3, 64, 64), *row(conv(3, 24, 3, stride=2), 1),
               *_separable(24, 48, 2), *_separable(48, 64, 2), Tokens, lambda: TokenBlock(64, 2)),
        Microbenchmark(
            name="small text network",
            build=lambda: nn.Sequential(
                nn.Embedding(500, 112), TokenBlock(112, 4), TokenBlock(112, 4), nn.Linear(112, 8)
            ),
            shape=(1, 28),
            vocabulary=500,
            family="tokens",
        ),
    )  # fmt: skip


def _of_sound() -> tuple[Microbenchmark, ...]:
    return (
        _whole("separable", "small spectrum network", (1, 40, 20),
               lambda: nn.Conv2d(1, 40, (8, 4), 2, (4, 1)), nn.ReLU, *_separable(40, 40, 1),
               *_separable(40, 48, 1), *_separable(48, 48, 1), *classifier(48)),
        _whole("waves", "small waveform network", (1, 2048),
               lambda: nn.Conv1d(1, 24, 16, 8, 4), nn.ReLU,
               lambda: nn.Conv1d(24, 48, 5, 4, 2), nn.ReLU, lambda: nn.Conv1d(48, 64, 3, 1, 1),
               nn.ReLU, lambda: nn.AdaptiveAvgPool1d(1), nn.Flatten, lambda: nn.Linear(64, 10)),
        _whole("perceptrons", "small autoencoder", (512,), *(
            part for before, after in ((512, 96), (96, 96), (96, 12), (12, 96), (96, 96))
            for part in (lambda b=before, a=after: nn.Linear(b, a), nn.ReLU)
        ), lambda: nn.Linear(96, 512)),
    )  # fmt: skip


def padded(before: int, after: int, stride: int, groups: int = 1) -> Sequence[Layer]:
    """Return a 3x3 convolution that is padded by an operator of its own, as TensorFlow's are."""
    amounts = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
    return [
        lambda: nn.ZeroPad2d(amounts),
        lambda: nn.Conv2d(before, after, 3, stride, groups=groups),
        nn.ReLU6,
    ]
