"""The Core ML target: what it promises, emits, refuses and predicts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from coreml_nets import NETS, compressed, runtime, samples, wrap
from torch import nn

from edgesdk import target
from edgesdk.artifact import sha256_of, size_bytes
from edgesdk.errors import ProfileError, TargetUnavailable, UnsupportedModel
from edgesdk.scheme import SCHEMES, Scheme
from edgesdk.target import Emission, Target
from edgesdk_coreml import TARGET

PACKAGE = "model.mlpackage"
toolchain = pytest.mark.toolchain


@pytest.fixture(scope="module")
def emit(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that emits a network once and gives its folder and emission."""

    @cache
    def emitted(net: str, scheme: Scheme) -> tuple[Path, Emission]:
        folder = tmp_path_factory.mktemp(f"{net}_{scheme}")
        return folder, TARGET.emit(compressed(net, scheme), runtime(), folder)

    return emitted


# What works without the toolchain.


def test_is_a_target_and_imports_no_toolchain() -> None:
    assert isinstance(TARGET, Target)
    assert target.find_target("coreml") is TARGET
    code = (
        "import sys, edgesdk_coreml; edgesdk_coreml.TARGET.toolchain();"
        "print(sorted({'coremltools', 'torchao', 'executorch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_coremltools_is_unavailable_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = target.installed_version
    monkeypatch.setattr(
        target, "installed_version", lambda name: None if name == "coremltools" else found(name)
    )
    assert not TARGET.toolchain().is_complete
    for scheme in SCHEMES:
        with pytest.raises(
            TargetUnavailable, match=r"coremltools.*pip install 'edgesdk\[coreml\]'"
        ):
            TARGET.emit(compressed("perceptron", scheme), runtime(), tmp_path)
    with pytest.raises(TargetUnavailable, match="coremltools"):
        TARGET.simulate(compressed("perceptron", "int8"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("unit", "version", "precisions", "schemes"),
    [
        ("npu", "iOS17", ("fp16", "int8"), ("fp16", "int8")),
        ("npu", "iOS17", ("fp32", "fp16", "int8"), ("fp16", "int8")),
        ("npu", "iOS17", ("fp16",), ("fp16",)),
        ("cpu", "macOS13", ("fp32", "fp16", "int8"), ("fp32", "fp16")),
        ("gpu", "iOS18", ("fp32", "fp16"), ("fp32", "fp16")),
    ],
)
def test_capability_is_what_unit_system_and_profile_allow(unit, version, precisions, schemes):
    capability = TARGET.capability(runtime(unit, version, precisions))
    assert capability.schemes == schemes
    assert set(capability.refused) == set(SCHEMES) - set(schemes)
    assert all(capability.refused.values())
    if unit == "npu":
        assert "Neural Engine" in capability.refused["fp32"]
    if version == "macOS13":
        assert "iOS 17" in capability.refused["int8"]


def test_an_unknown_system_names_the_near_one() -> None:
    with pytest.raises(ProfileError, match="iOS17"):
        TARGET.capability(runtime(version="ios-17"))


def test_the_file_is_interpreted_here_and_never_called_run(tmp_path: Path) -> None:
    emission = Emission(files=(PACKAGE,), inputs=(), outputs=(), tool_versions={}, layer_of={})
    host = TARGET.host_runtime(runtime())
    assert host.standing == "interpreted"
    assert "not on the Neural Engine" in host.note
    with pytest.raises(TargetUnavailable, match=host.name):
        TARGET.open(tmp_path, emission, "coreml", 1)


# Emitting.


@toolchain
@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "scheme"),
    [("residual", "fp32"), *((net, scheme) for net in NETS for scheme in ("fp16", "int8"))],
)
def test_emission_holds_what_was_asked(emit, net: str, scheme: Scheme) -> None:
    folder, emission = emit(net, scheme)
    model = compressed(net, scheme)
    for check in TARGET.checks(folder, emission, model):
        assert check.passed, check
    assert emission.files == (PACKAGE,)
    files = {p.relative_to(folder / PACKAGE).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "Manifest.json",
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
    }
    (fed,), (given,) = emission.inputs, emission.outputs
    assert (fed.name, fed.shape, fed.dtype) == ("data", (1, *NETS[net][1]), "float32")
    assert (given.name, given.shape[0], given.dtype) == ("scores", 1, "float32")
    assert given.labels == ("cat", "dog")
    assert emission.tool_versions["coremltools"] == "9.0"
    named = {name for name, _ in model.module.named_modules()}
    assert set(emission.layer_of.values()) <= named


@toolchain
@pytest.mark.slow
def test_operators_count_types_and_weight_bytes(emit) -> None:
    counts = {s: TARGET.operators(*emit("residual", s)) for s in ("fp32", "fp16", "int8")}
    computed = {s: {(c.op, c.dtype): c for c in found} for s, found in counts.items()}
    weights = 8 * 9 + 2 * 8 * 8 * 9  # the three convolutions of the residual network
    channels = 3 * 8  # each with a bias, and with a scale and a zero point where it is int8
    assert computed["fp32"]["conv", "float32"].weight_bytes == 4 * (weights + channels)
    assert computed["fp16"]["conv", "float16"].weight_bytes == 2 * (weights + channels)
    assert computed["int8"]["conv", "int8"].weight_bytes == weights + (2 + 2 + 1) * channels
    assert computed["int8"]["linear", "int8"].count == 1
    assert computed["int8"]["add", "int8"].count == 1
    assert {c.where for c in counts["int8"]} == {"coreml"}
    assert not {"const", "constexpr_affine_dequantize"} & {c.op for c in counts["int8"]}


