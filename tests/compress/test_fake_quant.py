import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recovery_nets import Depthwise, Residual, calibration, images, run, seen
from torch import Tensor, nn

from edgesdk.compress.fake_quant import FakeQuantized
from edgesdk.compress.fold import fold_batch_norms
from edgesdk.compress.pt2e import quantize_static_int8
from edgesdk.compress.ranges import portions
from edgesdk.compress.rounding import (
    AI_EDGE,
    XNNPACK,
    Quantizer,
    Rounding,
    activation_grid,
    round_activation,
    round_weight,
)
from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.errors import TaskError
from edgesdk.target import find_target
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.task_check import calibration_batches
from edgesdk.task_source import load_task


def fake(net: nn.Module, quantizer: Quantizer = AI_EDGE, weight_bits: int = 8) -> FakeQuantized:
    rounding = Rounding(quantizer=quantizer, weight_bits=weight_bits)
    quantized = FakeQuantized(fold_batch_norms(net, (images(1),)), (images(1),), rounding)
    quantized.observe(calibration())
    return quantized


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(2, 8), seed=st.integers(0, 1000), axis=st.integers(0, 1))
def test_weights_land_on_their_grid_and_rounding_again_moves_nothing(
    bits: int, seed: int, axis: int
) -> None:
    weight = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(seed))
    rounding = Rounding(quantizer=AI_EDGE, weight_bits=bits)
    rounded = round_weight(weight, axis, rounding)
    others = [d for d in range(3) if d != axis]
    scale = weight.abs().amax(others, keepdim=True) / rounding.largest
    steps = rounded / scale
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert float((rounded - weight).abs().div(scale).max()) <= 0.5 + 1e-4
    assert torch.allclose(round_weight(rounded, axis, rounding), rounded, rtol=1e-5)
    assert torch.allclose(rounded.abs().amax(others), weight.abs().amax(others), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(low=st.floats(-50, 50), width=st.floats(0.01, 100))
def test_zero_is_exact_and_the_range_is_kept(low: float, width: float) -> None:
    ends = torch.tensor([low, low + width, 0.0])
    scale, zero_point = activation_grid(ends[0], ends[1], AI_EDGE)
    rounded = round_activation(ends, scale, zero_point)
    assert float(rounded[2]) == 0
    assert float((rounded - ends).abs().max()) <= float(scale) * 1.01


def test_gradients_pass_where_nothing_is_cut_off() -> None:
    values = torch.tensor([-2.0, 0.3, 5.0], requires_grad=True)
    grid = activation_grid(torch.tensor(-1.0), torch.tensor(1.0), AI_EDGE)
    round_activation(values, *grid).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("build", [Depthwise, Residual])
def test_fewer_bits_err_more(build: type[nn.Module]) -> None:
    net = seen(build())
    wanted = run(net, images(16))
    errors = [
        float((run(fake(net, weight_bits=b), images(16)) - wanted).abs().mean()) for b in (8, 4, 2)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[0] < 0.05 * float(wanted.abs().mean())


def test_any_batch_size_gives_the_same_and_a_copy_too() -> None:
    net = fake(seen(Residual()))
    whole = run(net, images(6))
    assert torch.allclose(run(net, images(6)[:1]), whole[:1], atol=1e-6)
    assert torch.equal(run(copy.deepcopy(net), images(6)), whole)


class Choices(nn.Module):
    """Outputs as a tuple, an unfused clamp and pooling by the mean."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.avg_pool2d(x, 2), nn.functional.max_pool2d(x, 2)


def test_pooling_stays_on_the_grid_of_what_it_reads() -> None:
    net = FakeQuantized(Choices(), (images(1),), Rounding(quantizer=AI_EDGE))
    net.observe(calibration())
    assert net.scale.numel() == 1
    for output in net(images(4)):
        steps = output / net.scale + net.zero_point
        assert torch.allclose(steps, steps.round(), atol=1e-3)


class Parts(nn.Module):
    """A split, a sigmoid that is in the way of XNNPACK's integers, and a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.layer(x).chunk(2, 1)
        result: Tensor = self.last(left.sigmoid().neg()) + right
        return result


@pytest.mark.parametrize(("quantizer", "count"), [(XNNPACK, 7), (AI_EDGE, 6)])
def test_operators_that_stay_in_float_are_rounded_where_integers_read_them(
    quantizer: Quantizer, count: int
) -> None:
    """XNNPACK leaves the sigmoid alone and rounds what the layer behind and the sum read."""
    net = fake(seen(Parts()), quantizer)
    _, grids = net.programs.of(net.network, (images(1),))
    names = {node.name: number for node, number in grids.rounded.items()}
    assert ("sigmoid" in names) == (quantizer is AI_EDGE)
    assert "neg" in names
    assert names["x"] != names["conv2d"] != names["conv2d_1"]
    assert run(net, images(2)).shape == (2, 2, 10, 10)


def test_no_sample_is_an_error_and_samples_come_in_whole_batches() -> None:
    batches = list(portions(calibration(10), 4))
    assert [len(batch[0]) for batch in batches] == [4, 4, 4]
    whole = torch.cat([batch[0] for batch in batches])
    assert torch.equal(whole[:10], images(10, seed=2))
    assert torch.equal(whole[10:], images(10, seed=2)[:2])
    with pytest.raises(TaskError, match="calibration data"):
        fake(seen(Depthwise())).observe([])


def compressed(net: nn.Module, data: list[tuple[Tensor, ...]]) -> CompressedModel:
    return CompressedModel(
        module=net,
        example_inputs=(data[0][0][:1],),
        scheme="int8",
        calibration=tuple(data),
        inputs=(InputSpec(name="x", kind="image", layout="NCHW"),),
        outputs=(OutputSpec(name="y"),),
    )


def simulated(net: nn.Module, data: list[tuple[Tensor, ...]], rules: Quantizer) -> FakeQuantized:
    examples = (data[0][0][:1],)
    ours = FakeQuantized(fold_batch_norms(net, examples), examples, Rounding(quantizer=rules))
    ours.observe(data)
    return ours


def grids_of(net: FakeQuantized) -> set[tuple[float, int]]:
    return set(zip(net.scale.tolist(), net.zero_point.tolist(), strict=True))


def check_against_pt2e(net: nn.Module, data: list[tuple[Tensor, ...]], inputs: Tensor) -> None:
    """The graph that XNNPACK and Core ML take: the same grids and the same outputs, bit by bit."""
    graph = quantize_static_int8(compressed(net, data))
    ours = simulated(net, data, XNNPACK)
    assert grids_of(ours) == {
        (float(node.args[1]), int(node.args[2]))
        for node in graph.graph.nodes
        if str(node.target).endswith(".quantize_per_tensor.default")
    }
    with torch.no_grad():
        for image in inputs:
            assert torch.equal(ours(image[None]), graph(image[None]))


def check_against_litert(net: nn.Module, data: list[tuple[Tensor, ...]], folder: Path) -> None:
    """The file's grids, but for the last digits: the file's float kernels sum in another order."""
    from ai_edge_litert.interpreter import Interpreter

    runtime = load_device("host").runtime_for("tflite")
    emission = find_target("tflite").emit(compressed(net, data), runtime, folder)
    tensors = Interpreter(str(folder / emission.files[0])).get_tensor_details()
    theirs = {
        (float(tensor["quantization_parameters"]["scales"][0]), int(tensor["quantization"][1]))
        for tensor in tensors
        if tensor["dtype"] is np.int8 and len(tensor["quantization_parameters"]["scales"]) == 1
    }
    found = sorted(grids_of(simulated(net, data, AI_EDGE)))
    assert len(found) == len(theirs)
    for ours, other in zip(found, sorted(theirs), strict=True):
        assert ours == pytest.approx(other, rel=1e-5)


@pytest.mark.toolchain
@pytest.mark.parametrize("build", [Depthwise, Residual])
def test_it_computes_what_the_pt2e_graph_does(build: type[nn.Module]) -> None:
    check_against_pt2e(seen(build()), calibration(), images(8))


@pytest.mark.toolchain
@pytest.mark.parametrize("build", [Depthwise, Residual])
def test_its_grids_are_those_of_the_litert_file(build: type[nn.Module], tmp_path: Path) -> None:
    check_against_litert(seen(build()), calibration(), tmp_path)


CIFAR10 = Path(__file__).parents[2] / "benchmarks" / "tasks" / "cifar10.py"
DATA = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the CIFAR-10 data is not in {DATA}")
def test_a_trained_resnet20_is_on_the_same_grids(tmp_path: Path) -> None:
    task = load_task(f"{CIFAR10}:resnet20")
    data = list(calibration_batches(task))
    images_seen = torch.cat([batch[0] for batch in data[:8]])
    check_against_pt2e(task.model, data, images_seen)
    check_against_litert(task.model, data, tmp_path)
