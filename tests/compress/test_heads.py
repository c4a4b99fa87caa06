"""Whole attention heads go: what is left computes what the network computes without them."""

from __future__ import annotations

import pytest
import torch
from attention_nets import GROUPS, TOKENS, Counted, FusedByHead, GroupedRotary, Separate, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgesdk.compress.channel_group import ChannelGroup
from edgesdk.compress.prune import prune, select_channels, survey_channels
from edgesdk.document import from_builtins, to_builtins
from edgesdk.errors import UsageError
from edgesdk.plan import Prune, PrunedGroup
from edgesdk.report.words import explain_step


def without(model: nn.Module, readers: dict[str, int], gone: set[int]) -> Tensor:
    """The network's output where its readers see zeros for some heads, by hooks on the original."""
    handles = []
    for name, features in readers.items():

        def hide(_: nn.Module, inputs: tuple[Tensor, ...], each: int = features) -> Tensor:
            shown = inputs[0].clone()
            for head in gone:
                shown[..., head * each : (head + 1) * each] = 0
            return shown

        handles.append(model.get_submodule(name).register_forward_pre_hook(hide))
    with torch.no_grad():
        output: Tensor = model(*TOKENS)
    for handle in handles:
        handle.remove()
    return output


def request(model: nn.Module, name: str, gone: set[int]) -> PrunedGroup:
    group = next(g for g in survey_channels(model, TOKENS).groups if g.layer == name)
    removed = sorted(channel for head in gone for channel in group.units[head])
    return PrunedGroup(
        layer=name, width_before=group.width, removed=tuple(removed), heads=group.heads
    )


