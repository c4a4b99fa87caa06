"""Dynamic int8, int4 and layers of their own scheme in ``.pte`` files: emitted, read and run."""

from pathlib import Path

import pytest
import torch
from format_nets import block, images, model_in, predicted_size, simulated_db
from torch import Tensor

from edgesdk.artifact import Check, size_bytes
from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.errors import UnsupportedModel
from edgesdk.parity import follows, sqnr_db
from edgesdk.scheme import Scheme
from edgesdk.target import Emission, find_target
from edgesdk.task import output_tensors

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]

RUNTIME = load_device("host").runtime_for("executorch")
TARGET = find_target("executorch")


def emitted(model: CompressedModel, folder: Path) -> tuple[Emission, dict[str, Check]]:
    emission = TARGET.emit(model, RUNTIME, folder)
    checks = {check.name: check for check in TARGET.checks(folder, emission, model)}
    assert [check for check in checks.values() if not check.passed] == []
    return emission, checks


def answers(folder: Path, emission: Emission, samples: Tensor) -> Tensor:
    session = TARGET.open(folder, emission, "executorch", 1)
    rows = [torch.from_numpy(session.run([row[None].numpy()])[0]) for row in samples]
    return torch.cat([row.clone() for row in rows])


@pytest.mark.parametrize(
    ("name", "scheme", "layers", "told"),
    [
        ("images", "int8_dynamic", {}, "1 in fp32, 4 in int8_dynamic"),
        ("images", "int8", {"stem": "fp32", "head": "int8_dynamic"}, "1 in fp32, 3 in int8, 1 in"),
        ("block", "int4_dynamic", {"query": "int8_dynamic"}, "3 in int4_dynamic, 2 in int8"),
        ("block", "int8", {"up": "int4_dynamic"}, "1 in int4_dynamic, 4 in int8"),
        ("block", "fp32", {"up": "int4_dynamic"}, "4 in fp32, 1 in int4_dynamic"),
    ],
)  # fmt: skip
def test_every_layer_is_in_its_scheme_and_follows_the_simulation(
    name: str, scheme: Scheme, layers: dict[str, Scheme], told: str, tmp_path: Path
) -> None:
    net = images() if name == "images" else block()
    model = model_in(net, scheme, layers)

    emission, checks = emitted(model, tmp_path)

    assert f"are as asked: {told}" in checks["precision"].detail
    found = answers(tmp_path, emission, net[1])
    simulation = TARGET.simulate(model)
    assert simulation is not None
    assert follows(output_tensors(simulation(net[1])), (found,)).passed
    with torch.no_grad():
        ratio = sqnr_db((net[0](net[1]),), (found,))
    assert ratio is not None
    assert ratio >= (10 if model.coarsest != "int4_dynamic" else 6)
    assert simulated_db(model, net[1], "executorch") == pytest.approx(ratio, abs=4)
    # What is promised: 3 % or 2 kB. In these small files attention's operators miss by 1.3 kB.
    near = max(0.03, 2_000 / size_bytes(tmp_path, emission.files))
    assert predicted_size(model, emission, tmp_path, "executorch") == pytest.approx(1, abs=near)


def test_layers_that_cannot_be_int4_are_named_with_the_reason(tmp_path: Path) -> None:
    _, checks = emitted(model_in(block(), "int4_dynamic"), tmp_path)
    detail = checks["precision"].detail
    assert "1 in int8_dynamic instead: head (its 24 inputs do not divide into groups" in detail


def test_a_layer_is_refused_a_scheme_it_cannot_have(tmp_path: Path) -> None:
    model = model_in(images(), "int8", {"stem": "int4_dynamic"})
    with pytest.raises(UnsupportedModel, match="layer 'stem' cannot be int4_dynamic: int4 weights"):
        TARGET.emit(model, RUNTIME, tmp_path)
    with pytest.raises(UnsupportedModel, match="cannot be int8 in a network of fp32: the ranges"):
        TARGET.emit(model_in(images(), "fp32", {"stem": "int8"}), RUNTIME, tmp_path)
    with pytest.raises(UnsupportedModel, match="XNNPACK computes weight-only formats wrongly"):
        TARGET.emit(model_in(images(), "w8"), RUNTIME, tmp_path)


def test_a_layer_left_in_another_scheme_than_asked_fails(tmp_path: Path) -> None:
    emission = TARGET.emit(model_in(block(), "int8_dynamic"), RUNTIME, tmp_path)
    asked = model_in(block(), "int8_dynamic", {"up": "fp32"})
    checks = {check.name: check for check in TARGET.checks(tmp_path, emission, asked)}
    assert not checks["precision"].passed
    assert "not as asked up (fully_connected, dynamic int8->float32, int8" in (
        checks["precision"].detail
    )
