"""Pruning random small networks: what must hold for every architecture, ratio and multiple."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgesdk.compress.channel_slices import find_layer
from edgesdk.compress.importance import score_groups
from edgesdk.compress.prune import ChannelGroup, find_groups, prune, select_channels
from edgesdk.plan import PrunedGroup
from edgesdk.task import Task

BLOCKS = ("plain", "residual", "depthwise", "grouped", "dense", "excite", "skip", "transposed")


@dataclass(frozen=True)
class Block:
    kind: str
    width: int
    norm: bool


class RandomNetwork(nn.Module):
    """Blocks in a row behind a stem; a linear or convolutional head, or two of them."""

    def __init__(self, stem: int, blocks: list[Block], head: str) -> None:
        super().__init__()
        self.kinds = [block.kind for block in blocks]
        self.stem = nn.Conv2d(2, stem, 3, padding=1)
        self.blocks = nn.ModuleList()
        channels = stem
        for block in blocks:
            self.blocks.append(self.build(block, channels))
            channels = self.width_after(block, channels)
        self.head_kind = head
        # A concatenation flattened without a layer between is refused (see test_prune_networks).
        self.neck = nn.Conv2d(channels, 4, 1) if head == "flatten" else None
        features = 4 * 16 if head == "flatten" else channels
        self.head = nn.Conv2d(channels, 3, 1) if head == "conv" else nn.Linear(features, 3)
        self.second = nn.Linear(channels, 2) if head == "two" else None

    @staticmethod
    def width_after(block: Block, channels: int) -> int:
        if block.kind == "dense":
            return channels + block.width
        return channels if block.kind in ("residual", "excite") else block.width

    @staticmethod
    def build(block: Block, given: int) -> nn.ModuleDict:
        width = block.width
        layers: dict[str, nn.Module] = {}
        if block.kind in ("plain", "dense", "skip"):
            layers["conv"] = nn.Conv2d(given, width, 3, padding=1, bias=not block.norm)
        elif block.kind == "residual":
            layers["inner"] = nn.Conv2d(given, width, 3, padding=1)
            layers["outer"] = nn.Conv2d(width, given, 1)
        elif block.kind == "depthwise":
            layers["filter"] = nn.Conv2d(given, given, 3, padding=1, groups=given)
            layers["point"] = nn.Conv2d(given, width, 1)
        elif block.kind == "grouped":
            layers["point"] = nn.Conv2d(given, width, 1)
            layers["grouped"] = nn.Conv2d(width, width, 3, padding=1, groups=2)
        elif block.kind == "excite":
            layers["squeeze"] = nn.Conv2d(given, width, 1)
            layers["excite"] = nn.Conv2d(width, given, 1)
        else:
            layers["down"] = nn.Conv2d(given, width, 3, 2, 1)
            layers["up"] = nn.ConvTranspose2d(width, width, 2, 2)
        if block.kind == "skip":
            layers["shortcut"] = nn.Conv2d(given, width, 1)
        if block.norm:
            layers["norm"] = nn.BatchNorm2d(RandomNetwork.width_after(block, given))
        return nn.ModuleDict(layers)

    def run(self, kind: str, layers: nn.ModuleDict, x: Tensor) -> Tensor:
        if kind == "plain":
            x = layers["conv"](x)
        elif kind == "dense":
            x = torch.cat([x, layers["conv"](x)], 1)
        elif kind == "skip":
            x = layers["conv"](x) + layers["shortcut"](x)
        elif kind == "residual":
            x = x + layers["outer"](F.relu(layers["inner"](x)))
        elif kind == "depthwise":
            x = layers["point"](F.relu(layers["filter"](x)))
        elif kind == "grouped":
            x = layers["grouped"](F.relu(layers["point"](x)))
        elif kind == "excite":
            gate = layers["excite"](F.relu(layers["squeeze"](x.mean((2, 3), keepdim=True))))
            x = x * torch.sigmoid(gate)
        else:
            x = layers["up"](F.relu(layers["down"](x)))
        return F.relu(layers["norm"](x) if "norm" in layers else x)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x))
        for kind, layers in zip(self.kinds, self.blocks, strict=True):
            x = self.run(kind, layers, x)
        if self.head_kind == "conv":
            return self.head(x)
        if self.neck is not None:
            return self.head(F.relu(self.neck(x)).flatten(1))
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        if self.second is None:
            return self.head(pooled)
        return self.head(pooled), self.second(pooled)


INPUTS = (torch.zeros(2, 2, 4, 4),)
WIDTHS = st.sampled_from([4, 6, 8, 12])
BLOCK = st.builds(Block, kind=st.sampled_from(BLOCKS), width=WIDTHS, norm=st.booleans())


@st.composite
def networks(draw: st.DrawFn) -> RandomNetwork:
    torch.manual_seed(draw(st.integers(0, 100)))
    head = draw(st.sampled_from(["pool", "flatten", "conv", "two"]))
    model = RandomNetwork(draw(WIDTHS), draw(st.lists(BLOCK, min_size=1, max_size=4)), head)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr]
    return model.eval()


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        returned = model(x)
    return [returned] if isinstance(returned, Tensor) else list(returned)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def silence(model: nn.Module, group: ChannelGroup, channels: list[int]) -> None:
    """Set to zero what makes those channels: filters, biases, and the norms' shifts."""
    for member in group.members:
        layer = find_layer(model, member.layer)
        if member.side == "out":
            gone = member.matching(channels)
            for name, parameter in layer.named_parameters():  # type: ignore[union-attr]
                dim = 1 if name == "weight" and isinstance(layer, nn.ConvTranspose2d) else 0
                parameter.data.index_fill_(dim, torch.tensor(gone), 0)
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean[gone] = 0  # type: ignore[index]


