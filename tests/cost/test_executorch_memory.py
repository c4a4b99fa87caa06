from cost_graphs import GraphBuilder, conv_chain

from edgesdk.cost.executorch_memory import planned_bytes, workspace_bytes
from edgesdk.cost.fusion import fuse
from edgesdk.graph import OpGraph


def test_a_model_that_xnnpack_takes_whole_plans_its_ends() -> None:
    graph = conv_chain(channels=8, size=8)
    assert planned_bytes(fuse(graph), graph, "fp32") == 3 * 64 * 4 + 48 + 64


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
    assert planned_bytes(fuse(graph), graph, "fp32") == large + large + 64
    assert small + large < 2 * large


def test_int8_goes_from_one_stretch_to_the_next_beside_the_float_that_others_read() -> None:
    """x -> conv a -> nearest neighbour up -> pool p, and a + p."""
    g = GraphBuilder()
    g.tensor("x", 1, 4, 8, 8, role="input")
    g.conv("a", "x", 4)
    g.op("up", "upsample_nearest2d", ("a",), (1, 4, 16, 16))
    g.op("p", "max_pool2d", ("up",), (1, 4, 8, 8), attributes={"kernel_size": (2, 2)})
    g.op("y", "add", ("a", "p"), (1, 4, 8, 8), role="output")
    graph = g.build()
    small, large = 4 * 64, 4 * 256
    # When p and y are computed, up and y are there, and a: what is left of it is int8.
    assert planned_bytes(fuse(graph), graph, "fp32") == 4 * (small + large + small) + 64
    assert planned_bytes(fuse(graph), graph, "int8") == small + 4 * (large + small) + 64


def test_the_workspace_holds_what_stays_inside() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 8, 4, 4, role="input")
    g.conv("a", "x", 8)
    g.conv("y", "a", 8, role="output")
    graph = g.build()
    assert workspace_bytes(fuse(graph), graph, "fp32") == 8 * 16 * 4
    assert workspace_bytes(fuse(graph), graph, "int8") == 2 * 8 * 16
