"""Layers that become two: what they answer, against every other layer of that rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesdk.compress import factorize
from edgesdk.compress.factorize import (
    check_ranks,
    factorized,
    layer_directions,
    split_layer,
    survey_splits,
)
from edgesdk.errors import UsageError
from edgesdk.low_rank import splittable_ops
from edgesdk.trace import trace


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(seed: int, count: int, size: int, used: int) -> Tensor:
    """Return inputs ``[count, size]`` around a mean, that lie in ``used`` directions."""
    mixing = torch.randn(used, size, generator=generator(seed))
    mean = torch.randn(size, generator=generator(seed + 1))
    return torch.randn(count, used, generator=generator(seed + 2)) @ mixing + mean


def linear(seed: int, read: int = 10, out: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(read, out)).eval()


def error(model: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return float((model(inputs) - other(inputs)).double().square().mean())


def split(model: nn.Sequential, rank: int, *inputs: Tensor) -> nn.Sequential:
    """Return the model's only layer split, as it answers on those inputs."""
    batches = [(batch,) for batch in inputs]
    [(_, directions)] = layer_directions(model, ["0"], batches)
    return split_layer(model[0], directions, rank)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, 6), moved=st.integers(0, 10**6))
def test_no_layer_of_that_rank_is_nearer_on_the_inputs(seed: int, rank: int, moved: int) -> None:
    """Neither the plain SVD of the weights nor the found one a little moved answers better."""
    model, inputs = linear(seed), correlated(seed, 200, 10, 10)
    found, near = split(model, rank, inputs), split(model, rank, inputs)
    own = error(model, found, inputs)
    # The weights have a thousandth of a say.
    assert own <= 1.01 * error(model, split(model, rank), inputs) + 1e-9
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator(moved)))
    assert own <= 1.01 * error(model, near, inputs) + 1e-9


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, 6))
def test_the_error_is_the_variance_left_out(seed: int, rank: int) -> None:
    """The mean squared error of the best rank is the sum of the smallest eigenvalues."""
    model, inputs = linear(seed), correlated(seed, 200, 10, 10)
    with torch.no_grad():
        answers = model(inputs).double()
    values = torch.linalg.eigvalsh(torch.cov(answers.T, correction=0))
    found = error(model, split(model, rank, inputs[:100], inputs[100:]), inputs)
    assert 8 * found == pytest.approx(float(values[: 8 - rank].sum()), 0.02)


def test_without_inputs_it_is_the_svd_of_the_weights() -> None:
    model = linear(3)
    found = factorized(model, (torch.zeros(1, 10),), {"0": 3}, ())
    product = found[0][1].weight @ found[0][0].weight  # type: ignore[index]
    u, s, v = torch.linalg.svd(model[0].weight.double())
    wanted = u[:, :3] @ torch.diag(s[:3]) @ v[:3]
    assert torch.allclose(product.double(), wanted, atol=1e-5)
    assert torch.allclose(found[0][1].bias, model[0].bias)  # type: ignore[index]


def test_inputs_that_lie_in_few_directions_lose_nothing() -> None:
    model, inputs = linear(4), correlated(4, 100, 10, 3)
    found = factorized(model, (inputs[:1],), {"0": 3}, [(inputs,)])
    with torch.no_grad():
        power = float(model(inputs).var())
    assert error(model, found, inputs) < 1e-6 * power
    assert error(model, split(model, 3), inputs) > 0.01 * power


