"""Tracing: operators, MACs, layers, and clear answers for what cannot be traced."""

from __future__ import annotations

import copy
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from edgesdk.document import to_json
from edgesdk.errors import EdgeSDKError, ProfileError, UnsupportedModel
from edgesdk.graph import Op, OpGraph
from edgesdk.trace import graph_from_json, trace

GRAPHS = Path(__file__).resolve().parents[2] / "shared" / "measurements" / "graphs"


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8))
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        return self.head(self.drop(F.max_pool2d(x, 2).mean((2, 3)).contiguous()))


def kinds(graph: OpGraph) -> list[str]:
    return [op.kind for op in graph.ops]


def only(graph: OpGraph, kind: str) -> Op:
    (op,) = [op for op in graph.ops if op.kind == kind]
    return op


def test_a_small_network_becomes_plain_operators() -> None:
    graph = trace(ConvNet(), (torch.zeros(1, 3, 16, 16),), name="small")
    assert kinds(graph) == ["conv2d", "batch_norm", "relu", "max_pool2d", "mean", "linear"]
    conv, pool = graph.ops[0], only(graph, "max_pool2d")
    assert conv.layer == "stem.0"
    assert conv.inputs == ("x",)
    assert conv.parameters == ("stem.0.weight", "stem.0.bias")
    assert conv.macs == 8 * 8 * 8 * 3 * 9
    assert conv.attributes["stride"] == (2, 2)
    assert conv.attributes["kernel_size"] == (3, 3)
    assert conv.attributes["groups"] == 1
    assert pool.attributes["kernel_size"] == pool.attributes["stride"] == (2, 2)
    assert graph.macs == conv.macs + 8 * 5
    assert graph.tensors["x"].role == "input"
    assert graph.tensors[graph.ops[-1].outputs[0]].role == "output"
    assert graph.tensors["stem.0.weight"].role == "parameter"
    assert graph.tensors["x"].dtype == "float32"
    # Weights and running statistics; the batch counter is used by no operator.
    assert graph.parameters == (8 * 27 + 8) + 4 * 8 + (8 * 5 + 5)


def test_every_tensor_is_made_before_it_is_used() -> None:
    graph = trace(ConvNet(), (torch.zeros(1, 3, 16, 16),), name="small")
    known = {name for name, t in graph.tensors.items() if t.role in ("input", "parameter")}
    for op in graph.ops:
        assert known.issuperset(op.inputs + op.parameters)
        known.update(op.outputs)
    assert known == set(graph.tensors)


def test_tracing_leaves_the_model_alone() -> None:
    model = ConvNet().train()
    before = copy.deepcopy(model.state_dict())
    trace(model, (torch.rand(2, 3, 16, 16),), name="small")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_graph_is_a_json_document() -> None:
    graph = trace(ConvNet(), (torch.zeros(1, 3, 16, 16),), name="small")
    assert '"kind": "conv2d"' in to_json(graph)