@toolchain
@pytest.mark.slow
def test_what_int8_cannot_compute_is_listed_in_float(emit) -> None:
    kinds = {(c.op, c.dtype) for c in TARGET.operators(*emit("perceptron", "int8"))}
    assert ("gelu", "float16") in kinds
    assert ("relu", "int8") in kinds


@toolchain
@pytest.mark.slow
def test_int8_is_smaller_where_weights_are_many(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(20, 300), nn.ReLU(), nn.Linear(300, 20))
    sizes = {}
    schemes: tuple[Scheme, ...] = ("fp32", "fp16", "int8")
    for scheme in schemes:
        folder = tmp_path / scheme
        folder.mkdir()
        data = samples("perceptron")
        emission = TARGET.emit(wrap(module, data[:1], scheme, data), runtime(), folder)
        sizes[scheme] = size_bytes(folder, emission.files)
    assert sizes["int8"] < 0.75 * sizes["fp16"]
    assert sizes["fp16"] < 0.65 * sizes["fp32"]


@toolchain
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["fp16", "int8"])
def test_equal_models_give_equal_bytes(emit, scheme: Scheme, tmp_path: Path) -> None:
    first, _ = emit("separable", scheme)
    TARGET.emit(compressed("separable", scheme), runtime(), tmp_path)
    assert sha256_of(tmp_path / PACKAGE) == sha256_of(first / PACKAGE)


@toolchain
@pytest.mark.slow
def test_another_process_gives_the_same_bytes(emit, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgesdk_coreml import TARGET;"
        "from coreml_nets import compressed, runtime;"
        "TARGET.emit(compressed('separable', 'fp16'), runtime(), Path(sys.argv[1]))"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=here, check=True)
    first, _ = emit("separable", "fp16")
    assert sha256_of(tmp_path / PACKAGE) == sha256_of(first / PACKAGE)


@toolchain
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["fp16", "int8"])
def test_coremltools_reads_the_sealed_package(emit, scheme: Scheme) -> None:
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    folder, _ = emit("residual", scheme)
    model = coremltools.models.MLModel(str(folder / PACKAGE), skip_model_load=True)
    specification = model.get_spec()
    program = load(specification, specification.specificationVersion, str(model.weights_dir))
    operations = {op.name: op.op_type for op in program.functions["main"].operations}
    assert operations["conv1_conv"] == "conv"
    assert operations["classifier_linear"] == "linear"
    metadata = model.user_defined_metadata
    assert json.loads(metadata["edgesdk.output.scores"])["labels"] == ["cat", "dog"]
    assert metadata["edgesdk.compute_units"] == "cpuOnly"
    assert metadata["edgesdk.scheme"] == scheme


@toolchain
@pytest.mark.slow
def test_conversion_prints_nothing_and_leaves_nothing_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, folder = tmp_path / "scratch", tmp_path / "folder"
    scratch.mkdir()
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    TARGET.emit(compressed("perceptron", "fp16"), runtime(), folder)
    assert list(scratch.glob("*.mlpackage")) == []
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "passes/s" not in printed.err


@toolchain
@pytest.mark.slow
@pytest.mark.parametrize(("version", "scheme"), [("iOS15", "fp16"), ("iOS18", "int8")])
def test_other_systems(tmp_path: Path, version: str, scheme: Scheme) -> None:
    model = compressed("residual", scheme, batch_size=2)
    emission = TARGET.emit(model, runtime(version=version), tmp_path)
    checks = {check.name: check for check in TARGET.checks(tmp_path, emission, model)}
    assert all(check.passed for check in checks.values()), checks
    assert version in checks["deployment target"].detail
    assert emission.inputs[0].shape[0] == 2


class Scaled(nn.Module):
    """A factor that the converter folds into the convolution, and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.factor = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.up(self.conv(x) * self.factor))


@toolchain
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["fp16", "int8"])
@pytest.mark.parametrize(
    "module",
    [
        Scaled(),
        nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.Conv2d(1, 4, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU("tanh"), nn.Linear(8, 8)),
    ],
    ids=["scaled", "norm_first", "linear_norm", "gelu_tanh"],
)
def test_what_converters_fold_still_checks(module: nn.Module, scheme: Scheme, tmp_path: Path):
    data = samples("residual")
    model = wrap(module, data[:1], scheme, data)
    emission = TARGET.emit(model, runtime(), tmp_path)
    for check in TARGET.checks(tmp_path, emission, model):
        assert check.passed, check


class Functional(nn.Module):
    """Weights used by the model's own code: a linear layer and a product with a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.square, self.product = (
            nn.Parameter(torch.rand(20, 20)),
            nn.Parameter(torch.rand(20, 3)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.square) @ self.product


