"""Requests that do not fit the model get one clear answer."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from test_prune_networks import (
    IMAGE,
    NETWORKS,
    ConcatThenAdd,
    Gated,
    Grouped,
    Residual,
    Shuffled,
    TwoHeads,
    make,
)
from torch import Tensor, nn

from edgesdk.compress.channel_groups import describe_group
from edgesdk.compress.dependency import Dependencies, prunable_copy
from edgesdk.compress.prune import find_groups, prune, survey_channels
from edgesdk.compress.removal import prove_removal, sample_structure
from edgesdk.errors import EdgeSDKError, TaskError, UnsupportedModel, UsageError
from edgesdk.plan import PrunedGroup


def request(layer: str, width: int, *removed: int) -> PrunedGroup:
    return PrunedGroup(layer=layer, width_before=width, removed=removed)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            [request("iner.0", 24, 1)],
            ["no convolution, linear or recurrent layer 'iner.0'", "inner.0"],
        ),
        ([request("inner.1", 24, 1)], ["no convolution, linear or recurrent layer 'inner.1'"]),
        ([request("inner.0", 32, 1)], ["has 24 output channels", "from 32"]),
        ([request("inner.0", 24, 24)], ["cannot lose", "0 to 23"]),
        ([request("inner.0", 24, -1)], ["cannot lose"]),
        ([request("inner.0", 24, 1, 1)], ["cannot lose"]),
        ([request("inner.0", 24)], ["cannot lose"]),
        ([request("inner.0", 24, *range(24))], ["cannot lose"]),
        (
            [request("stem.0", 16, 1), request("outer.0", 16, 2)],
            ["'stem.0' and 'outer.0' go together"],
        ),
        ([request("inner.0", 24, 1), request("inner.0", 24, 2)], ["'inner.0' is there twice"]),
    ],
)
def test_groups_of_another_model_are_a_usage_error(
    groups: list[PrunedGroup], words: list[str]
) -> None:
    model = make(Residual)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UsageError) as caught:
        prune(model, IMAGE, groups)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("network", "group"),
    [(Grouped, request("grouped", 64, 0, 8)), (Gated, request("gate", 32, 3))],
)
def test_channels_that_go_together_cannot_be_torn(
    network: type[nn.Module], group: PrunedGroup
) -> None:
    with pytest.raises(UsageError, match="only go together"):
        prune(make(network), NETWORKS[network][0], [group])


def test_overlapping_requests_of_partly_coupled_layers() -> None:
    groups = [request("left", 8, 2), request("whole", 24, 20)]
    with pytest.raises(UsageError, match="go together"):
        prune(make(ConcatThenAdd), IMAGE, groups)


def test_without_groups_the_result_is_a_copy() -> None:
    model = make(Residual)
    copied = prune(model, IMAGE, [])
    assert copied is not model
    assert torch.equal(copied(torch.ones(1, 3, 8, 8)), model(torch.ones(1, 3, 8, 8)))


def test_an_unused_layer_has_no_group() -> None:
    model = make(TwoHeads)
    model.unused = nn.Linear(4, 4)
    inputs = NETWORKS[TwoHeads][0]
    assert "unused" not in {group.layer for group in find_groups(model, inputs)}
    with pytest.raises(UnsupportedModel, match="unused"):
        prune(model, inputs, [request("unused", 4, 1)])


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing")


class Detached(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


def uncopyable() -> nn.Module:
    model = nn.Linear(4, 4)
    model.cached = model(torch.zeros(1, 4))  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (nn.Sequential(nn.Linear(4, 4), Failing()), TaskError),
        (Detached(nn.Linear(4, 8), nn.Linear(8, 2)), UnsupportedModel),
        (uncopyable(), UnsupportedModel),
    ],
)
def test_models_that_cannot_be_followed(model: nn.Module, error: type[EdgeSDKError]) -> None:
    with pytest.raises(error):
        find_groups(model, (torch.zeros(1, 4),))


@pytest.mark.parametrize("shift", [1, -1])
def test_the_proof_notices_a_wrongly_mapped_channel(shift: int) -> None:
    """The comparison itself, with a reader's channels off by one as after a wrong offset."""
    model = prunable_copy(make(Residual))
    group = describe_group(Dependencies(prunable_copy(model), IMAGE), "inner.0")
    sample = sample_structure(model, IMAGE)
    prove_removal(sample, [(group, [3, 7])])
    members = tuple(
        replace(m, indices=(*m.indices[shift:], *m.indices[:shift])) if m.side == "in" else m
        for m in group.members
    )
    with pytest.raises(UnsupportedModel, match="computes something else"):
        prove_removal(sample, [(replace(group, members=members), [3, 7])])


def test_trained_weights_do_not_hide_a_dependency() -> None:
    """A shuffle behind a scale of zero, as residual branches have it before training."""
    model = make(Shuffled)
    model.second.weight.data.zero_()
    assert "computes something else" in survey_channels(model, IMAGE).refused["first"]


class SinglePrecision(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x @ torch.eye(x.shape[-1]))


def test_a_model_that_insists_on_single_precision() -> None:
    model = SinglePrecision(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    assert [group.layer for group in find_groups(model, (torch.zeros(1, 6),))] == ["0"]


def test_the_proof_notices_that_nothing_was_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dependencies, "remove", lambda *_: None)
    with pytest.raises(UnsupportedModel, match=r"24 channels of layer 'inner\.0' 24 are left"):
        prune(make(Residual), IMAGE, [request("inner.0", 24, 1)])


class Logarithm(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.log(x))


def test_inputs_with_a_domain_are_kept_to_it() -> None:
    model = Logarithm(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = (torch.rand(1, 64) + 0.1,)
    assert [group.layer for group in find_groups(model, inputs)] == ["0"]
