import torch
from cost_graphs import GraphBuilder, conv_chain
from torch import nn

from edgesdk.cost.fusion import activation_bytes, fuse, weight_bytes
from edgesdk.trace import trace


def test_folds_batch_norm_and_clamp_and_resolves_views() -> None:
    conv, pool, head = fuse(conv_chain())
    assert (conv.op.name, conv.folded) == ("conv", ("norm", "relu"))
    assert (conv.inputs, conv.outputs) == (("image",), ("relu",))
    assert pool.inputs == ("relu",)
    assert head.inputs == ("pool",), "flatten shows pool's own bytes"


def test_counts_weights_and_one_bias_per_output_channel() -> None:
    conv, pool, head = fuse(conv_chain(channels=8))
    assert (conv.weights, conv.biases, conv.channels) == (8 * 3 * 9, 8, 8)
    assert (pool.weights, pool.biases, pool.channels) == (0, 0, 0)
    assert (head.weights, head.biases) == (80, 10)
    assert weight_bytes(conv, "int8") == 8 * 27 + 4 * 8
    assert weight_bytes(conv, "fp16") == 2 * 8 * 27 + 2 * 8


def test_keeps_what_a_second_operator_reads() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 4, 4, 4, role="input")
    g.conv("conv", "x", 4)
    g.same("relu", "relu", "conv")
    g.same("sum", "add", "conv", "relu", role="output")
    assert [kernel.op.name for kernel in fuse(g.build())] == ["conv", "relu", "sum"]


def test_keeps_a_clamp_after_a_graph_output() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 4, 4, 4, role="input")
    g.conv("conv", "x", 4, role="output")
    g.same("relu", "relu", "conv", role="output")
    assert len(fuse(g.build())) == 2


def test_folds_one_clamp_and_no_norm_after_it() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 4, 4, 4, role="input")
    g.conv("conv", "x", 4)
    g.same("relu", "relu", "conv")
    g.same("again", "hardtanh", "relu")
    g.norm("norm", "again")
    assert [kernel.op.name for kernel in fuse(g.build())] == ["conv", "again", "norm"]


def test_integer_tensors_keep_their_width() -> None:
    g = GraphBuilder()
    g.tensor("tokens", 1, 10, role="input", dtype="int64")
    g.tensor("x", 1, 10, role="input")
    graph = g.build()
    assert activation_bytes(graph, ("tokens",), "int8") == 80
    assert activation_bytes(graph, ("x",), "int8") == 10
    assert activation_bytes(graph, ("x",), "fp16") == 20


def test_traced_residual_block() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))
            self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.second(torch.relu(self.first(x))) + x)

    kernels = fuse(trace(Block().eval(), (torch.zeros(1, 4, 8, 8),), name="block"))
    assert [kernel.op.kind for kernel in kernels] == ["conv2d", "conv2d", "add"]
    assert [len(kernel.folded) for kernel in kernels] == [2, 1, 1]
