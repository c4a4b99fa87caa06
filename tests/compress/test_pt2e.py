"""Static int8 by PyTorch 2 export: what is calibrated, folded, rewritten and refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils.parametrizations import weight_norm

from edgesdk.compress.pt2e import calibration_batches, export_graph, quantize_static_int8
from edgesdk.compressed import CompressedModel
from edgesdk.errors import TaskError, UnsupportedModel
from edgesdk.task import InputSpec, OutputSpec, Tensors

toolchain = pytest.mark.toolchain
slow = pytest.mark.slow


def model_of(
    net: nn.Module, *examples: Tensor, calibration: tuple[Tensors, ...] | None = None
) -> CompressedModel:
    if calibration is None:
        calibration = (tuple(torch.randn(16, *example.shape[1:]) for example in examples),)
    return CompressedModel(
        module=net.eval(),
        example_inputs=examples,
        scheme="int8",
        calibration=calibration,
        inputs=tuple(InputSpec(name=f"input{index}") for index in range(len(examples))),
        outputs=(OutputSpec(name="output"),),
    )


def targets(graph: GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def first_input_step(graph: GraphModule) -> float:
    node = next(n for n in graph.graph.nodes if "quantize_per_tensor" in str(n.target))
    return float(node.args[1])


def norm(channels: int, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    layer = kind(channels)
    layer.running_mean.normal_(0, 0.5)
    layer.running_var.uniform_(0.3, 2)
    nn.init.uniform_(layer.weight, -1.5, 1.5)
    nn.init.normal_(layer.bias)
    return layer


# Calibration.


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    batch=st.integers(1, 6),
)
def test_every_sample_is_calibrated_on_in_whole_batches(sizes: list[int], batch: int) -> None:
    total = sum(sizes)
    numbers = torch.arange(total, dtype=torch.float32).reshape(-1, 1)
    calibration = tuple((chunk, -chunk) for chunk in numbers.split(sizes))
    examples = (torch.zeros(batch, 1), torch.zeros(batch, 1))
    batches = list(calibration_batches(model_of(nn.Identity(), *examples, calibration=calibration)))
    assert all(first.shape == second.shape == (batch, 1) for first, second in batches)
    assert all(torch.equal(first, -second) for first, second in batches)
    seen = torch.cat([first for first, _ in batches]).flatten().tolist()
    assert seen[:total] == numbers.flatten().tolist()
    assert len(seen) - total < batch
    assert set(seen) == set(numbers.flatten().tolist())


@pytest.mark.parametrize(
    "calibration",
    [
        (),
        ((torch.zeros(2, 5),),),
        ((torch.zeros(2, 4, dtype=torch.float64),),),
        ((torch.zeros(2, 4), torch.zeros(2, 4)),),
        ((torch.zeros(0, 4),),),
        ((torch.zeros(2, 4),), ()),
    ],
)
def test_wrong_calibration_data_is_the_tasks_error(calibration: tuple[Tensors, ...]) -> None:
    model = model_of(nn.Linear(4, 2), torch.zeros(1, 4), calibration=calibration)
    with pytest.raises(TaskError, match="calibration"):
        list(calibration_batches(model))


@slow
@toolchain
def test_ranges_come_from_all_calibration_data() -> None:
    """The last batch is a hundred times larger than the first, and there the range ends."""
    small = torch.linspace(-1, 1, 32).reshape(8, 4)
    model = model_of(
        nn.Linear(4, 2), torch.zeros(1, 4), calibration=((small,), (small,), (100 * small,))
    )
    assert first_input_step(quantize_static_int8(model)) == pytest.approx(200 / 255, rel=0.1)


# Weights.


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = norm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.relu6(self.norm(self.conv(image))).mean((2, 3)))


@slow
@toolchain
def test_weights_are_int8_per_channel_and_the_model_stays_as_it_was() -> None:
    net = Folded()
    before = copy.deepcopy(net.state_dict())
    model = model_of(net, torch.randn(1, 3, 8, 8))
    graph = quantize_static_int8(model)
    folded = graph.graph.find_nodes(
        op="call_function", target=torch.ops.quantized_decomposed.dequantize_per_channel.default
    )
    assert len(folded) == 2
    for node, (channels, weight) in zip(folded, [(4, (4, 3, 3, 3)), (2, (2, 4))], strict=True):
        stored = getattr(graph, node.args[0].target)
        assert stored.dtype == torch.int8
        assert tuple(stored.shape) == weight
        assert getattr(graph, node.args[1].target).shape == (channels,)
        assert int(stored.abs().max()) == 127
    assert not any("batch_norm" in name for name in targets(graph))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    (inputs,) = model.calibration[0]
    wanted = net(inputs)
    found = torch.cat([graph(sample) for sample in inputs.split(1)])
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.max() - wanted.min())


@slow
@toolchain
def test_equal_models_give_equal_graphs() -> None:
    model = model_of(Folded(), torch.randn(1, 3, 8, 8))
    first, second = quantize_static_int8(model), quantize_static_int8(model)
    assert first.code == second.code
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    assert all(one == two and torch.equal(a, b) for (one, a), (two, b) in pairs)


@slow
@toolchain
def test_a_relu6_is_calibrated_together_with_its_layer() -> None:
    """Without it half of the codes would stand for what the clamp cuts off."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU6(), nn.Conv2d(1, 1, 1))
    nn.init.constant_(net[0].weight, 100.0)
    graph = quantize_static_int8(model_of(net, torch.randn(1, 1, 8, 8)))
    clamp = next(n for n in graph.graph.nodes if "hardtanh" in str(n.target))
    assert "conv2d" in str(clamp.args[0].target)
    (quantize,) = clamp.users
    assert quantize.args[1] == pytest.approx(6 / 255, rel=0.01)
    assert quantize.args[2] == -128


