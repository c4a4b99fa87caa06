"""Pruning through every structure the field uses; the networks serve the other tests too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgesdk.compress.prune import find_groups, prune, select_channels, survey_channels
from edgesdk.errors import UnsupportedModel
from edgesdk.plan import PrunedGroup
from edgesdk.task import Tensors, output_tensors
from edgesdk.trace import trace


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.inner = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(24, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.outer(self.inner(x)))
        return self.head(x.mean((2, 3)))


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(12 + 8 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(12 + 8 * i, 8, 3, padding=1) for i in range(2))
        self.head = nn.Linear(28, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norms[2](x)), 1).flatten(1))


class InvertedResiduals(nn.Module):
    """MobileNet blocks: depthwise convolutions, a residual, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.first = self.block(16, 24, 48)
        self.second = self.block(24, 24, 64)
        self.squeeze = nn.Conv2d(24, 8, 1)
        self.excite = nn.Conv2d(8, 24, 1)
        self.head = nn.Linear(24, 5)

    @staticmethod
    def block(given: int, wanted: int, expanded: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(given, expanded, 1, bias=False),
            nn.BatchNorm2d(expanded),
            nn.ReLU6(),
            nn.Conv2d(expanded, expanded, 3, 1, 1, groups=expanded, bias=False),
            nn.BatchNorm2d(expanded),
            nn.Hardswish(),
            nn.Conv2d(expanded, wanted, 1, bias=False),
            nn.BatchNorm2d(wanted),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        x = x + self.second(x)
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.grouped = nn.Conv2d(32, 64, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(8, 64)
        self.last = nn.Conv2d(64, 32, 1)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.head(x + self.last(F.gelu(self.norm(self.grouped(x)))))


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.hidden = nn.Linear(16 * 16, 32)
        self.slope = nn.PReLU(32)
        self.head = nn.Linear(32, 4)

    def reshape(self, x: Tensor) -> Tensor:
        return torch.flatten(x, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.second(F.relu(self.first(x)))), 2)
        return self.head(self.slope(self.hidden(self.reshape(x))))


class HardCodedView(Flattened):
    def reshape(self, x: Tensor) -> Tensor:
        return x.view(-1, 256)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.classes = nn.Linear(16, 3)
        self.value = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.classes(x), self.value(x)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.bottom = nn.Conv2d(8, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.merge = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = self.up(F.relu(self.bottom(skip)))
        return self.head(F.relu(self.merge(torch.cat([x, skip], 1))))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 8, 3)
        self.other = nn.Linear(5, 8)
        self.head = nn.Linear(16, 4)

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        x = F.relu(self.image(image)).mean((2, 3))
        return self.head(torch.cat([x, F.relu(self.other(other))], 1))


class ConcatThenAdd(nn.Module):
    """Two branches, joined, are added to a third: the branches' channels are the groups."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 1)
        self.right = nn.Conv2d(3, 16, 1)
        self.whole = nn.Conv2d(3, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.head = nn.Conv2d(24, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(self.depthwise(joined + self.whole(x)))


class Gated(nn.Module):
    """The halves of one layer multiply: channel c goes with channel c + 16."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 32)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.gate(x).chunk(2, -1)
        return self.head(value * torch.sigmoid(gate))


class ConvNeXt(nn.Module):
    """Channels-last LayerNorms and a bare scale parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.depthwise = nn.Conv2d(32, 32, 7, padding=3, groups=32)
        self.norm = nn.LayerNorm(32)
        self.expand = nn.Linear(32, 64)
        self.shrink = nn.Linear(64, 32)
        self.scale = nn.Parameter(torch.rand(32))
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.shrink(F.gelu(self.expand(y)))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.layer(x)[:, 0])


IMAGE = (torch.zeros(1, 3, 16, 16),)
NETWORKS: dict[type[nn.Module], tuple[Tensors, dict[str, int]]] = {
    Residual: (IMAGE, {"stem.0": 1, "inner.0": 1}),
    DenseBlock: (IMAGE, {"stem": 1, "convs.0": 1, "convs.1": 1}),
    InvertedResiduals: (
        IMAGE,
        {"stem": 1, "first.0": 1, "first.6": 1, "second.0": 1, "squeeze": 1},
    ),
    # GroupNorm's 8 blocks of 8 and the convolution's 4 of 16: one channel of each block of 8.
    Grouped: (IMAGE, {"first": 4, "grouped": 8}),
    Flattened: ((torch.zeros(1, 1, 8, 8),), {"first": 1, "second": 1, "hidden": 1}),
    HardCodedView: ((torch.zeros(1, 1, 8, 8),), {"first": 1, "hidden": 1}),
    TwoHeads: ((torch.zeros(1, 10),), {"trunk.0": 1, "trunk.2": 1, "value.0": 1}),
    UNet: (IMAGE, {"down": 1, "bottom": 1, "up": 1, "merge": 1}),
    TwoInputs: ((torch.zeros(1, 3, 8, 8), torch.zeros(1, 5)), {"image": 1, "other": 1}),
    ConcatThenAdd: (IMAGE, {"left": 1, "right": 1}),
    Gated: ((torch.zeros(1, 8),), {"gate": 2}),
    ConvNeXt: (IMAGE, {"patch": 1, "expand": 1}),
    VisionTransformer: (IMAGE, {"layer.linear1": 1}),
}


def make(network: type[nn.Module]) -> nn.Module:
    """A network whose batch norms have statistics and scales as after training."""
    torch.manual_seed(0)
    model = network().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def rising(model: nn.Module, inputs: Tensors) -> dict[str, list[float]]:
    """Scores that make the first channels of every group the least important."""
    return {g.layer: [float(c) for c in range(g.width)] for g in find_groups(model, inputs)}


@pytest.mark.parametrize("network", NETWORKS)
def test_groups_of(network: type[nn.Module]) -> None:
    inputs, expected = NETWORKS[network]
    groups = find_groups(make(network), inputs)
    assert {group.layer: group.unit for group in groups} == expected


@pytest.mark.parametrize("network", NETWORKS)
def test_pruned_networks_are_plain_smaller_and_exportable(network: type[nn.Module]) -> None:
    model, inputs = make(network).train(), NETWORKS[network][0]
    next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    groups = find_groups(model, inputs)
    chosen = select_channels(groups, rising(model, inputs), ratio=0.5, channel_multiple=4)
    assert chosen
    pruned = prune(model, inputs, chosen)
    assert type(pruned) is type(model)
    assert size(pruned) < size(model)
    modules = dict(model.named_modules())
    for name, module in pruned.named_modules():
        assert type(module) is type(modules[name])
        assert vars(module).keys() == vars(modules[name]).keys()
        assert not module._forward_hooks
        assert module.training
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert flags == {name: p.requires_grad for name, p in pruned.named_parameters()}
    assert pruned.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert trace(pruned, inputs, name="m").macs < trace(model, inputs, name="m").macs
    for group in chosen:
        layer = pruned.get_submodule(group.layer)
        assert layer.weight.shape[isinstance(layer, nn.ConvTranspose2d)] == group.width_after
    shapes = [output.shape for output in output_tensors(model.eval()(*inputs))]
    assert [output.shape for output in output_tensors(pruned.eval()(*inputs))] == shapes


@pytest.mark.parametrize("network", NETWORKS)
def test_a_replay_is_bit_identical(network: type[nn.Module]) -> None:
    model, inputs = make(network), NETWORKS[network][0]
    chosen = select_channels(
        find_groups(model, inputs), rising(model, inputs), ratio=0.4, channel_multiple=1
    )
    first = prune(model, inputs, chosen).state_dict()
    again = prune(make(network), inputs, tuple(reversed(chosen))).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_the_channels_that_stay_are_the_original_ones() -> None:
    model = make(Residual)
    removed = (1, 2, 11)
    kept = [c for c in range(24) if c not in removed]
    group = PrunedGroup(layer="inner.0", width_before=24, removed=removed)
    pruned = prune(model, IMAGE, [group])
    assert torch.equal(pruned.inner[0].weight, model.inner[0].weight[kept])  # type: ignore[index]
    assert torch.equal(pruned.inner[1].running_var, model.inner[1].running_var[kept])  # type: ignore[index]
    assert torch.equal(pruned.outer[0].weight, model.outer[0].weight[:, kept])  # type: ignore[index]
    assert torch.equal(pruned.stem[0].weight, model.stem[0].weight)  # type: ignore[index]


class Shuffled(nn.Module):
    """Channels change places in a reshape that autograd's record does not tell about."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.second = nn.Conv2d(16, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(self.second(x)))


class BatchAbsorbs(nn.Module):
    """With fewer channels the fixed view still runs, on another number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.hidden = nn.Linear(64, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.conv(x).view(-1, 64))))


class ConcatFlattened(nn.Module):
    """Torch-Pruning takes the flattened features for the channels of the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3)
        self.right = nn.Conv2d(3, 4, 3)
        self.hidden = nn.Linear(8 * 36, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(F.relu(self.hidden(x.flatten(1))))


class SharedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.third = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        return self.head(F.relu(self.third(F.relu(x))))


class WeightNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.third = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.third(F.relu(self.first(x)))))