class OneOp(nn.Module):
    """A layer, or a function of the inputs."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        result = self.layer(*inputs)
        return result[0] if isinstance(result, tuple) else result


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize(
    ("layer", "shapes", "kind", "macs"),
    [
        (nn.Conv2d(8, 12, 3, groups=4), [(2, 8, 9, 9)], "conv2d", 2 * 12 * 7 * 7 * 2 * 9),
        (nn.Conv2d(6, 6, 5, padding="same", groups=6), [(1, 6, 8, 8)], "conv2d", 6 * 64 * 25),
        (nn.Conv1d(4, 6, 3, dilation=2), [(1, 4, 10)], "conv1d", 6 * 6 * 4 * 3),
        (nn.Conv3d(2, 3, 2), [(1, 2, 4, 4, 4)], "conv3d", 3 * 27 * 2 * 8),
        (
            nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2),
            [(1, 8, 5, 5)],
            "conv_transpose2d",
            8 * 25 * 3 * 16,
        ),
        (nn.Linear(7, 3), [(2, 5, 7)], "linear", 2 * 5 * 7 * 3),
        (torch.matmul, [(2, 3, 4, 5), (5, 6)], "matmul", 2 * 3 * 4 * 5 * 6),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], "bmm", 2 * 3 * 4 * 5),
        (torch.addmm, [(3, 5), (3, 4), (4, 5)], "addmm", 3 * 4 * 5),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], "baddbmm", 2 * 3 * 4 * 5),
        (torch.mv, [(3, 4), (4,)], "mv", 12),
        (
            sdpa,
            [(1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 4)],
            "scaled_dot_product_attention",
            2 * 5 * 7 * (8 + 4),
        ),
        (
            nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True),
            [(3, 5, 4)],
            "lstm",
            3 * 5 * 2 * (24 * (4 + 6) + 24 * (12 + 6)),
        ),
        (nn.GRU(4, 6), [(5, 2, 4)], "gru", 5 * 2 * 18 * (4 + 6)),
    ],
)
def test_macs(layer: Any, shapes: list[tuple[int, ...]], kind: str, macs: int) -> None:
    graph = trace(OneOp(layer), tuple(torch.rand(shape) for shape in shapes), name="one")
    assert only(graph, kind).macs == macs == graph.macs


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bij,bkj->bik", [(2, 3, 4), (2, 5, 4)], 2 * 3 * 4 * 5),
        ("...ij,jk->...ik", [(2, 3, 4, 5), (5, 6)], 2 * 3 * 4 * 5 * 6),
        ("ij,jk", [(3, 4), (4, 5)], 3 * 4 * 5),
        ("ij,ij->ij", [(3, 4), (3, 4)], 0),
        ("ij->ji", [(3, 4)], 0),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5),
    ],
)
def test_macs_of_einsum(equation: str, shapes: list[tuple[int, ...]], macs: int) -> None:
    model = OneOp(lambda *inputs: torch.einsum(equation, *inputs))
    graph = trace(model, tuple(torch.rand(shape) for shape in shapes), name="einsum")
    assert only(graph, "einsum").macs == macs


@settings(max_examples=25, deadline=None)
@given(
    channels=st.sampled_from([(4, 8, 1), (4, 8, 2), (6, 6, 6), (8, 4, 4)]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    transposed=st.booleans(),
)
def test_macs_are_half_of_the_flops_that_torch_counts(
    channels: tuple[int, int, int], kernel: int, stride: int, padding: int, transposed: bool
) -> None:
    given_channels, wanted, groups = channels
    convolution = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = convolution(given_channels, wanted, kernel, stride, padding, groups=groups)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    x = torch.rand(2, given_channels, 6, 6)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert 2 * trace(model, (x,), name="m").macs == counter.get_total_flops()


def test_a_transformer_layer_keeps_attention_whole() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)  # torch would take its fused fast path now
    graph = trace(layer, (torch.rand(1, 6, 16),), name="encoder")
    assert only(graph, "scaled_dot_product_attention").layer == "self_attn"
    assert only(graph, "scaled_dot_product_attention").macs == 2 * 6 * 6 * 16
    assert kinds(graph).count("layer_norm") == 2
    assert graph.macs == 6 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 6 * 6 * 16
    assert torch.backends.mha.get_fastpath_enabled()


class Blocks(nn.Module):
    """Weights that are computed, shared and scaled under no_grad; casts that change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x + self.scale * 2
        x = self.second(self.first(x)).to(torch.float32)
        return torch.cat(x.chunk(2, -1)[::-1], -1)


def test_constants_are_folded_blocks_inlined_and_weights_shared() -> None:
    graph = trace(Blocks(), (torch.rand(1, 4),), name="blocks")
    assert kinds(graph) == ["add", "linear", "linear", "chunk", "cat"]
    (folded,) = graph.ops[0].parameters
    assert graph.tensors[folded].role == "parameter"
    assert graph.ops[1].parameters == graph.ops[2].parameters
    assert graph.parameters == 16 + 4
    chunk, cat = graph.ops[3:]
    assert chunk.outputs == ("chunk:0", "chunk:1")
    assert cat.inputs == ("chunk:1", "chunk:0")


