from cost_graphs import GraphBuilder, conv_chain

from edgesdk.cost.executorch_memory import planned_bytes, workspace_bytes
from edgesdk.cost.fusion import fuse
from edgesdk.graph import OpGraph


def test_a_model_that_xnnpack_takes_whole_plans_its_ends() -> None:
    graph = conv_chain(channels=8, size=8)
    assert planned_bytes(fuse(graph), graph) == 3 * 64 * 4 + 48 + 64


def upsampling() -> OpGraph:
    """x [1, 4, 8, 8] -> conv -> nearest neighbour (ExecuTorch's own kernel) -> conv."""
    g = GraphBuilder()
    g.tensor("x", 1, 4, 8, 8, role="input")
    g.conv("a", "x", 4)
    g.op("up", "upsample_nearest2d", ("a",), (1, 4, 16, 16))
    g.conv("y", "up", 4, role="output")
    return g.build()


def test_what_goes_in_and_out_of_other_kernels_is_planned() -> None:
    graph = upsampling()
    small, large = 4 * 64 * 4, 4 * 256 * 4
    assert planned_bytes(fuse(graph), graph) == large + large + 64
    assert small + large < 2 * large


def test_the_workspace_holds_what_stays_inside() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 8, 4, 4, role="input")
    g.conv("a", "x", 8)
    g.conv("y", "a", 8, role="output")
    graph = g.build()
    assert workspace_bytes(fuse(graph), graph, "fp32") == 8 * 16 * 4
    assert workspace_bytes(fuse(graph), graph, "int8") == 2 * 8 * 16