def test_halves_share_each_directions_size() -> None:
    """Neither half's directions range further than the square root of what the answers do."""
    model, inputs = linear(5), correlated(5, 400, 10, 10)
    first, second = factorized(model, (inputs[:1],), {"0": 6}, [(inputs,)])[0]  # type: ignore[index]
    with torch.no_grad():
        between = first(inputs).double().std(0, correction=0)
    columns = second.weight.double().norm(dim=0)
    ratio = between / columns
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=0.02)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 12, 3, padding=1),
        nn.Conv2d(4, 12, 3, stride=2, dilation=2, bias=False),
        nn.Conv2d(4, 12, 1),
        nn.Conv2d(4, 12, (3, 1), padding="same"),
        nn.Conv1d(4, 12, 5, padding=2),
    ],
)
def test_convolutions_keep_their_mean_and_most_of_their_answers(layer: nn.Module) -> None:
    size = (64, 4, 9, 9) if isinstance(layer, nn.Conv2d) else (64, 4, 20)
    inputs = torch.randn(size, generator=generator(7)).cumsum(-1)
    model = nn.Sequential(layer).eval()
    found = factorized(model, (inputs[:1],), {"0": 3}, [(inputs[:32],), (inputs[32:],)])
    with torch.no_grad():
        wanted, got = model(inputs), found(inputs)
    dims = [d for d in range(wanted.dim()) if d != 1]
    assert torch.allclose(wanted.mean(dims), got.mean(dims), atol=1e-3)
    assert (wanted - got).square().mean() < 0.5 * wanted.var()
    exact = factorized(model, (inputs[:1],), {"0": min(11, 4 * layer.weight[0, 0].numel() - 1)}, ())
    assert exact(inputs).shape == wanted.shape


class Network(nn.Module):
    """A network one of whose layers is looked into, and one that is no plain layer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.free = nn.Linear(12, 12), nn.Linear(12, 12)
        self.own = Own(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.free(self.seen(x))) * self.seen.out_features


class Own(nn.Linear):
    """A layer of somebody's own, which may do more than it says."""


def test_layers_that_the_network_looks_into_stay() -> None:
    model, inputs = Network().eval(), (torch.randn(1, 12),)
    graph = trace(model, inputs, name="m")
    layers = [op.layer for op in splittable_ops(graph)]
    assert layers == ["seen", "free", "own"]
    survey = survey_splits(model, inputs, graph, layers)
    assert survey.layers == ("free",)
    assert set(survey.refused) == {"seen", "own"}
    assert survey.refused["own"] == "it is a Own"


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ({"fre": 3}, ["no layer 'fre' to split", "did you mean free"]),
        ({"own": 3}, ["no layer 'own' to split"]),
        ({"free": 12}, ["cannot be split at rank 12", "1 to 11"]),
        ({"free": 0}, ["cannot be split at rank 0"]),
        ({"seen": 3}, ["'seen' cannot be split"]),
    ],
)
def test_layers_and_ranks_that_do_not_fit_are_a_usage_error(
    ranks: dict[str, int], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        check_ranks(Network().eval(), (torch.randn(1, 12),), ranks)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_shared_weights_are_a_usage_error() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)).eval()
    model[1].weight = model[0].weight
    with pytest.raises(UsageError, match="read elsewhere"):
        check_ranks(model, (torch.randn(1, 6),), {"1": 2})


def test_the_model_itself_stays_as_it_is() -> None:
    model = linear(9).train()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = correlated(9, 50, 10, 10)
    found = factorized(model, (inputs[:1],), {"0": 2}, [(inputs,)])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    again = factorized(model, (inputs[:1],), {"0": 2}, [(inputs,)])
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in found.state_dict().items()
    )


def test_layers_are_watched_in_as_many_passes_as_memory_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4)).eval()
    inputs = correlated(2, 50, 10, 10)
    together = dict(layer_directions(model, ["0", "2", "3"], [(inputs,)]))
    monkeypatch.setattr(factorize, "_MOST_NUMBERS", 70)
    apart = dict(layer_directions(model, ["0", "2", "3"], [(inputs,)]))
    assert list(together) == list(apart) == ["0", "2", "3"]
    for name, one in together.items():
        assert torch.equal(one.vectors, apart[name].vectors)
        assert torch.equal(one.mean, apart[name].mean)