class Choice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Condition(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


class Selection(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Numpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy()) + 1


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Choice(), ["data-dependent control flow", "layer inner", "x.sum() > 0", "torch.where"]),
        (Condition(), ["control flow inside the graph", "cond"]),
        (Selection(), ["aten.index.Tensor", "depends on data", "layer inner", "x[x > 0]"]),
        (Numpy(), ["numpy", "layer inner", "from_numpy"]),
    ],
)
def test_what_cannot_be_traced_is_named(
    layer: nn.Module, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential()
    model.add_module("inner", layer)
    with pytest.raises(UnsupportedModel) as caught:
        trace(model, (torch.ones(2, 3),), name="odd")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "Next:" in str(caught.value)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


# Published multiply-accumulates at these input sizes, in units of 10^9: torchvision's model
# pages (ResNet, MobileNet, ShuffleNet, DenseNet, RegNet) and Ultralytics' YOLO11 table
# (half of its FLOPs).
PUBLISHED_GMACS = {
    "resnet18": 1.81,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "mobilenet_v2": 0.30,
    "mobilenet_v3_large": 0.22,
    "shufflenet_v2": 0.04,
    "densenet121": 2.83,
    "regnet_y_800mf": 0.83,
    "resnext101": 16.41,
    "yolo11n": 3.25,
}


@pytest.mark.skipif(not GRAPHS.is_dir(), reason="the measured networks' graphs are not here")
def test_measured_networks_load_with_the_published_macs() -> None:
    files = sorted(GRAPHS.glob("*.json.gz"))
    assert files
    macs = {}
    for file in files:
        data = json.loads(gzip.decompress(file.read_bytes()))
        graph = graph_from_json(data, name=file.name)
        assert graph.ops
        assert any(tensor.role == "output" for tensor in graph.tensors.values())
        macs[file.name.removesuffix(".json.gz")] = graph.macs / 1e9
    assert {name: round(macs[name], 2) for name in PUBLISHED_GMACS} == pytest.approx(
        PUBLISHED_GMACS, rel=0.01, abs=0.005
    )


def saved(*calls: dict[str, Any], output: str = "y") -> dict[str, Any]:
    """A graph of an input ``x`` [1, 4], a weight ``w`` [3, 4] and the calls."""
    nodes: list[dict[str, Any]] = [
        {"name": name, "kind": "placeholder", "role": role, "value": value}
        for name, role, value in (
            ("x", "input", {"shape": [1, 4], "dtype": "float32"}),
            ("w", "parameter", {"shape": [3, 4], "dtype": "float32"}),
        )
    ]
    nodes += [{"kind": "call_function", **call} for call in calls]
    nodes.append({"name": "output", "kind": "output", "args": [[{"ref": output}]]})
    return {"model": "m", "parameters": 12, "nodes": nodes}


LINEAR: dict[str, Any] = {
    "name": "y",
    "target": "aten.linear.default",
    "args": [{"ref": "x"}, {"ref": "w"}],
    "value": {"shape": [1, 3], "dtype": "float32"},
}


def test_a_saved_graph() -> None:
    graph = graph_from_json(saved(LINEAR), name="m")
    (op,) = graph.ops
    assert (op.kind, op.macs, op.inputs, op.parameters) == ("linear", 12, ("x",), ("w",))


def test_an_unknown_operator_is_kept_without_macs() -> None:
    graph = graph_from_json(saved(LINEAR | {"target": "mylib.thing.default"}), name="m")
    assert (graph.ops[0].kind, graph.ops[0].macs) == ("mylib.thing", 0)


def nested(depth: int) -> Any:
    return {"ref": "x"} if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"model": "m", "parameters": 1, "nodes": []},
        {"model": "m", "parameters": 1, "nodes": "all"},
        saved(LINEAR) | {"surprise": 1},
        saved(LINEAR, LINEAR),
        saved(LINEAR, output="z"),
        saved(LINEAR | {"kind": "call_method"}),
        saved(LINEAR | {"args": [{"ref": "later"}, {"ref": "w"}]}),
        saved(LINEAR | {"args": [{"ref": ["x"]}, {"ref": "w"}]}),
        saved(LINEAR | {"args": [{"other": "x"}, {"ref": "w"}]}),
        saved(LINEAR | {"args": [nested(50), {"ref": "w"}]}),
        saved(LINEAR | {"args": []}),
        saved(LINEAR | {"value": {"shape": [-1, 3], "dtype": "float32"}}),
        saved(LINEAR | {"value": {"shape": [1, 3]}}),
        saved(LINEAR | {"target": "aten.conv2d.default", "args": [{"ref": "x"}]}),
        saved(LINEAR | {"target": "aten.lstm.input", "args": []}),
        saved(LINEAR | {"target": "<built-in function getitem>", "args": [{"ref": "x"}, 7]}),
        saved(LINEAR | {"target": "<built-in function getitem>", "args": []}),
    ],
)
def test_a_malformed_saved_graph_is_a_profile_error(data: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        graph_from_json(data, name="m")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["x", "w"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("ref"), inner, max_size=1),
    max_leaves=8,
)


TARGETS = [
    *("aten.linear.default", "aten.conv2d.default", "aten.conv_transpose1d.default"),
    *("aten.matmul.default", "aten.addmm.default", "aten.einsum.default", "aten.lstm.input"),
    *("aten.gru.input", "aten.to.dtype", "aten.scaled_dot_product_attention.default"),
    *("aten.dropout.default", "aten.chunk.default", "aten.max_pool2d.default"),
    *("aten..x", "::", "", "wrap_with_autocast"),
]


@settings(max_examples=150, deadline=None)
@given(
    target=st.sampled_from(TARGETS),
    args=st.lists(_JSON, max_size=4),
    kwargs=st.dictionaries(st.sampled_from(["input", "weight", "equation"]), _JSON, max_size=2),
    shape=st.lists(st.integers(0, 5), max_size=4),
)
def test_any_arguments_give_a_graph_or_a_clear_error(
    target: str, args: list[Any], kwargs: dict[str, Any], shape: list[int]
) -> None:
    value = {"shape": shape, "dtype": "float32"}
    call = {"name": "y", "target": target, "args": args, "kwargs": kwargs, "value": value}
    try:
        graph = graph_from_json(saved(call), name="m")
    except EdgeSDKError:
        return
    assert all(op.macs >= 0 and math.isfinite(op.macs) for op in graph.ops)
