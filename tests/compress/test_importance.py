"""Channel importance: the formulas, checked against what removing channels does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from edgesdk.compress.channel_slices import Side, disconnect, sum_per_channel, width
from edgesdk.compress.importance import score_groups
from edgesdk.compress.prune import find_groups
from edgesdk.errors import TaskError
from edgesdk.task import Batch, OutputSpec, Task, Tensors

INPUTS = (torch.zeros(1, 6),)
LOGITS = (OutputSpec(name="logits", kind="logits"),)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))


def samples(count: int = 64) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1))


def labels(count: int = 64) -> Tensor:
    return torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(2))


def scores(model: nn.Module, layer: str = "0", **fields: Any) -> Tensor:
    task = Task(name="t", model=model, example_inputs=fields.pop("example", INPUTS), **fields)
    result = score_groups(task, find_groups(model, task.example_inputs))
    return torch.tensor(result.per_group[layer])


def training(*batches: Batch) -> Callable[[], Iterable[Batch]]:
    return lambda: iter(batches)


def test_taylor_is_the_squared_sum_of_gradient_times_weight_averaged_over_batches() -> None:
    model, x, y = mlp(), samples(), labels()
    expected = torch.zeros(12)
    for piece in (slice(0, 32), slice(32, 64)):
        model.zero_grad()
        F.cross_entropy(model(x[piece]), y[piece]).backward()
        weight = model[2].weight
        assert isinstance(weight.grad, Tensor)
        expected += (weight * weight.grad).sum(0).detach() ** 2 / 2
    model.zero_grad()
    found = scores(model, training=training(Batch(inputs=(x,), targets=y)))
    torch.testing.assert_close(found, expected)


def test_taylor_uses_the_tasks_own_loss() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).pow(2).mean()

    model = mlp()
    model[2].weight.data[0, 3] = 0
    batch = Batch(inputs=(samples(),), targets=torch.rand(64))
    found = scores(model, training=training(batch), loss=loss)
    assert found[3] == 0
    assert (found > 0).sum() == 11


def test_a_channel_that_nothing_reads_scores_zero() -> None:
    model = mlp()
    model[2].weight.data[:, 5] = 0
    batch = Batch(inputs=(samples(),), targets=labels())
    for fields in ({"training": training(batch)}, {"calibration": lambda: [(samples(),)]}):
        found = scores(model, outputs=LOGITS, **fields)
        assert found[5] == 0
        assert found.argmin() == 5


def divergence(model: nn.Sequential, channel: int, x: Tensor) -> float:
    """KL from the model to itself with a hundredth less of one channel's input weights."""
    weakened = copy.deepcopy(model).double()
    weakened[2].weight.data[:, channel] *= 0.99
    with torch.no_grad():
        p = model.double()(x.double()).log_softmax(-1)
        q = weakened(x.double()).log_softmax(-1)
    model.float()
    return float(F.kl_div(q, p, reduction="batchmean", log_target=True))


def test_without_labels_scores_grow_as_the_divergence_from_the_model_itself() -> None:
    model, x = mlp(), samples(2048)
    found = scores(model, outputs=LOGITS, calibration=lambda: [(x,)])
    true = torch.tensor([divergence(model, channel, x) for channel in range(12)])
    assert torch.corrcoef(torch.stack([found, true]))[0, 1] > 0.9


def test_without_labels_or_classes_scores_grow_as_the_squared_change_of_the_output() -> None:
    model, x = mlp(), samples(2048)
    found = scores(model, outputs=(OutputSpec(name="y"),), calibration=lambda: [(x,)])
    hidden = model[1](model[0](x)).detach()
    true = hidden.pow(2).mean(0) * model[2].weight.detach().pow(2).sum(0)
    assert torch.corrcoef(torch.stack([found, true]))[0, 1] > 0.9


def test_batches_without_targets_and_probabilities() -> None:
    model = nn.Sequential(*mlp(), nn.Softmax(-1))
    batch = Batch(inputs=(samples(),))
    spec = (OutputSpec(name="p", kind="probabilities"),)
    as_logits = scores(mlp(), outputs=LOGITS, training=training(batch))
    found = scores(model, outputs=spec, training=training(batch))
    torch.testing.assert_close(found, as_logits, rtol=1e-3, atol=1e-7)


def test_scores_follow_the_seed_and_nothing_else() -> None:
    def shuffled() -> Iterable[Tensors]:
        return [(samples()[torch.randperm(64)],)]

    def run(seed: int) -> Tensor:
        return scores(mlp(), outputs=LOGITS, calibration=shuffled, seed=seed)

    torch.manual_seed(5)
    first = run(0)
    torch.manual_seed(6)
    assert torch.equal(run(0), first)
    assert not torch.equal(run(1), first)
    # The networks seed torch themselves; what score_groups draws must not show.
    model = mlp()
    state = torch.random.get_rng_state()
    scores(model, outputs=LOGITS, calibration=shuffled)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_model_stays_as_it_was() -> None:
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    scores(model, training=training(Batch(inputs=(samples(),), targets=labels())))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x).relu()
        return self.a(x), self.b(x)


