"""Networks with attention in the forms the field writes it, each with its groups of heads.

``GROUPS``: for each network the layer that names a group of heads, how many heads it counts, and
for each reader of the result the features that come from the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

TOKENS = (torch.linspace(-1, 1, 5 * 16).view(1, 5, 16),)
_HEADS, _EACH = 4, 4


class Separate(nn.Module):
    """One layer each for queries, keys and values; the number of heads is left to the shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, _EACH).transpose(1, 2)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(*self.parts(x)).transpose(1, 2).flatten(2)
        return self.head(x + self.out(y))


class Counted(Separate):
    """The module keeps how many heads it has, and how wide they are together."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.all_head_size = _HEADS, 16

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, _EACH).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(*self.parts(x)).transpose(1, 2)
        return self.head(x + self.out(y.reshape(*x.shape[:2], self.all_head_size)))


class BySoftmax(Separate):
    """Matrix products and a softmax, and a norm over all heads of the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.norm(self.query(x).transpose(1, 2)).transpose(1, 2)
        return self.split(query), self.split(self.key(x)), self.split(self.value(x))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.softmax(query @ key.mT / 2, -1) @ value


class Fused(nn.Module):
    """Queries, keys and values of one layer, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            part.view(*x.shape[:2], -1, _EACH).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*self.parts(x)).transpose(1, 2)
        return self.head(x + self.out(y.flatten(2)))


class FusedByHead(Fused):
    """Queries, keys and values of one layer, head by head."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = _HEADS

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).view(*x.shape[:2], self.num_heads, -1).transpose(1, 2).chunk(3, -1)


class FusedUnbound(Fused):
    """Queries, keys and values of one layer, as timm takes them apart; their width is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = _HEADS, _EACH, 16

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return query, key, value

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(*self.parts(x)).transpose(1, 2)
        return self.head(x + self.out(y.reshape(*x.shape[:2], self.attn_dim)))


class GroupedRotary(nn.Module):
    """Two heads of keys and values serve two heads of queries each; both are rotated."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.key, self.value = nn.Linear(16, 8), nn.Linear(16, 8)

    def rotated(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[2]).unsqueeze(1) * torch.tensor([1.0, 0.1, 1.0, 0.1]).to(x)
        left, right = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-right, left], -1) * angle.sin()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).view(*x.shape[:2], -1, _EACH).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = self.rotated(query), self.rotated(key)
        key, value = (
            part[:, :, None].expand(-1, -1, 2, -1, -1).reshape(x.shape[0], -1, x.shape[1], _EACH)
            for part in (key, value)
        )
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return self.head(x + self.out(y.flatten(2)))


class Positions(Separate):
    """A table of relative positions, an entry for each distance and head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, _HEADS))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        distance = torch.arange(5).unsqueeze(1) - torch.arange(5) + 4
        bias = self.table[distance].permute(2, 0, 1).unsqueeze(0)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class SquarePositions(Positions):
    """As many positions as heads, heads first: the table's shape does not tell them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(_HEADS, _HEADS))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        distance = (torch.arange(5).unsqueeze(1) - torch.arange(5)).abs().clamp_max(3)
        bias = self.table[:, distance]
        return torch.softmax(query @ key.mT / 2 + bias, -1) @ value


class SharedPositions(nn.Module):
    """Two attentions that add the same table, as T5's do: their heads go together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Separate(), Separate()
        self.first.head = self.second.head = nn.Identity()
        self.table, self.last = nn.Embedding(9, _HEADS), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        distance = torch.arange(5).unsqueeze(1) - torch.arange(5) + 4
        bias = self.table(distance).permute(2, 0, 1).unsqueeze(0)
        for block in (self.first, self.second):
            y = F.scaled_dot_product_attention(*block.parts(x), attn_mask=bias).transpose(1, 2)
            x = x + block.out(y.flatten(2))
        return self.last(x)


GROUPS: Mapping[type[nn.Module], tuple[str, int, Mapping[str, int]]] = {
    Separate: ("value", 4, {"out": 4}),
    Counted: ("value", 4, {"out": 4}),
    BySoftmax: ("value", 4, {"out": 4}),
    Fused: ("qkv", 4, {"out": 4}),
    FusedByHead: ("qkv", 4, {"out": 4}),
    FusedUnbound: ("qkv", 4, {"out": 4}),
    GroupedRotary: ("value", 2, {"out": 8}),
    Positions: ("value", 4, {"out": 4}),
    SquarePositions: ("value", 4, {"out": 4}),
    SharedPositions: ("first.value", 4, {"first.out": 4, "second.out": 4}),
}


def network(kind: type[nn.Module]) -> nn.Module:
    """Return the network with random weights, those of norms included."""
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert isinstance(module.running_mean, Tensor)
                module.running_mean.normal_()
                module.weight.normal_()
    return model
