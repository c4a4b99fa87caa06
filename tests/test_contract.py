"""One contract over every target, every profile and every scheme: what is offered, works."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from edgesdk.compress.rounding import QUANTIZERS
from edgesdk.compressed import CompressedModel
from edgesdk.cost.latency import predict_latency
from edgesdk.cost.memory import predict_memory
from edgesdk.cost.size import predict_size
from edgesdk.device import DeviceProfile, Runtime
from edgesdk.device_files import load_device, profile_names
from edgesdk.document import from_builtins, to_builtins
from edgesdk.figure import Figure
from edgesdk.graph import OpGraph
from edgesdk.host_runtime import HostRuntime
from edgesdk.parity import compare, gate
from edgesdk.running.adapter import artifact_predict
from edgesdk.running.process import ArtifactProcess
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.target import Target, find_target, target_names
from edgesdk.task import InputSpec, OutputSpec, output_tensors
from edgesdk.trace import trace


class Net(nn.Module):
    """Convolutions with batch norm, a depthwise one, a residual, pooling and a linear layer, wide
    enough for groups of 32 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.pointwise = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.pointwise(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


def runtimes() -> list[tuple[str, DeviceProfile, Runtime]]:
    profiles = [load_device(name) for name in profile_names()]
    return [(f"{p.name}-{r.target}-{r.unit}", p, r) for p in profiles for r in p.runtime]


RUNTIMES = runtimes()
# A profile may also hold figures of a runtime that no installed target emits for.
EMITTED = [item for item in RUNTIMES if item[2].target in target_names()]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():  # batch norm statistics that are not the identity
        model.train()
        for _ in range(20):
            model(torch.randn(16, 3, 8, 8))
    return model.eval()


@pytest.fixture(scope="module")
def graph(net: nn.Module) -> OpGraph:
    return trace(net, (torch.zeros(1, 3, 8, 8),), name="net")


@pytest.mark.parametrize("name", target_names())
def test_a_target_is_found_through_its_entry_point_and_names_its_toolchain(name: str) -> None:
    target = find_target(name)

    assert isinstance(target, Target)
    assert target.name == name
    chain = target.toolchain()
    assert chain.target == name
    assert chain.install.startswith("pip install")
    assert all(package.purpose and package.proven for package in chain.packages)


def test_every_device_is_compiled_for_by_default() -> None:
    assert {profile.name for _, profile, _ in EMITTED} == set(profile_names())
    assert all(profile.runtime[0].target in target_names() for _, profile, _ in RUNTIMES)


@pytest.mark.parametrize(("_name", "profile", "runtime"), EMITTED, ids=[r[0] for r in EMITTED])
def test_every_scheme_is_offered_or_refused_with_a_reason(
    _name: str, profile: DeviceProfile, runtime: Runtime
) -> None:
    capability = find_target(runtime.target).capability(runtime)

    assert set(capability.schemes) | set(capability.refused) == set(get_args(Scheme))
    assert not set(capability.schemes) & set(capability.refused)
    assert all(len(reason) > 15 for reason in capability.refused.values())
    assert set(capability.schemes) <= set(runtime.precisions)
    assert runtime.float_scheme in capability.schemes
    assert capability.quantizer is None or capability.quantizer in QUANTIZERS


@pytest.mark.parametrize(("_name", "profile", "runtime"), RUNTIMES, ids=[r[0] for r in RUNTIMES])
def test_every_profile_prices_every_precision_with_an_interval(
    _name: str, profile: DeviceProfile, runtime: Runtime, graph: OpGraph
) -> None:
    for scheme in runtime.precisions:
        figures: list[Figure] = [
            predict_latency(graph, runtime, scheme).total,
            predict_memory(graph, runtime, scheme),
            predict_size(graph, runtime.target, scheme, integer_io=runtime.integer_io),
        ]
        for figure in figures:
            assert figure.standing == "predicted"
            assert figure.low is not None
            assert figure.high is not None
            assert 0 < figure.low <= figure.value <= figure.high
            assert figure.source
    assert from_builtins(DeviceProfile, to_builtins(profile), what="profile") == profile


def cases() -> list[tuple[str, Runtime, Scheme]]:
    """One case for each file that differs: what a target may look at in a runtime, and the scheme.

    Two devices that agree in it are given the same bytes, so one of them is enough.
    """
    seen: dict[tuple[object, ...], tuple[str, Runtime, Scheme]] = {}
    for name, _, runtime in EMITTED:
        for scheme in SCHEMES:
            if scheme in runtime.precisions:
                key = (runtime.target, runtime.delegate, runtime.runtime, runtime.minimum_version,
                       runtime.unit, runtime.integer_io, scheme)  # fmt: skip
                seen.setdefault(key, (f"{name}-{scheme}", runtime, scheme))
    return list(seen.values())


CASES = cases()


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize(("_name", "runtime", "scheme"), CASES, ids=[c[0] for c in CASES])
def test_what_is_offered_is_emitted_reread_and_runs_like_the_model(
    _name: str, runtime: Runtime, scheme: Scheme, net: nn.Module, tmp_path: Path
) -> None:
    target = find_target(runtime.target)
    if scheme not in target.capability(runtime).schemes:
        pytest.skip(f"refused: {target.capability(runtime).refused[scheme]}")
    torch.manual_seed(1)
    samples = torch.randn(32, 3, 8, 8)
    model = CompressedModel(
        module=net,
        example_inputs=(torch.zeros(1, 3, 8, 8),),
        scheme=scheme,
        calibration=((samples,),),
        inputs=(InputSpec(name="image", kind="image", layout="NCHW"),),
        outputs=(OutputSpec(name="logits", kind="logits"),),
    )

    emission = target.emit(model, runtime, tmp_path)
    operators = target.operators(tmp_path, emission)
    checks = target.checks(tmp_path, emission, model)

    assert operators
    assert sum(op.weight_bytes for op in operators) > 0
    assert [check for check in checks if not check.passed] == []
    host = target.host_runtime(runtime)
    if host is None:
        simulation = target.simulate(model)
        assert simulation is not None, "nothing runs it, so a prediction of accuracy needs it"
        actual = output_tensors(simulation(samples))
    else:
        with ArtifactProcess(
            target=target.name, folder=tmp_path, emission=emission, host_runtime=host.name
        ) as process:
            assert process.identity.threads >= 1
            actual = output_tensors(artifact_predict(process)(samples))
    with torch.no_grad():
        reference = output_tensors(net(samples))
    ran = host or HostRuntime(name="simulation", standing="interpreted")
    gate(compare(reference, actual, model.outputs, checks, runtime=ran), scheme)