class Shared(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


@toolchain
@pytest.mark.slow
@pytest.mark.parametrize("module", [Functional(), Shared()], ids=["functional", "shared"])
def test_weights_used_in_unusual_ways_still_check(module: nn.Module, tmp_path: Path) -> None:
    model = wrap(module, samples("perceptron", 1))
    emission = TARGET.emit(model, runtime(), tmp_path)
    for check in TARGET.checks(tmp_path, emission, model):
        assert check.passed, check


@toolchain
@pytest.mark.slow
def test_integer_inputs_become_int32(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.head = nn.Linear(8, 2)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(tokens).mean(1))

    model = wrap(Tokens(), torch.tensor([[1, 2, 3, 9]]))
    emission = TARGET.emit(model, runtime(), tmp_path)
    assert emission.inputs[0].dtype == "int32"
    assert all(check.passed for check in TARGET.checks(tmp_path, emission, model))


# Bad input.


class Gamma(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(x)


@toolchain
@pytest.mark.slow
def test_an_operator_core_ml_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    module = nn.Sequential()
    module.add_module("first", nn.Linear(20, 4))
    module.add_module("gamma", Gamma())
    with pytest.raises(UnsupportedModel, match=r"lgamma.*layer 'gamma'.*another target") as problem:
        TARGET.emit(wrap(module, torch.ones(1, 20)), runtime(), tmp_path)
    assert problem.value.details == {"operator": "aten.lgamma.default", "layer": "gamma"}
    assert list(tmp_path.iterdir()) == []


@toolchain
@pytest.mark.slow
def test_an_operator_that_could_not_be_checked_is_refused(tmp_path: Path) -> None:
    class Reverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(1)

    with pytest.raises(UnsupportedModel, match="reverse"):
        TARGET.emit(wrap(Reverse(), torch.ones(1, 20)), runtime(), tmp_path)


@toolchain
def test_refused_schemes_names_and_types(tmp_path: Path) -> None:
    model = compressed("perceptron", "fp32")
    with pytest.raises(UnsupportedModel, match="Neural Engine"):
        TARGET.emit(model, runtime("npu"), tmp_path)
    for name in ("scores", "2nd", "a-b"):
        renamed = wrap(nn.Linear(20, 2), torch.ones(1, 20))
        object.__setattr__(renamed.inputs[0], "name", name)
        with pytest.raises(UnsupportedModel, match=repr(name)):
            TARGET.emit(renamed, runtime(), tmp_path)
    two = wrap(nn.Linear(20, 2), torch.ones(1, 20))
    object.__setattr__(two, "outputs", two.outputs * 2)
    with pytest.raises(UnsupportedModel, match="1 tensors where 2"):
        TARGET.emit(two, runtime(), tmp_path)
    with pytest.raises(UnsupportedModel, match=r"torch\.bool"):
        TARGET.emit(wrap(nn.Identity(), torch.ones(1, 2, dtype=torch.bool)), runtime(), tmp_path)


# Predicting.


@pytest.mark.parametrize("net", NETS)
def test_half_precision_simulation_rounds_and_leaves_the_model_alone(net: str) -> None:
    model, data = compressed(net, "fp16"), samples(net, 5)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    (simulated,) = TARGET.simulate(model)(data)
    exact = model.module(data)
    assert torch.equal(simulated, simulated.half().float())
    assert 0 < (simulated - exact).abs().max() < 0.01 * exact.abs().max()
    assert all(torch.equal(before[name], t) for name, t in model.module.state_dict().items())


def test_half_precision_simulation_follows_operators_that_work_in_place() -> None:
    model = wrap(nn.Sequential(nn.Linear(20, 8), nn.ReLU(inplace=True)), torch.ones(1, 20))
    data = samples("perceptron")
    (simulated,) = TARGET.simulate(model)(data)
    assert torch.equal(simulated, simulated.half().float())
    assert torch.allclose(simulated, model.module(data), atol=1e-2)


def test_full_precision_simulation_is_the_model() -> None:
    model, data = compressed("separable", "fp32"), samples("separable", 5)
    (simulated,) = TARGET.simulate(model)(data)
    assert torch.equal(simulated, model.module(data))


@toolchain
@pytest.mark.slow
def test_int8_simulation_takes_any_batch_and_follows_the_file(tmp_path: Path) -> None:
    from edgesdk_coreml.evaluate import load_program

    batch_size = 4
    model, data = compressed("residual", "int8", batch_size), samples("residual", 7)
    simulate = TARGET.simulate(model)
    (whole,) = simulate(data)
    alone = torch.cat([simulate(data[i : i + 1])[0] for i in range(7)])
    assert torch.equal(whole, alone)
    exact = model.module(data)
    assert 0 < (whole - exact).norm() < 0.1 * exact.norm()
    TARGET.emit(model, runtime(), tmp_path)
    run = load_program(tmp_path / PACKAGE)
    (given,) = run([data[:batch_size].numpy()])
    assert np.abs(given - whole[:batch_size].numpy()).max() < 0.1 * exact.abs().max()
