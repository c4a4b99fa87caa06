"""The reference target of the guide, question by question."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import ROOT
from torch import nn

from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.errors import ArtifactError, UnsupportedModel
from edgesdk.scheme import Scheme
from edgesdk.target import Target
from edgesdk.task import InputSpec, OutputSpec

FOLDER = ROOT / "examples/reference_target"
RUNTIME = load_device(str(FOLDER / "numpy_computer.toml")).runtime_for("numpy")


@pytest.fixture(scope="module")
def target() -> Any:
    sys.path.insert(0, str(FOLDER))
    try:
        import edgesdk_numpy

        yield edgesdk_numpy.TARGET
    finally:
        sys.path.remove(str(FOLDER))


def _model(scheme: Scheme = "fp32", *, last: nn.Module | None = None) -> CompressedModel:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), last or nn.Linear(8, 3, bias=False)]
    return CompressedModel(
        module=nn.Sequential(*layers).eval(),
        example_inputs=(torch.randn(2, 6),),
        scheme=scheme,
        calibration=(),
        inputs=(InputSpec(name="x"),),
        outputs=(OutputSpec(name="y", kind="logits"),),
    )


def test_it_is_a_target(target: Any) -> None:
    assert isinstance(target, Target)
    assert target.toolchain().is_complete


def test_capability_gives_reasons(target: Any) -> None:
    assert target.capability(RUNTIME).schemes == ("fp32", "fp16")
    assert "quantizer" in target.capability(RUNTIME).refused["int8"]
    narrow = dataclasses.replace(RUNTIME, precisions={"fp32": RUNTIME.precisions["fp32"]})
    assert target.capability(narrow).schemes == ("fp32",)
    assert "fp16" in target.capability(narrow).refused


@pytest.mark.parametrize(("scheme", "tolerance"), [("fp32", 1e-6), ("fp16", 2e-3)])
def test_the_file_computes_the_model(
    target: Any, tmp_path: Path, scheme: Scheme, tolerance: float
) -> None:
    model = _model(scheme)
    emission = target.emit(model, RUNTIME, tmp_path)
    session = target.open(tmp_path, emission, "numpy", 1)
    (got,) = session.run([model.example_inputs[0].numpy()])
    with torch.no_grad():
        wanted = model.module(*model.example_inputs).numpy()
    assert got.shape == emission.outputs[0].shape
    assert np.abs(got - wanted).max() < tolerance
    assert all(check.passed for check in target.checks(tmp_path, emission, model))
    held = {count.op: count.weight_bytes for count in target.operators(tmp_path, emission)}
    width = {"fp32": 4, "fp16": 2}[scheme]
    assert held == {"linear": width * (6 * 8 + 8 + 8 * 3), "relu": 0}


def test_equal_models_give_equal_bytes(target: Any, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        target.emit(_model(), RUNTIME, tmp_path / name)
        written.append((tmp_path / name / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_checks_notice_other_weights_and_another_precision(target: Any, tmp_path: Path) -> None:
    emission = target.emit(_model(), RUNTIME, tmp_path)
    other = _model("fp16")
    with torch.no_grad():
        other.module[0].weight[0, 0] += 1
    passed = {c.name: c.passed for c in target.checks(tmp_path, emission, other)}
    assert passed == {"weights": False, "precision": False}


def test_a_foreign_operator_is_refused_by_name(target: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"'2' is a gelu"):
        target.emit(_model(last=nn.GELU()), RUNTIME, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_an_artifact_error(target: Any, tmp_path: Path) -> None:
    emission = target.emit(_model(), RUNTIME, tmp_path)
    path = tmp_path / emission.files[0]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        target.open(tmp_path, emission, "numpy", 1)
