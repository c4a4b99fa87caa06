"""Terms that only some profiles state: patches, outputs, variants of a class, a cache."""

from dataclasses import replace

import numpy as np
import pytest
from cost_graphs import conv_chain, make_runtime

from edgesdk.cost.coefficients import displaced_share, padded_share
from edgesdk.cost.features import kernel_table
from edgesdk.cost.latency import latency_table, predict_latency
from edgesdk.graph import Op, OpGraph
from edgesdk.precision_cost import KernelCost, PrecisionCost
from edgesdk.quantity import Quantity

RUNTIME = make_runtime()
COST = RUNTIME.precisions["fp32"]


def known(value: float) -> Quantity:
    return Quantity(value=value, source="a test", kind="measured")


def total_s(graph: OpGraph, cost: PrecisionCost) -> float:
    runtime = replace(RUNTIME, precisions={"fp32": cost})
    total = predict_latency(graph, runtime, "fp32").total.value / 1e3
    [same] = np.atleast_1d(latency_table(graph, runtime, ["fp32"])["fp32"]) / 1e3
    assert total == pytest.approx(same), "one network and many are priced alike"
    return total


def weighted(graph: OpGraph) -> list[Op]:
    return [op for op in graph.ops if op.kind == "conv2d"]


def test_patches_are_output_pixels_times_taps_times_blocks_of_input_channels() -> None:
    graph = conv_chain()
    table = kernel_table(graph, "fp32")
    for op in weighted(graph):
        _, _, rows, columns = graph.tensors[op.outputs[0]].shape
        _, before, height, width = graph.tensors[op.parameters[0]].shape
        expected = rows * columns * height * width * -(-before // 64)
        assert table.patches[table.ops.index(op.name)] == expected
        assert table.outputs[table.ops.index(op.name)] == graph.elements(op.outputs)


def test_a_stated_price_of_patches_and_outputs_is_added_to_the_arithmetic() -> None:
    graph = conv_chain()
    table = kernel_table(graph, "fp32")
    # So slow that arithmetic decides, and the sums can be compared.
    slow = replace(COST, mac_per_s=known(1e6))
    classes = dict.fromkeys(("conv", "first_conv", "gate_conv"))
    priced = replace(
        slow,
        kernels={name: KernelCost(patch_s=known(1e-5), output_s=known(2e-6)) for name in classes},
    )
    of_convs = [table.ops.index(op.name) for op in weighted(graph)]
    extra = 1e-5 * table.patches[of_convs].sum() + 2e-6 * table.outputs[of_convs].sum()
    assert total_s(graph, priced) - total_s(graph, slow) == pytest.approx(extra)


@pytest.mark.parametrize(
    ("channels", "left", "computed"),
    [(32, 1.0, 32), (24, 1.0, 32), (24, 0.5, 16), (7, 3 / 7, 16), (64, 0.75, 48)],
)
def test_channels_are_computed_in_whole_tiles(channels: int, left: float, computed: int) -> None:
    share = padded_share(np.array([channels, 0.0]), 16, left)
    assert share == pytest.approx([computed / channels, left]), "without weights: as many as left"
    assert padded_share(np.array([channels]), 1, left) == left


def test_a_tile_that_a_layer_does_not_fill_takes_as_long_as_a_full_one() -> None:
    # So slow that arithmetic decides, and the products can be compared.
    slow = replace(COST, mac_per_s=known(1e6))
    tiled = replace(slow, channel_tile=known(16))
    full, part = conv_chain(channels=16), conv_chain(channels=12)
    assert total_s(full, tiled) == pytest.approx(
        total_s(full, slow) + (6 / 10) * 16 * 10 / 1e6, rel=1e-6
    ), "ten classes take a tile of sixteen; the convolution fills its own"
    assert total_s(part, tiled) > 1.3 * total_s(part, slow)


@pytest.mark.parametrize(
    ("weights", "share"), [(0.0, 0.0), (1e6, 0.0), (1.5e6, 0.5), (2e6, 1.0), (9e6, 1.0)]
)
def test_a_circle_of_twice_the_cache_leaves_nothing_in_it(weights: float, share: float) -> None:
    assert displaced_share(np.array(weights), 1e6) == pytest.approx(share)


def test_displaced_weights_are_fetched_again() -> None:
    graph = conv_chain()
    size = float(kernel_table(graph, "fp32").weight_bytes.sum())
    missing = replace(COST, cache_bytes=known(size / 2), cache_miss_bytes_per_s=known(1e6))
    assert total_s(graph, missing) - total_s(graph, COST) == pytest.approx(size / 1e6)
    fitting = replace(missing, cache_bytes=known(size))
    assert total_s(graph, fitting) == pytest.approx(total_s(graph, COST))