@pytest.mark.parametrize("kind", GROUPS)
def test_a_pruned_attention_is_the_original_whose_reader_sees_no_such_heads(
    kind: type[nn.Module],
) -> None:
    name, heads, readers = GROUPS[kind]
    model = network(kind)
    for gone in ({0}, {heads - 1}, {*range(1, heads)}):
        smaller = prune(model, TOKENS, [request(model, name, gone)])
        expected = without(model, dict(readers), gone)
        with torch.no_grad():
            torch.testing.assert_close(smaller(*TOKENS), expected, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(model(*TOKENS), expected, atol=1e-3)


class Drawn(nn.Module):
    """Attention of any widths; ``fused``: how many of queries, keys and values one layer gives."""

    def __init__(self, *, pairs: int, served: int, key: int, value: int, fused: int) -> None:
        super().__init__()
        self.each, self.served = (key, key, value), served
        sizes = [pairs * served * key, pairs * key, pairs * value]
        self.sizes = [[size] for size in sizes[: 3 - fused]] + [sizes[3 - fused :]] * (fused > 0)
        self.layers = nn.ModuleList(nn.Linear(16, sum(size)) for size in self.sizes)
        self.out = nn.Linear(pairs * served * value, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for layer, sizes in zip(self.layers, self.sizes, strict=True):
            y = layer(x)
            # A share of what there is: numbers would be of the whole network.
            shares = [size * y.shape[-1] // sum(sizes) for size in sizes]
            parts += y.split(shares, -1)
        query, key, value = (
            part.view(*x.shape[:2], -1, each).transpose(1, 2)
            for part, each in zip(parts, self.each, strict=True)
        )
        y = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return self.head(x + self.out(y.transpose(1, 2).flatten(2)))


@st.composite
def attentions(draw: st.DrawFn) -> tuple[Drawn, set[int], int]:
    """An attention, some of its heads of keys and values, and the features that each gives."""
    pairs, served, value = draw(st.integers(2, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    gone = draw(st.sets(st.integers(0, pairs - 1), min_size=1, max_size=pairs - 1))
    key, fused = draw(st.integers(1, 4)), draw(st.sampled_from([0, 2, 3]))
    torch.manual_seed(0)
    model = Drawn(pairs=pairs, served=served, key=key, value=value, fused=fused)
    return model.eval(), gone, served * value


@settings(max_examples=12, deadline=None)
@given(attentions())
def test_heads_of_any_width_go(drawn: tuple[Drawn, set[int], int]) -> None:
    model, gone, each = drawn
    name = f"layers.{len(model.layers) - 1}"
    smaller = prune(model, TOKENS, [request(model, name, gone)])
    with torch.no_grad():
        expected = without(model, {"out": each}, gone)
        torch.testing.assert_close(smaller(*TOKENS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", GROUPS)
def test_heads_are_a_group_and_nothing_else_of_an_attention_is(kind: type[nn.Module]) -> None:
    name, heads, _ = GROUPS[kind]
    survey = survey_channels(network(kind), TOKENS)
    (group,) = [group for group in survey.groups if group.unit_name == "heads"]
    assert (group.layer, group.heads) == (name, heads)
    assert not {g.layer for g in survey.groups} & {"query", "key"}
    assert name not in survey.refused


def test_a_group_of_heads_travels_to_other_processes() -> None:
    groups = survey_channels(network(FusedByHead), TOKENS).groups
    packed = to_builtins(groups)
    assert from_builtins(tuple[ChannelGroup, ...], packed, what="groups") == groups


def test_only_whole_heads_are_chosen_and_the_plan_says_so() -> None:
    model = network(GroupedRotary)
    groups = survey_channels(model, TOKENS).groups
    scores = {g.layer: [float(c) for c in range(g.width)] for g in groups}
    (chosen,) = select_channels(groups, scores, ratio=0.5, channel_multiple=1)
    assert chosen == PrunedGroup(layer="value", width_before=8, removed=(0, 1, 2, 3), heads=2)
    step = Prune(ratio=0.5, importance="magnitude", channel_multiple=1, groups=(chosen,))
    assert "value 2 → 1 heads" in explain_step(step)
    smaller = prune(model, TOKENS, [chosen])
    again = prune(model, TOKENS, [chosen])
    assert all(
        torch.equal(a, b) for a, b in zip(smaller.parameters(), again.parameters(), strict=True)
    )
    assert smaller.query.out_features == smaller.out.in_features == 8
    assert smaller.key.out_features == smaller.value.out_features == 4


def test_a_half_of_a_head_and_another_number_of_heads_are_usage_errors() -> None:
    model = network(Separate)
    with pytest.raises(UsageError, match="only go together"):
        prune(model, TOKENS, [PrunedGroup(layer="value", width_before=16, removed=(0, 1))])
    wrong = PrunedGroup(layer="value", width_before=16, removed=(0, 1, 2, 3), heads=2)
    with pytest.raises(UsageError, match="4 heads"):
        prune(model, TOKENS, [wrong])


class WithMlp(GroupedRotary):
    """Torch-Pruning cannot follow the rotation; the hidden layer behind it is found even so."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.gate = nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        y = y + self.down(self.norm(torch.relu(self.up(y))))
        return y * torch.sigmoid(self.gate(y)).mean()


def test_hidden_layers_of_a_network_that_the_engine_cannot_follow() -> None:
    model = network(WithMlp)
    survey = survey_channels(model, TOKENS)
    assert [group.layer for group in survey.groups] == ["value", "up"]
    assert "Torch-Pruning raised" in survey.refused["down"]
    gone = (1, 2, 5, 6)
    smaller = prune(model, TOKENS, [PrunedGroup(layer="up", width_before=8, removed=gone)])
    kept = [channel for channel in range(8) if channel not in gone]
    model.up.weight, model.up.bias = (
        nn.Parameter(parameter[kept]) for parameter in (model.up.weight, model.up.bias)
    )
    model.norm.weight, model.norm.bias = (
        nn.Parameter(parameter[kept]) for parameter in (model.norm.weight, model.norm.bias)
    )
    model.norm.normalized_shape = (4,)
    model.down.weight = nn.Parameter(model.down.weight[:, kept])
    with torch.no_grad():
        torch.testing.assert_close(smaller(*TOKENS), model(*TOKENS))


class OneHead(Separate):
    def split(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)


class Written(Separate):
    """How many heads there are is written into forward, where nothing can change it."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], 4, 4).transpose(1, 2)


class Borrowed(Counted):
    """Gives its heads together the width of what it reads, as PVT does. With half of both gone
    it fits by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.attend(*self.parts(x)).transpose(1, 2)
        return self.head(x + self.out(y.reshape(x.shape)))


@pytest.mark.parametrize(
    ("kind", "layer", "reason"),
    [
        (Borrowed, "value", "the model fails: RuntimeError: shape '[1, 5, "),
        (OneHead, "value", "one head of keys and values"),
        (Written, "value", "the model fails: RuntimeError: shape '[1, 5, 4, 4]'"),
    ],
)
def test_an_attention_that_keeps_its_heads_says_why(
    kind: type[nn.Module], layer: str, reason: str
) -> None:
    survey = survey_channels(network(kind), TOKENS)
    assert not any(group.heads for group in survey.groups)
    assert reason in survey.refused[layer]


class Tied(Separate):
    """Queries and keys share one weight: to cut it for one is to cut it for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.key.weight = self.query.weight


class Normed(Separate):
    """The values' weight is computed from a direction and a length."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.value)


@pytest.mark.parametrize(("kind", "reason"), [(Tied, "shares its weights"), (Normed, "")])
def test_weights_that_are_shared_or_computed_keep_their_heads(
    kind: type[nn.Module], reason: str
) -> None:
    survey = survey_channels(network(kind), TOKENS)
    assert not any(group.heads for group in survey.groups)
    assert reason in survey.refused["value"]
