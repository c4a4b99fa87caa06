"""Dynamic int8, int4 and layers of their own scheme in ``.tflite`` files: emitted, read and run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from format_nets import (
    WIDTH,
    attending,
    block,
    images,
    model_in,
    predicted_size,
    simulated_db,
)
from torch import Tensor, nn

from edgesdk.artifact import Check
from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.errors import UnsupportedModel
from edgesdk.parity import sqnr_db
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, find_target
from edgesdk_tflite.attribution import is_scaled, linear_weights
from edgesdk_tflite.flatbuffer import read_model
from edgesdk_tflite.layer_recipes import layer_behind

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]

RUNTIME = load_device("host").runtime_for("tflite")
TARGET = find_target("tflite")
SCHEMES_CHECK = "layers are in their schemes"


def checked(folder: Path, emission: Emission, model: CompressedModel) -> dict[str, Check]:
    return {check.name: check for check in TARGET.checks(folder, emission, model)}


def answers(folder: Path, emission: Emission, samples: Tensor) -> Tensor:
    session = TARGET.open(folder, emission, "litert", 1)
    order = emission.inputs[0].from_torch
    rows = [row[None].permute(*order).contiguous().numpy() for row in samples]
    return torch.from_numpy(np.concatenate([session.run([row])[0].copy() for row in rows]))


@pytest.mark.parametrize(
    ("name", "scheme", "layers", "told"),
    [
        ("images", "int8_dynamic", {"head": "fp32"}, "1 in fp32, 4 in int8_dynamic"),
        ("images", "int8", {"stem": "fp32", "hidden": "int4_dynamic"}, "1 in fp32, 1 in int4"),
        ("block", "int4_dynamic", {"query": "int8_dynamic"}, "3 in int4_dynamic, 2 in int8"),
        ("block", "fp32", {"up": "int4_dynamic"}, "4 in fp32, 1 in int4_dynamic"),
        ("block", "int8_dynamic", {"down": "int4_dynamic"}, "1 in int4_dynamic, 4 in int8_dyn"),
    ],
)  # fmt: skip
def test_every_layer_is_in_its_scheme_and_follows_the_model(
    name: str, scheme: Scheme, layers: dict[str, Scheme], told: str, tmp_path: Path
) -> None:
    net = images() if name == "images" else block()
    model = model_in(net, scheme, layers)

    emission = TARGET.emit(model, RUNTIME, tmp_path)
    checks = checked(tmp_path, emission, model)

    assert [check for check in checks.values() if not check.passed] == []
    assert checks[SCHEMES_CHECK].detail.startswith(told)
    with torch.no_grad():
        ratio = sqnr_db((net[0](net[1]),), (answers(tmp_path, emission, net[1]),))
    assert ratio is not None
    assert ratio >= (6 if model.coarsest == "int4_dynamic" else 10)
    assert simulated_db(model, net[1], "tflite") == pytest.approx(ratio, abs=4)
    assert predicted_size(model, emission, tmp_path, "tflite") == pytest.approx(1, abs=0.03)


def test_layers_that_the_converter_names_alike_are_told_apart_by_their_weights(
    tmp_path: Path,
) -> None:
    net = attending()
    model = model_in(net, "int4_dynamic", {"key": "fp32", "query": "int8_dynamic"})
    emission = TARGET.emit(model, RUNTIME, tmp_path)
    checks = checked(tmp_path, emission, model)
    assert [check for check in checks.values() if not check.passed] == []
    file = read_model(tmp_path / emission.files[0])
    found = {layer_behind(op.outputs[0].name, emission.layer_of): k for op, k in file.kernels()}
    assert {layer: kernel.dtype for layer, kernel in found.items()} == {
        "query": "int8", "key": "float32", "value": "int4", "out": "int4",
    }  # fmt: skip
    key = found["key"].data
    assert key is not None
    weights = linear_weights(net[0])
    kernel = key.view(np.float32).reshape(WIDTH, WIDTH)
    assert [layer for layer, weight in weights.items() if is_scaled(kernel, weight)] == ["key"]


def test_int4_that_decodes_to_other_weights_fails(tmp_path: Path) -> None:
    model = model_in(block(), "int4_dynamic")
    emission = TARGET.emit(model, RUNTIME, tmp_path)
    checks = checked(tmp_path, emission, model)
    assert checks["int4 weights are those of the model"].detail == "4 kernels compared"
    assert "head (its 24 inputs do not divide" in checks[SCHEMES_CHECK].detail

    up = model.module.up
    assert isinstance(up, nn.Linear)
    with torch.no_grad():
        up.weight[3, 5] += 0.3
    found = checked(tmp_path, emission, model)["int4 weights are those of the model"]
    assert not found.passed


def test_a_layer_in_another_scheme_than_asked_fails(tmp_path: Path) -> None:
    emission = TARGET.emit(model_in(block(), "int8_dynamic"), RUNTIME, tmp_path)
    asked = model_in(block(), "int8_dynamic", {"up": "fp32"})
    found = checked(tmp_path, emission, asked)[SCHEMES_CHECK]
    assert not found.passed
    assert "FULLY_CONNECTED (up" in found.detail


def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="layer 'head' cannot be int4_dynamic: its 24 input"):
        TARGET.emit(model_in(block(), "int8", {"head": "int4_dynamic"}), RUNTIME, tmp_path)
    micro = load_device("nucleo_h7a3zi_q").runtime_for("tflite")
    with pytest.raises(UnsupportedModel, match="no kernels that find ranges at run time"):
        TARGET.emit(model_in(images(), "int8_dynamic"), micro, tmp_path)
    with pytest.raises(UnsupportedModel, match="keep the network in one scheme"):
        TARGET.emit(model_in(images(), "int8", {"stem": "fp32"}), micro, tmp_path)