class Softmaxed(WeightNormed):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.third(self.first(x).softmax(-1))))


class InputSkip(nn.Module):
    """Channels that are added to the model's input cannot go; those joined to it may stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.back = nn.Conv2d(16, 3, 3, padding=1)
        self.joined = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.back(F.relu(self.first(x)))
        return self.head(F.relu(self.joined(torch.cat([x, y], 1))))


class SpatialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.gate = nn.Conv2d(2, 1, 3, padding=1)
        self.second = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(F.relu(self.second(x * torch.sigmoid(self.gate(summary)))))


class GroupedQuery(nn.Module):
    """Attention whose keys and values serve two heads each."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(16, 16), nn.Linear(16, 16)
        self.key, self.value = nn.Linear(16, 8), nn.Linear(16, 8)
        self.hidden, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        query = self.query(x).view(n, length, 4, 4).transpose(1, 2)
        key, value = (
            part.view(n, length, 2, 4)
            .transpose(1, 2)[:, :, None]
            .expand(n, 2, 2, length, 4)
            .reshape(n, 4, length, 4)
            for part in (self.key(x), self.value(x))
        )
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return self.head(F.relu(self.hidden(x + self.out(y.reshape(n, length, width)))))


class Conv1D(nn.Module):
    """GPT-2's linear layer, weights transposed, a type that Torch-Pruning leaves alone."""

    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(given, wanted) / given**0.5)
        self.bias = nn.Parameter(torch.zeros(wanted))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class GPT2MLP(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Linear(8, 16), nn.GELU(), Conv1D(16, 32), nn.GELU(), Conv1D(32, 16)]
        super().__init__(*layers, nn.LayerNorm(16), nn.Linear(16, 5))


