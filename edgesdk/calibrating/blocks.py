"""Pieces of networks that torch has no module of, for microbenchmarks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it


class Combine(nn.Module):
    """A binary operator on the input ``[1, *shape]`` and a trained tensor that spreads over it."""

    def __init__(self, operator: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]):
        super().__init__()
        self.operator = operator
        self.other = nn.Parameter(torch.rand(1, *shape) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the operator's result, of the input's shape."""
        return self.operator(x, self.other)


class Residual(nn.Module):
    """A branch added to its input, then a ReLU."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """Return an image of the input's shape."""
        return torch.relu(x + self.branch(x))


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): channels scaled by a gate of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image of the input's shape ``[N, C, H, W]``."""
        means = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(torch.relu(self.down(means))))


class Attention(nn.Module):
    """Scaled dot-product attention of the input with itself, ``rounds`` times, no weights."""

    def __init__(self, heads: int, rounds: int) -> None:
        super().__init__()
        self.heads, self.rounds = heads, rounds

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of the input's shape ``[N, L, heads * width]``."""
        for _ in range(self.rounds):
            x = attend(x, x, x, self.heads)
        return x


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the attention of several heads; tokens ``[N, L, heads * width]`` in and out."""
    batch, length, width = query.shape
    query, key, value = (
        tokens.reshape(batch, length, heads, -1).transpose(1, 2) for tokens in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).reshape(batch, length, width)


class Products(nn.Module):
    """Attention written out: scores, softmax and mixture as operators of their own."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of the input's shape ``[N, L, heads * width]``."""
        batch, length, width = x.shape
        tokens = x.reshape(batch, length, self.heads, -1).transpose(1, 2)
        scores = torch.matmul(tokens, tokens.transpose(2, 3)) * (width / self.heads) ** -0.5
        mixed = torch.matmul(torch.softmax(scores, -1), tokens)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class TokenBlock(nn.Module):
    """A pre-norm transformer encoder layer (Xiong et al. 2020) with GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of the input's shape ``[N, L, width]``."""
        normed = self.before(x)
        mixed = attend(self.query(normed), self.key(normed), self.value(normed), self.heads)
        x = x + self.out(mixed)
        widened: Tensor = self.wide(self.between(x))
        mixed_again: Tensor = x + self.narrow(F.gelu(widened))
        return mixed_again


class ConvNextBlock(nn.Module):
    """A block of ConvNeXt (Liu et al. 2022): 7x7 depthwise, layer norm, two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image of the input's shape ``[N, C, H, W]``."""
        tokens = self.norm(self.mix(x).permute(0, 2, 3, 1))
        branch: Tensor = self.narrow(F.gelu(self.wide(tokens)))
        return x + branch.permute(0, 3, 1, 2)


class Patches(nn.Module):
    """An image cut into square patches, each projected to a token."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, width, side, side)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, H / side * W / side, width]`` for ``[N, 3, H, W]``."""
        tokens: Tensor = self.project(x)
        return tokens.flatten(2).transpose(1, 2)


class Transposed(nn.Module):
    """Two softmaxes, each of other rows: nothing lets the transpositions between them cancel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape ``[N, A, B]``."""
        return torch.softmax(torch.softmax(x, -1).transpose(1, 2), -1).transpose(1, 2)


class Growing(nn.Module):
    """Blocks of DenseNet (Huang et al. 2017): what a convolution adds goes beside its input."""

    def __init__(self, channels: int, growth: int, rounds: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Conv2d(channels + place * growth, growth, 1) for place in range(rounds)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C + rounds * growth, H, W]`` for ``[N, C, H, W]``."""
        for part in self.parts:
            x = torch.cat([x, torch.relu(part(x))], 1)
        return x


class Joined(nn.Module):
    """Two convolutions of an image side by side along the channels: half of them each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(channels, channels // 2, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return an image of the input's shape ``[N, C, H, W]``."""
        return torch.cat([self.left(x), self.right(x)], 1)


class Tokens(nn.Module):
    """An image convolved, read as tokens, mixed by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(64, 64, 1), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, H * W, 64]`` for ``[N, 64, H, W]``."""
        tokens: Tensor = self.mix(self.conv(x).flatten(2).transpose(1, 2))
        return tokens


class Bottleneck(nn.Module):
    """A residual bottleneck (He et al. 2016), its 3x3 convolution grouped or not, and strided."""

    def __init__(
        self, before: int, between: int, after: int, stride: int, *, groups: int = 1
    ) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(before, between, 1)
        self.mix = nn.Conv2d(between, between, 3, stride, 1, groups=groups)
        self.widen = nn.Conv2d(between, after, 1)
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, after, H / stride, W / stride]`` for ``[N, before, H, W]``."""
        branch = self.widen(torch.relu(self.mix(torch.relu(self.narrow(x)))))
        return torch.relu(branch + self.shortcut(x))


class Branches(nn.Module):
    """Three convolutions of the same image side by side, as in Inception (Szegedy et al. 2015)."""

    def __init__(self, before: int, each: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(before, each, 1)
        self.narrow, self.square = (
            nn.Conv2d(before, each // 2, 1),
            nn.Conv2d(each // 2, each, 3, 1, 1),
        )
        self.pooled = nn.Conv2d(before, each, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, 3 * each, H, W]`` for ``[N, before, H, W]``."""
        square = self.square(torch.relu(self.narrow(x)))
        pooled = self.pooled(F.max_pool2d(x, 3, 1, 1))
        return torch.relu(torch.cat([self.point(x), square, pooled], 1))


class PoolBlock(nn.Module):
    """A block that mixes pixels by pooling (PoolFormer, Yu et al. 2022), normed over all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.wide, self.narrow = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return an image of the input's shape ``[N, C, H, W]``."""
        normed = self.before(x)
        x = x + F.avg_pool2d(normed, 3, 1, 1, count_include_pad=False) - normed
        widened = F.gelu(self.wide(self.between(x)))
        branch: Tensor = self.narrow(widened)
        return x + branch