# Rewrites: whatever they do, the graph computes what the module does.


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), norm(3), norm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.conv(F.relu(self.one(self.conv(x)))))


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), norm(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x


class Clamps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(x).clamp(0.5, 4) + x.clamp(min=-0.2) + F.hardtanh(x, 0, 1)
        return x + F.hardtanh(x) + x.clamp(-1, 1) + torch.clamp(x, max=2) + x.clamp(0.1, 1)


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept = x.mean((2, 3), keepdim=True)
        return x.mean((2, 3)) + x.mean([-1, -2]) + kept.flatten(1) + x.mean(2).mean(2)


NETS = {
    "lone norm": (lambda: nn.Sequential(norm(3), nn.ReLU()), (3, 5, 5)),
    "lone norm without affine": (lambda: nn.BatchNorm2d(3, affine=False), (3, 5, 5)),
    "lone norm 1d": (lambda: norm(3, nn.BatchNorm1d), (3, 7)),
    "lone norm of vectors": (lambda: norm(3, nn.BatchNorm1d), (3,)),
    "norm of time steps": (
        lambda: nn.Sequential(nn.Linear(4, 4), norm(3, nn.BatchNorm1d)),
        (3, 4),
    ),
    "shared weight": (Shared, (3, 5, 5)),
    "norm of what is read twice": (ReadTwice, (3, 5, 5)),
    "computed weight": (
        lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), norm(4)),
        (3, 5, 5),
    ),
    "clamps": (Clamps, (3, 5, 5)),
    "means": (Means, (3, 5, 5)),
}


@pytest.mark.parametrize("name", NETS)
@toolchain
def test_rewritten_graphs_compute_the_same(name: str) -> None:
    build, shape = NETS[name]
    net = build()
    model = model_of(net, torch.randn(2, *shape))
    inputs = 3 * torch.randn(2, *shape)
    torch.testing.assert_close(export_graph(model)(inputs), net(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
@slow
@toolchain
def test_quantized_graphs_have_no_batch_norm_and_stay_close(name: str) -> None:
    build, shape = NETS[name]
    net = build()
    model = model_of(net, torch.randn(2, *shape))
    graph = quantize_static_int8(model)
    assert not any("batch_norm" in target for target in targets(graph))
    (inputs,) = model.calibration[0]
    wanted = net(inputs)
    found = torch.cat([graph(part) for part in inputs.split(2)])
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.max() - wanted.min())


@toolchain
def test_a_computed_weight_becomes_a_constant() -> None:
    build, shape = NETS["computed weight"]
    graph = export_graph(model_of(build(), torch.randn(2, *shape)))
    assert targets(graph) == ["aten.conv2d.default", "aten.batch_norm.default"]


@toolchain
def test_a_norm_by_the_batchs_own_statistics_is_left_alone() -> None:
    net = nn.BatchNorm2d(3, track_running_stats=False)
    graph = export_graph(model_of(net, torch.randn(2, 3, 5, 5)))
    assert "aten.batch_norm.default" in targets(graph)


# Refusals.


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(x)[0]


@pytest.mark.parametrize(
    ("net", "example", "words"),
    [
        (Memory(), torch.randn(1, 3, 4), ("memory", "lstm")),
        (
            nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2)),
            torch.randn(1, 4, 3, 3),
            ("layer 0", "conv_transpose2d"),
        ),
    ],
    ids=["lstm", "grouped transposed convolution"],
)
@slow
@toolchain
def test_a_layer_that_would_stay_float_is_refused(
    net: nn.Module, example: Tensor, words: tuple[str, ...]
) -> None:
    with pytest.raises(UnsupportedModel, match="cannot be quantized") as refusal:
        quantize_static_int8(model_of(net, example))
    for word in words:
        assert word in str(refusal.value)


def test_a_model_that_cannot_be_exported_names_its_layer() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedModel, match="layer 1"):
        export_graph(model_of(nn.Sequential(nn.Linear(4, 4), Branch()), torch.randn(1, 4)))