@settings(max_examples=40, deadline=None)
@given(networks(), st.floats(0.1, 0.9), st.sampled_from([1, 2, 4]))
def test_any_selection_gives_a_smaller_network_of_the_same_shape(
    model: RandomNetwork, ratio: float, channel_multiple: int
) -> None:
    groups = find_groups(model, INPUTS)
    assert groups
    task = Task(name="random", model=model, example_inputs=INPUTS)
    scores = score_groups(task, groups).per_group
    chosen = select_channels(groups, scores, ratio=ratio, channel_multiple=channel_multiple)
    pruned = prune(model, INPUTS, chosen)
    x = torch.rand(3, 2, 4, 4)
    before, after = outputs(model, x), outputs(pruned, x)
    assert [y.shape for y in after] == [y.shape for y in before]
    assert all(bool(torch.isfinite(y).all()) for y in after)
    assert (size(pruned) < size(model)) == bool(chosen)
    for group in chosen:
        layer = pruned.get_submodule(group.layer)
        assert getattr(layer, "out_channels", None) == group.width_after
        assert group.width_after % channel_multiple == 0


@settings(max_examples=40, deadline=None)
@given(networks(), st.integers(0, 1000))
def test_channels_that_are_zero_make_no_difference(model: RandomNetwork, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = find_groups(model, INPUTS)
    chosen = []
    for group in groups:
        order = torch.randperm(len(group.units), generator=generator).tolist()
        units = [group.units[i] for i in order[: len(order) // 2]]
        channels = sorted(channel for unit in units for channel in unit)
        silence(model, group, channels)
        chosen.append(
            PrunedGroup(layer=group.layer, width_before=group.width, removed=tuple(channels))
        )
    pruned = prune(model, INPUTS, chosen)
    assert size(pruned) < size(model)
    x = torch.randn(3, 2, 4, 4, generator=generator)
    for before, after in zip(outputs(model, x), outputs(pruned, x), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(networks())
def test_every_layer_but_the_heads_can_be_pruned(model: RandomNetwork) -> None:
    """All these structures are supported: whatever is not an output is in some group."""
    covered = {
        member.layer
        for group in find_groups(model, INPUTS)
        for member in group.members
        if member.side == "out"
    }
    convolutions = {name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert convolutions - {"head"} <= covered
