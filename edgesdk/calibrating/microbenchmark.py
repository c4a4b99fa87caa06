"""A microbenchmark: a small network by name, and the pieces to put one together from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgesdk.compress.accelerator import seeded
from edgesdk.task import Tensors

Layer = Callable[[], nn.Module]
"""Makes a layer: modules are built within ``Microbenchmark.module``, where the seed is set."""


@dataclass(frozen=True, kw_only=True)
class Microbenchmark:
    """A network by name; ``build`` makes its module, ``shape`` is its only input's, batch first.

    The input is floating point, or token numbers below ``vocabulary`` where that is set.
    ``family`` is set where it is put together like a network that people use, so that an error on
    it is what to expect, and names the make it shares with others of them.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    vocabulary: int | None = None
    family: str | None = None

    def module(self) -> nn.Module:
        """Return the network in eval mode; the same weights each time."""
        with seeded(torch.device("cpu"), 0):
            network = self.build().eval()
            for layer in network.modules():
                if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                    # Torch's own start fades to zero in a long row, which int8 cannot scale.
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            return network

    def example_inputs(self) -> Tensors:
        """Return one input; the same values each time."""
        with seeded(torch.device("cpu"), 1):
            if self.vocabulary is not None:
                return (torch.randint(0, self.vocabulary, self.shape),)
            return (torch.randn(self.shape),)


def sequence(
    name: str, shape: tuple[int, ...], *layers: Layer, family: str | None = None
) -> Microbenchmark:
    """Return a network of layers one after the other; ``shape`` is the input's without batch."""
    return Microbenchmark(
        name=name,
        build=lambda: nn.Sequential(*(layer() for layer in layers)),
        shape=(1, *shape),
        family=family,
    )


def conv(before: int, after: int, size: int, *, stride: int = 1, groups: int = 1) -> Layer:
    """Return a convolution of images, padded so that only the stride makes them smaller."""
    return lambda: nn.Conv2d(before, after, size, stride, size // 2, groups=groups)


def row(layer: Layer, count: int) -> Sequence[Layer]:
    """Return the layer so many times, a ReLU after each."""
    return [part for _ in range(count) for part in (layer, nn.ReLU)]


def classifier(channels: int) -> Sequence[Layer]:
    """Return what ends a network of images: global pooling and a linear layer."""
    return [lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, lambda: nn.Linear(channels, 50)]
