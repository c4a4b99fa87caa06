"""The ExecuTorch target: what it promises, emits and refuses, and what its files compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from executorch_nets import NETS, Wrapped, compressed, emitted, model_of, runtime, samples, trained
from torch import Tensor, nn
from torch.fx import GraphModule

from edgesdk import target
from edgesdk.artifact import TensorSpec
from edgesdk.compress.pt2e import quantize_static_int8
from edgesdk.errors import TargetUnavailable, UnsupportedModel
from edgesdk.host_runtime import HostRuntime
from edgesdk.scheme import SCHEMES, WEIGHT_ONLY_SCHEMES, Scheme
from edgesdk.target import Emission, Target
from edgesdk.task import Tensors, output_tensors
from edgesdk_executorch import TARGET

toolchain = pytest.mark.toolchain
slow = pytest.mark.slow


def run(folder: Path, emission: Emission, inputs: Tensors) -> Tensors:
    """The file's outputs for inputs of any multiple of its batch."""
    session = TARGET.open(folder, emission, "executorch", 1)
    batch = emission.inputs[0].shape[0]
    pieces = zip(*(tensor.split(batch) for tensor in inputs), strict=True)
    parts = [session.run([tensor.numpy() for tensor in piece]) for piece in pieces]
    return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))


def worst_difference(found: Tensors, wanted: Tensors) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


# What works without the toolchain.


def test_is_a_target_and_imports_no_toolchain() -> None:
    assert isinstance(TARGET, Target)
    assert target.find_target("executorch") is TARGET
    code = (
        "import sys, edgesdk_executorch; edgesdk_executorch.TARGET.toolchain();"
        "print(sorted({'torchao', 'executorch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_executorch_is_unavailable_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgesdk.target.installed_version", lambda name: None)
    assert not TARGET.toolchain().is_complete
    model = compressed("perceptron", "int8")
    emission = Emission(files=("m",), inputs=(), outputs=(), tool_versions={}, layer_of={})
    for call in (
        lambda: TARGET.emit(model, runtime(), tmp_path),
        lambda: TARGET.operators(tmp_path, emission),
        lambda: TARGET.checks(tmp_path, emission, model),
        lambda: TARGET.open(tmp_path, emission, "executorch", 1),
        lambda: TARGET.simulate(model),
    ):
        with pytest.raises(TargetUnavailable, match=r"pip install 'edgesdk\[executorch\]'"):
            call()


def test_offers_float_and_int8_and_says_why_not_the_rest() -> None:
    capability = TARGET.capability(runtime())
    assert capability.schemes == ("fp32", "int8", "int8_dynamic", "int4_dynamic")
    assert set(capability.refused) == {"fp16", "w8a16", *WEIGHT_ONLY_SCHEMES}
    assert "weight" in capability.refused["fp16"]


@pytest.mark.parametrize(
    ("changes", "offered", "word"),
    [
        ({"delegate": "qnn"}, (), "qnn"),
        ({"integer_io": True}, ("fp32", "int8_dynamic", "int4_dynamic"), "float"),
        ({"precisions": {"fp32": runtime().precisions["fp32"]}}, ("fp32",), "profile"),
        ({"precisions": {}}, (), "profile"),
    ],
)
def test_every_scheme_is_offered_or_refused_with_a_reason(
    changes: dict, offered: tuple[Scheme, ...], word: str
) -> None:
    capability = TARGET.capability(runtime(**changes))
    assert capability.schemes == offered
    assert set(capability.schemes) | set(capability.refused) == set(SCHEMES)
    assert word in capability.refused["int8"]


def test_only_xnnpack_runs_here() -> None:
    assert TARGET.host_runtime(runtime()) == HostRuntime(name="executorch")
    assert TARGET.host_runtime(runtime(delegate="qnn")) is None


@pytest.mark.parametrize(
    ("scheme", "changes"),
    [("fp16", {}), ("int8", {"integer_io": True}), ("fp32", {"delegate": "qnn"})],
)
@toolchain
def test_emit_refuses_what_capability_refuses(
    scheme: Scheme, changes: dict, tmp_path: Path
) -> None:
    asked = runtime(**changes)
    with pytest.raises(UnsupportedModel, match="is not possible here") as refusal:
        TARGET.emit(compressed("perceptron", scheme), asked, tmp_path)
    assert TARGET.capability(asked).refused[scheme] in str(refusal.value)
    assert not list(tmp_path.iterdir())


# What the files compute.


@pytest.mark.parametrize("net", NETS)
@slow
@toolchain
def test_float_file_computes_what_pytorch_does(net: str) -> None:
    inputs = samples(NETS[net][2], 8, seed=9)
    wanted = output_tensors(compressed(net, "fp32").module(*inputs))
    assert worst_difference(run(*emitted(net, "fp32"), inputs), wanted) < 1e-5


@pytest.mark.parametrize("net", ["residual", "separable", "perceptron", "two_in_two_out"])
@slow
@toolchain
def test_int8_file_is_within_one_step_of_the_quantized_graph(net: str) -> None:
    graph = quantize_static_int8(compressed(net, "int8"))
    inputs = samples(NETS[net][2], 32, seed=9)
    wanted = run_graph(graph, inputs, NETS[net][1])
    pairs = zip(run(*emitted(net, "int8"), inputs), wanted, strict=True)
    for (found, reference), step in zip(pairs, output_steps(graph), strict=True):
        assert float((found - reference).abs().max()) < 1.01 * step


