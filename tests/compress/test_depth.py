"""Blocks that go: the module without them, and requests that do not fit."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shortcuts import IMAGES, Inside, Inverted, resnet
from torch import Tensor, nn

from edgesdk.compress.depth import check_blocks, shortened, survey_blocks
from edgesdk.compress.prune import find_groups, prune
from edgesdk.compress.recalibrate import observe_norms, recalibrate, recalibrated_for
from edgesdk.errors import UsageError
from edgesdk.plan import PrunedGroup
from edgesdk.residual import computes_alike, residual_blocks, without_blocks
from edgesdk.trace import trace

BLOCKS = ("stages.0.0", "stages.0.1", "stages.1.1")
BATCHES = [(torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(s)),) for s in (0, 1)]


def test_the_survey_names_what_can_go() -> None:
    model = resnet()
    survey = survey_blocks(model, IMAGES, trace(model, IMAGES, name="m"))
    assert [block.name for block in survey.blocks] == list(BLOCKS)
    assert survey.refused == {}


class Nosy(nn.Module):
    """A network that looks into one of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Inside(Inverted(8, 4), Inverted(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        first = self.inside.rest[0]
        assert isinstance(first, Inverted)
        logits: Tensor = self.inside(x)
        return logits * len(first.body)


def test_a_block_that_the_network_looks_into_stays_and_the_other_goes() -> None:
    model = Nosy().eval()
    survey = survey_blocks(model, IMAGES, trace(model, IMAGES, name="m"))
    assert [block.name for block in survey.blocks] == ["inside.rest.1"]
    assert list(survey.refused) == ["inside.rest.0"]


def test_a_block_that_shares_its_weights_stays() -> None:
    block = Inverted(8, 4)
    model = Inside(block, Inverted(8, 4), Inverted(8, 4)).eval()
    model.rest[1].body[0].weight = block.body[0].weight  # type: ignore[union-attr, index]
    survey = survey_blocks(model, IMAGES, trace(model, IMAGES, name="m"))
    assert [block.name for block in survey.blocks] == ["rest.2"]
    assert set(survey.refused.values()) == {"it shares weights with the rest of the network"}
    with pytest.raises(UsageError, match=r"'rest\.1' is no residual block"):
        check_blocks(model, IMAGES, ["rest.1"])


def test_one_that_is_called_in_two_places_stays() -> None:
    block = Inverted(8, 4)
    model = Inside(block, nn.Conv2d(8, 8, 1), block).eval()
    assert survey_blocks(model, IMAGES, trace(model, IMAGES, name="m")).blocks == ()


class Masked(nn.Module):
    """Attention without a mask of its own: PyTorch makes one constant for all such modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer() for _ in range(3)))
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, None, causal=False)
        logits: Tensor = self.head(x.mean(1))
        return logits


class Layer(nn.Module):
    """A transformer's layer, norms first: two sums in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        self.query, self.mlp = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 16), nn.GELU())
        self.out = nn.Linear(16, 8)

    def forward(self, x: Tensor, _mask: None, *, causal: bool) -> Tensor:
        assert not causal
        read = self.query(self.first(x))
        mask = torch.zeros(1, 1).expand(5, 5)
        x = x + nn.functional.scaled_dot_product_attention(read, read, read, attn_mask=mask)
        return x + self.out(self.mlp(self.second(x)))


def test_a_transformers_layers_can_go() -> None:
    model, inputs = Masked().eval(), (torch.randn(1, 5, 6),)
    survey = survey_blocks(model, inputs, trace(model, inputs, name="m"))
    assert [block.name for block in survey.blocks] == ["layers.0", "layers.1", "layers.2"]
    short = prune(model, inputs, (), blocks=["layers.1"])
    graph = trace(short, inputs, name="m")
    assert not [op for op in graph.ops if op.layer.startswith("layers.1")]


@settings(max_examples=6)
@given(
    gone=st.sets(st.sampled_from(BLOCKS), min_size=1),
    kept=st.tuples(*[st.integers(2, 8)] * 3),
)
def test_a_pruned_network_lacks_the_blocks_and_nothing_else(
    gone: set[str], kept: tuple[int, ...]
) -> None:
    """The graph of what is left is that of the network with its channels pruned and all blocks,
    without the blocks; and it computes what skipping them computes."""
    model, names = resnet(), sorted(gone)
    groups = [
        PrunedGroup(
            layer=group.layer, width_before=group.width, removed=tuple(range(group.width - width))
        )
        for group, width in zip(find_groups(model, IMAGES), kept, strict=False)
        if width < group.width
    ]
    whole = prune(model, IMAGES, groups)
    short = prune(model, IMAGES, groups, blocks=names)
    graph = trace(whole, IMAGES, name="m")
    blocks = [block for block in residual_blocks(graph) if block.name in gone]
    assert computes_alike(without_blocks(graph, blocks), trace(short, IMAGES, name="m"))
    for name in names:
        assert isinstance(short.get_submodule(name), nn.Identity)
        whole.get_submodule(name).forward = lambda x: x  # type: ignore[method-assign]
    with torch.no_grad():
        assert torch.equal(short(BATCHES[0][0]), whole(BATCHES[0][0]))


def test_the_model_itself_stays_as_it_is() -> None:
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    short = prune(model, IMAGES, (), blocks=BLOCKS)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert set(short.state_dict()) < set(before)
    assert not short.training


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["stages.0.9"], ["'stages.0.9' is no residual block", "stages.0.0"]),
        (["stages.1.0"], ["'stages.1.0' is no residual block", "stages.1.1"]),
        (["conv1"], ["'conv1' is no residual block"]),
        (["stages.0.0", "stages.0.0"], ["there twice"]),
        (["../x"], ["is no residual block"]),
    ],
)
def test_blocks_that_cannot_go_are_a_usage_error(names: list[str], words: list[str]) -> None:
    for call in (check_blocks, lambda m, i, n: prune(m, i, (), blocks=n)):
        with pytest.raises(UsageError) as caught:
            call(resnet(), IMAGES, names)
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_blocks_that_the_network_looks_into_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"inside\.rest\.0 cannot go"):
        check_blocks(Nosy().eval(), IMAGES, ["inside.rest.0"])


def test_batch_norms_follow_a_block_that_goes() -> None:
    """Those behind the block move, those in front of it stay, and the pruned network has them."""
    model = resnet()
    followed = recalibrated_for(model, IMAGES, (), BATCHES, blocks=["stages.0.1"])
    wanted = recalibrate(shortened(model, ["stages.0.1"]), observe_norms(model, BATCHES))
    short = prune(followed, IMAGES, (), blocks=["stages.0.1"])
    state, other = short.state_dict(), wanted.state_dict()
    assert set(state) == set(other)
    assert all(torch.equal(state[name], other[name]) for name in state)
    before = model.state_dict()
    moved = {name for name in state if not torch.allclose(state[name], before[name], rtol=1e-4)}
    assert {name.split(".running")[0] for name in moved} == {
        ".".join(parts) for parts in itertools.product(["stages.1.0", "stages.1.1"], ["bn1", "bn2"])
    }