@pytest.mark.parametrize(
    ("network", "inputs", "prunable", "reasons"),
    [
        (Shuffled, IMAGE, {"second"}, {"first": "computes something else"}),
        (BatchAbsorbs, IMAGE, {"hidden"}, {"conv": "the model fails"}),
        (HardCodedView, NETWORKS[HardCodedView][0], {"first", "hidden"}, {"second": "fails"}),
        (ConcatFlattened, (torch.zeros(1, 3, 8, 8),), {"hidden"}, {"left": "", "right": ""}),
        (
            SharedWeights,
            (torch.zeros(1, 8),),
            {"third"},
            {"first": "shares its weights", "second": "shares its weights"},
        ),
        (WeightNormed, (torch.zeros(1, 8),), {"third"}, {"first": "parametrization"}),
        (Softmaxed, (torch.zeros(1, 8),), {"third"}, {"first": "computes something else"}),
        (InputSkip, IMAGE, {"first", "joined"}, {"back": "fails"}),
        (SpatialAttention, IMAGE, {"second"}, {"first": "the same channel of gate"}),
        (VisionTransformer, IMAGE, {"layer.linear1"}, {"patch": "MultiheadAttention"}),
        (GroupedQuery, (torch.zeros(1, 5, 16),), {"hidden"}, {"key": "", "query": "", "out": ""}),
        (GPT2MLP, (torch.zeros(2, 8),), set(), {"0": "", "2": "Conv1D", "6": "outputs of"}),
    ],
)
def test_what_cannot_be_pruned_says_why(
    network: type[nn.Module], inputs: Tensors, prunable: set[str], reasons: dict[str, str]
) -> None:
    survey = survey_channels(make(network), inputs)
    assert {group.layer for group in survey.groups} == prunable
    for layer, reason in reasons.items():
        assert reason in survey.refused[layer]
    assert not prunable.intersection(survey.refused)


def test_one_layer_has_nothing_to_prune() -> None:
    survey = survey_channels(nn.Linear(4, 3), (torch.zeros(1, 4),))
    assert survey.groups == ()
    assert survey.refused == {"": "its channels are outputs of the model"}


@pytest.mark.parametrize(
    ("network", "inputs", "group"),
    [
        (HardCodedView, NETWORKS[HardCodedView][0], ("second", 16, (0, 1, 2, 3))),
        (BatchAbsorbs, IMAGE, ("conv", 16, (0, 1, 2, 3))),
        (Shuffled, IMAGE, ("first", 16, (0, 3))),
        (Softmaxed, (torch.zeros(1, 8),), ("first", 8, (0, 3))),
        (SharedWeights, (torch.zeros(1, 8),), ("first", 8, (0,))),
        (Residual, IMAGE, ("head", 5, (0,))),
        (VisionTransformer, IMAGE, ("patch", 32, (0, 8, 16, 24))),
    ],
)
def test_pruning_it_all_the_same_is_refused(
    network: type[nn.Module], inputs: Tensors, group: tuple[str, int, tuple[int, ...]]
) -> None:
    layer, width, removed = group
    request = PrunedGroup(layer=layer, width_before=width, removed=removed)
    with pytest.raises(UnsupportedModel):
        prune(make(network), inputs, [request])
