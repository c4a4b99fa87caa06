from pathlib import Path

import pytest
import torch
from cost_graphs import GraphBuilder, conv_chain
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesdk.artifact import size_bytes
from edgesdk.compressed import CompressedModel
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_size, stored_bytes
from edgesdk.device_files import load_device
from edgesdk.scheme import Scheme
from edgesdk.target import find_target
from edgesdk.task import InputSpec, OutputSpec
from edgesdk.trace import trace


def test_stored_bytes_by_hand() -> None:
    graph = conv_chain(channels=8)
    weights, biases = 8 * 27 + 80, 8 + 10
    assert stored_bytes(graph, "fp32") == 4 * weights + 4 * biases
    assert stored_bytes(graph, "fp16") == 2 * weights + 2 * biases
    assert stored_bytes(graph, "int8") == weights + 4 * biases


def test_shared_weights_count_once() -> None:
    g = GraphBuilder()
    g.tensor("x", 1, 8, role="input")
    g.linear("first", "x", 8)
    shared = g.ops[0].parameters
    g.op("second", "linear", ("first",), (1, 8), parameters=shared, macs=64, role="output")
    assert stored_bytes(g.build(), "fp32") == 4 * (64 + 8)


def test_unknown_targets_have_a_wider_interval() -> None:
    known = predict_size(conv_chain(), "tflite", "int8")
    unknown = predict_size(conv_chain(), "somebody_else", "int8")
    assert unknown.upper / unknown.value > known.upper / known.value > 1


@given(st.integers(1, 64), st.integers(0, 64), st.sampled_from(["tflite", "executorch", "coreml"]))
def test_more_channels_are_never_smaller(narrow: int, more: int, target: str) -> None:
    small = predict_size(conv_chain(narrow), target, "int8").value
    assert predict_size(conv_chain(narrow + more), target, "int8").value >= small


def unseen_network() -> nn.Module:
    """None of the networks that the container's constants come from."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 24, 5, 2, 2, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 1, 1, groups=24),
        nn.Conv2d(24, 40, 1),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(40 * 25, 30),
        nn.ReLU(),
        nn.Linear(30, 6),
    ).eval()


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("device", "target", "scheme"),
    [
        ("host", "executorch", "fp32"),
        ("host", "executorch", "int8"),
        ("samsung_galaxy_s24", "tflite", "fp16"),
        ("nucleo_h7a3zi_q", "tflite", "int8"),
        ("iphone_15_pro", "coreml", "fp16"),
        ("iphone_15_pro", "coreml", "int8"),
    ],
)
def test_real_files_lie_in_the_interval(
    tmp_path: Path, device: str, target: str, scheme: Scheme
) -> None:
    module, inputs = unseen_network(), (torch.randn(1, 2, 20, 20),)
    runtime = load_device(device).runtime_for(target)
    model = CompressedModel(
        module=module,
        example_inputs=inputs,
        scheme=scheme,
        calibration=(inputs,),
        inputs=(InputSpec(name="image"),),
        outputs=(OutputSpec(name="scores"),),
    )
    emission = find_target(target).emit(model, runtime, tmp_path)
    graph = trace(module, inputs, name="unseen")
    figure = predict_size(graph, target, scheme, integer_io=runtime.integer_io)
    assert figure.low is not None
    real = size_bytes(tmp_path, emission.files)
    assert figure.low <= real <= figure.upper
    assert figure.value == pytest.approx(real, rel=0.03, abs=2000)
    if runtime.runtime == "tflite-micro":
        session = find_target(target).open(tmp_path, emission, "tflite-micro", 1)
        arena, memory = session.memory_bytes(), predict_memory(graph, runtime, scheme)
        assert arena is not None
        assert memory.low is not None
        assert memory.low <= arena <= memory.upper
        assert memory.value == pytest.approx(arena, rel=0.02)