def run_graph(graph: GraphModule, inputs: Tensors, batch: int) -> Tensors:
    pieces = zip(*(tensor.split(batch) for tensor in inputs), strict=True)
    with torch.no_grad():
        parts = [output_tensors(graph(*piece)) for piece in pieces]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def output_steps(graph: GraphModule) -> list[float]:
    """The quantization step of each output: the scale of the last dequantization."""
    (outputs,) = graph.graph.output_node().args
    nodes = outputs if isinstance(outputs, tuple | list) else [outputs]
    assert all("dequantize_per_tensor" in str(node.target) for node in nodes)
    return [node.args[1] for node in nodes]


@slow
@toolchain
def test_simulation_is_far_closer_to_the_file_than_float_is() -> None:
    """Differences of one step add up over many layers, and stay small beside what int8 costs."""
    model = compressed("hard_to_fold", "int8")
    inputs = tuple(torch.cat(column) for column in zip(*model.calibration, strict=True))
    (simulated,) = TARGET.simulate(model)(*inputs)
    (found,) = run(*emitted("hard_to_fold", "int8"), inputs)
    cost = (simulated - model.module(*inputs)).square().mean()
    assert float((found - simulated).square().mean()) < 0.1 * float(cost)


@pytest.mark.parametrize("net", NETS)
@slow
@toolchain
def test_int8_file_stays_close_to_float(net: str) -> None:
    """On the calibration samples themselves, where nothing is clipped."""
    model = compressed(net, "int8")
    inputs = tuple(torch.cat(column) for column in zip(*model.calibration, strict=True))
    wanted = output_tensors(model.module(*inputs))
    noise = worst_difference(run(*emitted(net, "int8"), inputs), wanted)
    span = max(float(tensor.max() - tensor.min()) for tensor in wanted)
    assert 0 < noise < 0.05 * span


@slow
@toolchain
def test_simulation_takes_any_batch_and_float_is_the_network_itself() -> None:
    model = compressed("perceptron", "fp32")
    example = model.example_inputs[0]
    with torch.no_grad():
        assert torch.equal(TARGET.simulate(model)(example)[0], model.module(example))
    simulation = TARGET.simulate(compressed("perceptron", "int8"))  # a batch of two
    (inputs,) = samples([(20,)], 5, seed=3)
    (together,) = simulation(inputs)
    assert together.shape == (5, 4)
    alone = torch.cat([simulation(sample)[0] for sample in inputs.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@slow
@toolchain
def test_channels_last_tensors_are_read_right() -> None:
    model = compressed("residual", "fp32")
    session = TARGET.open(*emitted("residual", "fp32"), "executorch", 1)
    image = samples([(3, 16, 16)], 1, seed=4)[0].to(memory_format=torch.channels_last)
    assert not image.is_contiguous()
    (found,) = session.run([image.numpy()])
    assert worst_difference((torch.from_numpy(found),), (model.module(image),)) < 1e-5


@slow
@toolchain
def test_channels_last_models_are_emitted_row_major(tmp_path: Path) -> None:
    model = compressed("separable", "fp32")
    model.module.to(memory_format=torch.channels_last)
    emission = TARGET.emit(model, runtime(), tmp_path)
    inputs = samples([(3, 16, 16)], 2, seed=4)
    assert worst_difference(run(tmp_path, emission, inputs), (model.module(*inputs),)) < 1e-5


@slow
@toolchain
def test_threads_are_as_asked_and_memory_is_not_told() -> None:
    for threads in (2, 1):
        session = TARGET.open(*emitted("perceptron", "fp32"), "executorch", threads)
        assert session.identity.threads == threads
    assert session.identity.runtime == "executorch"
    assert session.identity.version == TARGET.toolchain().packages[0].found
    assert session.memory_bytes() is None


# What emission says.


@slow
@toolchain
def test_emission_states_the_tensors_exactly() -> None:
    _, emission = emitted("two_in_two_out", "int8")
    assert emission.files == ("model.pte",)
    assert emission.inputs == (
        TensorSpec(name="input0", shape=(2, 3, 8, 8), dtype="float32", from_torch=(0, 1, 2, 3)),
        TensorSpec(name="input1", shape=(2, 6), dtype="float32", from_torch=(0, 1)),
    )
    assert [(spec.name, spec.shape) for spec in emission.outputs] == [
        ("output0", (2, 4)),
        ("output1", (2, 8)),
    ]
    assert set(emission.tool_versions) == {"executorch", "torchao"}


@slow
@toolchain
def test_equal_models_give_equal_bytes_and_nothing_on_standard_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, emission = emitted("separable", "int8")
    model = compressed("separable", "int8")
    assert TARGET.emit(model, runtime(), tmp_path) == emission
    assert (tmp_path / "model.pte").read_bytes() == (folder / "model.pte").read_bytes()
    TARGET.operators(tmp_path, emission)
    TARGET.checks(tmp_path, emission, model)
    assert capfd.readouterr().out == ""


# Models that cannot be.


class Svd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


class Sort(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x)[0]


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x).abs()


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(4, 2, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x.unsqueeze(2))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Svd(), ("culprit", "aten._linalg_svd.default", "Core ATen")),
        (Spectrum(), ("culprit", "aten.abs.default")),
        (Sort(), ("culprit", "aten::sort.values", "kernel")),
        (Volume(), ("culprit.conv3d", "aten::convolution", "3-D")),
        (Branch(), ("culprit", "data-dependent")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@slow
@toolchain
def test_unsupported_models_name_layer_and_operator(
    layer: nn.Module, words: tuple[str, ...], tmp_path: Path
) -> None:
    model = model_of(trained(Wrapped(layer)), "fp32", [(3, 8, 8)])
    with pytest.raises(UnsupportedModel) as refusal:
        TARGET.emit(model, runtime(), tmp_path)
    for word in words:
        assert word in str(refusal.value)
