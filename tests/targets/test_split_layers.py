"""Layers that became two, in the files of every target: both are there, and run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgesdk.compress.factorize import factorized
from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.host_runtime import HostRuntime
from edgesdk.parity import compare, gate
from edgesdk.running.adapter import artifact_predict
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import Scheme
from edgesdk.target import find_target
from edgesdk.task import InputSpec, OutputSpec, output_tensors

IMAGES = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))
RANKS = {"stem": 8, "mix": 16, "wide": 32}


class Net(nn.Module):
    """A strided convolution, one of a pixel and linear layers, each wide enough to be split."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 48, 3, padding=1, stride=2), nn.BatchNorm2d(48)
        self.mix = nn.Conv2d(48, 64, 1)
        self.wide, self.head = nn.Linear(64, 96), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.mix(torch.relu(self.norm(self.stem(x)))))
        logits: Tensor = self.head(torch.relu(self.wide(x.mean((2, 3)))))
        return logits


@pytest.fixture(scope="module")
def split() -> nn.Module:
    torch.manual_seed(0)
    return factorized(Net().eval(), (IMAGES[:1],), RANKS, [(IMAGES,)])


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("device", "target_name", "scheme"),
    [
        ("host", "tflite", "fp32"),
        ("host", "tflite", "int8"),
        ("host", "tflite", "int8_dynamic"),
        ("host", "executorch", "int8"),
        ("host", "executorch", "int8_dynamic"),
        ("nucleo_h7a3zi_q", "tflite", "int8"),
        ("iphone_15_pro", "coreml", "fp16"),
        ("jetson_orin_nano", "onnx", "int8"),
    ],
)
def test_a_split_layer_is_two_in_the_file_and_runs_like_the_model(
    device: str, target_name: str, scheme: Scheme, split: nn.Module, tmp_path: Path
) -> None:
    target, runtime = find_target(target_name), load_device(device).runtime_for(target_name)
    model = CompressedModel(
        module=split,
        example_inputs=(IMAGES[:1],),
        scheme=scheme,
        calibration=((IMAGES,),),
        inputs=(InputSpec(name="image", kind="image", layout="NCHW"),),
        outputs=(OutputSpec(name="logits", kind="logits"),),
    )
    emission = target.emit(model, runtime, tmp_path)
    checks = target.checks(tmp_path, emission, model)
    assert [check for check in checks if not check.passed] == []
    named = set(emission.layer_of.values())
    assert {f"{layer}.{half}" for layer in RANKS for half in (0, 1)} <= named
    host = target.host_runtime(runtime)
    if host is None:
        simulation = target.simulate(model)
        assert simulation is not None
        actual = output_tensors(simulation(IMAGES))
    else:
        with ArtifactProcess(
            target=target.name, folder=tmp_path, emission=emission, host_runtime=host.name
        ) as process:
            actual = output_tensors(artifact_predict(process)(IMAGES))
    with torch.no_grad():
        reference = output_tensors(split(IMAGES))
    ran = host or HostRuntime(name="simulation", standing="interpreted")
    gate(compare(reference, actual, model.outputs, checks, runtime=ran), scheme)
