"""Microbenchmarks: small networks that together use every kind of kernel in many shapes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from edgesdk.calibrating.blocks import (
    Attention,
    Combine,
    Growing,
    Joined,
    Products,
    Tokens,
    Transposed,
)
from edgesdk.calibrating.microbenchmark import Layer, Microbenchmark, conv, row, sequence
from edgesdk.calibrating.whole_networks import padded, whole_networks


def microbenchmarks() -> tuple[Microbenchmark, ...]:
    """Return all of them, in a fixed order.

    Rates come from networks that are one kind of kernel in a row, at sizes where it takes most of
    the time; dispatch from long rows of tiny kernels; what an inference costs before its first
    kernel from a network of next to nothing. Whole networks tie them together, since kernels
    find their inputs in the cache there as they do in practice.
    """
    return (
        *_overheads(),
        *_convolutions(),
        *_depthwise(),
        *_linear(),
        *_attention(),
        *_elementwise(),
        *_reductions(),
        *_movements(),
        *whole_networks(),
    )


def _overheads() -> tuple[Microbenchmark, ...]:
    return (
        sequence("nothing", (8,), nn.ReLU),
        sequence("row of tiny linear layers", (8,), *[lambda: nn.Linear(8, 8)] * 24),
        sequence("row of tiny convolutions", (8, 4, 4), *[conv(8, 8, 1)] * 24),
        sequence("row of tiny additions", (8, 4, 4), *row(_add_tiny, 30)),
    )


def _add_tiny() -> nn.Module:
    return Combine(torch.add, (8, 4, 4))


def _convolutions() -> tuple[Microbenchmark, ...]:
    def dense(channels: int, side: int, count: int, size: int = 3) -> Microbenchmark:
        name = f"{size}x{size} convolutions, {channels} channels, {side}x{side}"
        layers = row(conv(channels, channels, size), count)
        return sequence(name, (channels, side, side), *layers)

    def expand(narrow: int, wide: int, side: int) -> Microbenchmark:
        layers = [*row(conv(narrow, wide, 1), 1), *row(conv(wide, narrow, 1), 1)] * 2
        name = f"1x1 convolutions, {narrow} and {wide} channels, {side}x{side}"
        return sequence(name, (narrow, side, side), *layers)

    return (
        dense(8, 16, 6),
        dense(16, 32, 4),
        dense(32, 20, 3),
        dense(64, 8, 4),
        dense(64, 28, 2),
        dense(13, 24, 4),
        dense(256, 7, 4),
        expand(16, 96, 28),
        expand(32, 192, 14),
        expand(64, 384, 7),
        sequence("stem, 3x3", (3, 96, 96), *row(conv(3, 32, 3, stride=2), 1)),
        sequence("patches", (3, 96, 96), lambda: nn.Conv2d(3, 128, 16, 16)),
    )


def _depthwise() -> tuple[Microbenchmark, ...]:
    def depthwise(channels: int, side: int, count: int, size: int = 3) -> Microbenchmark:
        name = f"{size}x{size} depthwise, {channels} channels, {side}x{side}"
        layers = row(conv(channels, channels, size, groups=channels), count)
        return sequence(name, (channels, side, side), *layers)

    return (
        depthwise(16, 56, 4),
        depthwise(96, 28, 4),
        depthwise(192, 14, 4),
        depthwise(384, 7, 4),
        depthwise(40, 20, 4, size=5),
        depthwise(48, 20, 2, size=7),
        depthwise(128, 7, 2, size=7),
        depthwise(288, 3, 2, size=7),
        sequence("grouped convolutions", (64, 14, 14), *row(conv(64, 64, 3, groups=8), 3)),
    )


def _linear() -> tuple[Microbenchmark, ...]:
    def perceptron(shape: tuple[int, ...], *widths: int) -> Microbenchmark:
        layers = [
            part
            for before, after in pairwise((shape[-1], *widths))
            for part in (lambda b=before, a=after: nn.Linear(b, a), nn.ReLU)
        ]
        name = f"linear layers, {'x'.join(map(str, shape))}, {' '.join(map(str, widths))}"
        return sequence(name, shape, *layers)

    return (
        perceptron((256,), 256, 256, 256, 256),
        perceptron((1024,), 1024, 1024),
        perceptron((24, 384), 1536, 384, 1536, 384),
        perceptron((64, 128), 512, 128, 512, 128),
    )


def _attention() -> tuple[Microbenchmark, ...]:
    def attention(tokens: int, heads: int, width: int) -> Microbenchmark:
        name = f"attention, {tokens} tokens, {heads} heads of {width}"
        return Microbenchmark(
            name=name, build=lambda: Attention(heads, 2), shape=(1, tokens, heads * width)
        )

    def products(tokens: int, heads: int, width: int) -> Microbenchmark:
        name = f"products of tokens, {tokens} tokens, {heads} heads of {width}"
        return Microbenchmark(
            name=name, build=lambda: Products(heads), shape=(1, tokens, heads * width)
        )

    return (
        products(64, 2, 64),
        attention(64, 4, 32),
        attention(100, 3, 48),
    )


def _elementwise() -> tuple[Microbenchmark, ...]:
    big = (32, 48, 48)
    kinds: tuple[tuple[str, Callable[[], nn.Module]], ...] = (
        ("hardswish", nn.Hardswish),
        ("silu", nn.SiLU),
        ("sigmoid", nn.Sigmoid),
        ("tanh", nn.Tanh),
    )
    return (
        sequence("additions", big, *row(lambda: Combine(torch.add, big), 4)),
        sequence("multiplications", big, *row(lambda: Combine(torch.mul, big), 4)),
        sequence("channel scales", big, *row(lambda: Combine(torch.mul, (32, 1, 1)), 4)),
        *(sequence(f"{name} of images", (24, 32, 32), *[kind] * 3) for name, kind in kinds),
        sequence("gelu of tokens", (96, 256), *[nn.GELU] * 3),
    )


def _reductions() -> tuple[Microbenchmark, ...]:
    return (
        sequence("layer norms, 64x128", (64, 128), *[lambda: nn.LayerNorm(128)] * 4),
        # Between convolutions, where channels come last, as in the networks that have them.
        *(
            sequence(
                f"group norms of images, {channels}x{side}x{side}",
                (channels, side, side),
                *[conv(channels, channels, 1), _group_norm(channels)] * 3,
            )
            for channels, side in ((32, 24), (144, 6))
        ),
        sequence("softmax, 4x64x64", (4, 64, 64), *[lambda: nn.Softmax(-1)] * 3),
        sequence("maximum pooling", (48, 48, 48), lambda: nn.MaxPool2d(3, 1, 1),
               lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.MaxPool2d(2, 2)),
        sequence("average pooling", (48, 48, 48), lambda: nn.AvgPool2d(2, 2),
               lambda: nn.AvgPool2d(2, 2)),
        sequence(
            "upsampling",
            (24, 16, 16),
            *[part for size in (24, 32) for part in (conv(24, 24, 1), _up(size))],
        ),
        sequence("global pooling", (96, 28, 28), lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten),
    )  # fmt: skip


def _group_norm(channels: int) -> Layer:
    return lambda: nn.GroupNorm(1, channels)


def _up(size: int) -> Layer:
    return lambda: nn.Upsample((size, size), mode="bilinear")


def _movements() -> tuple[Microbenchmark, ...]:
    return (
        sequence("transpositions", (64, 96), *[Transposed] * 3),
        sequence(
            "paddings, 16x48x48", (16, 48, 48), *padded(16, 16, 1, 16), *padded(16, 16, 1, 16)
        ),
        sequence("paddings, 144x8x8", (144, 8, 8), *[*padded(144, 144, 1, 144)] * 3),
        sequence("concatenations", (32, 28, 28), *[lambda: Joined(32)] * 4),
        sequence("clamped concatenations", (32, 28, 28), *row(lambda: Joined(32), 3)),
        sequence("growing images", (24, 28, 28), lambda: Growing(24, 24, 4)),
        sequence("images as tokens", (64, 24, 24), Tokens),
        Microbenchmark(
            name="embedding", build=lambda: nn.Embedding(1000, 128), shape=(1, 64), vocabulary=1000
        ),
    )