def test_every_layer_that_reads_a_channel_counts() -> None:
    model = TwoHeads()
    model.trunk.bias.data += 1
    model.a.weight.data[:, [0, 1]] = 0
    model.b.weight.data[:, [0, 2]] = 0
    specs = (OutputSpec(name="a", kind="logits"), OutputSpec(name="b"))
    found = scores(model, "trunk", outputs=specs, calibration=lambda: [(samples(),)])
    assert found[0] == 0
    assert (found[1:] > 0).all()


def test_magnitude_where_there_is_no_data() -> None:
    model = mlp()
    model[0].weight.data[4] = 0
    model[0].bias.data[4] = 0
    model[2].weight.data[:, 4] = 0
    task = Task(name="t", model=model, example_inputs=INPUTS)
    result = score_groups(task, find_groups(model, INPUTS))
    assert (result.importance, result.samples) == ("magnitude", 0)
    found = torch.tensor(result.per_group["0"])
    assert found[4] == 0
    # Two layers, each with a mean of one.
    assert found.mean() == pytest.approx(2)
    scaled = copy.deepcopy(model)
    for parameter in scaled[0].parameters():
        parameter.data *= 100
    torch.testing.assert_close(scores(scaled), found)


def test_magnitude_of_a_layer_of_zeros() -> None:
    model = nn.Sequential(nn.Linear(6, 12), nn.Linear(12, 4))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    assert torch.isfinite(scores(model)).all()


def raising(*_: Tensor) -> Tensor:
    raise KeyError("no such key")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"training": training()}, "no sample"),
        ({"calibration": list}, "no sample"),
        ({"loss": raising}, "KeyError"),
        ({"loss": lambda y, _: y.sum() * float("nan")}, "loss of the original model is nan"),
        ({"loss": lambda y, _: y}, "scalar"),
        ({"training": training(Batch(inputs=(torch.zeros(4, 7),), targets=labels(4)))}, "inputs"),
        (
            {"training": training(Batch(inputs=(torch.zeros(4, 6),), targets=torch.rand(4, 4)))},
            "no loss",
        ),
    ],
)
def test_bad_data_and_losses_are_task_errors(fields: dict[str, Any], words: str) -> None:
    good = {"training": training(Batch(inputs=(samples(),), targets=labels()))}
    fields = fields if "calibration" in fields else good | fields
    with pytest.raises(TaskError, match=words):
        scores(mlp(), **fields)


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(6, 4), (2, 6)),
    (nn.Conv1d(6, 4, 3), (2, 6, 8)),
    (nn.Conv2d(6, 4, 3), (2, 6, 5, 5)),
    (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    (nn.ConvTranspose2d(6, 4, 2), (2, 6, 5, 5)),
    (nn.ConvTranspose2d(6, 4, 2, groups=2), (2, 6, 5, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_a_disconnected_layer_ignores_those_inputs_and_no_others(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    layer = copy.deepcopy(layer)
    disconnect(layer, [1, 4])
    x = torch.randn(shape)
    changed = x.clone()
    changed[:, [1, 4]] = 7
    assert torch.equal(layer(changed), layer(x))
    for channel in (0, 2, 3, 5):
        changed = x.clone()
        changed[:, channel] += 1
        assert not torch.allclose(layer(changed), layer(x))


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_the_weights_of_an_input_channel_are_those_it_meets(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    layer = copy.deepcopy(layer)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    sums = sum_per_channel({"weight": weight.detach()}, layer, "in")
    for channel in range(6):
        kept = copy.deepcopy(layer)
        disconnect(kept, [channel])
        difference = weight.detach() - kept.weight.detach()  # type: ignore[operator, union-attr]
        torch.testing.assert_close(sums[channel], difference.sum())
    assert shape[1] == width(layer, "in")


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_the_weights_of_an_output_channel_are_those_that_make_it(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    ones = {name: torch.ones_like(p) for name, p in layer.named_parameters()}
    sums = sum_per_channel(ones, layer, "out")
    weight = layer.weight
    assert isinstance(weight, Tensor)
    assert sums.tolist() == [weight.numel() / 4 + 1] * 4
    probe = copy.deepcopy(layer)
    gradients = []
    for channel in range(4):
        probe.zero_grad()
        probe(torch.rand(shape))[:, channel].sum().backward()
        touched = {name: (p.grad != 0).float() for name, p in probe.named_parameters()}
        gradients.append(sum_per_channel(touched, layer, "out"))
    # Each output channel's gradient lies in its own weights alone.
    assert torch.equal(torch.stack(gradients) != 0, torch.eye(4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("layer", "side", "expected"),
    [
        (nn.BatchNorm2d(3), "out", [1.0, 1.0, 1.0]),
        (nn.BatchNorm2d(3, affine=False), "out", [0.0, 0.0, 0.0]),
        (nn.LayerNorm(3), "out", [1.0, 1.0, 1.0]),
        (nn.Embedding.from_pretrained(torch.ones(5, 3)), "out", [5.0, 5.0, 5.0]),
        (nn.Parameter(torch.ones(1, 4, 3)), "out", [4.0, 4.0, 4.0]),
    ],
)
def test_the_weights_of_other_layers(layer: Any, side: Side, expected: list[float]) -> None:
    own = {"": layer} if isinstance(layer, nn.Parameter) else dict(layer.named_parameters())
    values = {name: value.detach() for name, value in own.items()}
    assert sum_per_channel(values, layer, side, dim=2).tolist() == expected
