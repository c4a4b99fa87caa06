"""Weight-only formats, layers of their own scheme in Core ML packages: read, evaluated."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from format_nets import attending, block, images, model_in, predicted_size, simulated_db

from edgesdk.device_files import load_device
from edgesdk.errors import UnsupportedModel
from edgesdk.parity import sqnr_db
from edgesdk.scheme import COARSE_SCHEMES, Scheme
from edgesdk.target import find_target

pytestmark = [pytest.mark.slow, pytest.mark.toolchain]

IOS17 = load_device("iphone_15_pro").runtime_for("coreml")
IOS18 = replace(IOS17, minimum_version="iOS18")
TARGET = find_target("coreml")


@pytest.mark.parametrize(
    ("name", "scheme", "layers", "told"),
    [
        ("images", "w8", {"head": "fp16"}, "1 in fp16, 4 in w8 of 5 layers"),
        ("images", "int8", {"stem": "fp16", "hidden": "w4"}, "1 in fp16, 3 in int8, 1 in w4 of 5"),
        ("block", "fp16", {"up": "w4", "query": "w8"}, "3 in fp16, 1 in w4, 1 in w8 of 5"),
        ("block", "w4", {"query": "w8"}, "3 in w4, 2 in w8 of 5 layers; 1 in w8 instead: head"),
        ("attending", "w4", {}, "4 in w4 of 4 layers"),
        ("images", "lut4", {"stem": "w8"}, "4 in lut4, 1 in w8 of 5 layers"),
        ("images", "lut8", {}, "2 in fp16, 3 in lut8 of 5 layers; 2 in fp16 instead: depthwise"),
        ("block", "w8", {"up": "lut6", "head": "fp16"}, "1 in fp16, 1 in lut6, 3 in w8 of 5"),
    ],
)
def test_every_layer_is_in_its_scheme_and_evaluates_to_the_simulation(
    name: str, scheme: Scheme, layers: dict[str, Scheme], told: str, tmp_path: Path
) -> None:
    net = {"images": images, "block": block, "attending": attending}[name]()
    model = model_in(net, scheme, layers)
    emission = TARGET.emit(model, IOS18 if "w4" in model.schemes else IOS17, tmp_path)
    checks = {check.name: check for check in TARGET.checks(tmp_path, emission, model)}
    assert [check for check in checks.values() if not check.passed] == []
    assert checks["precision"].detail.startswith(told)
    session = TARGET.open(tmp_path, emission, "mil-evaluator", 1)
    rows = [torch.from_numpy(session.run([row[None].numpy()])[0]) for row in net[1]]
    with torch.no_grad():
        ratio = sqnr_db((net[0](net[1]),), (torch.cat(rows),))
    assert ratio is not None
    assert ratio >= (6 if model.coarsest in COARSE_SCHEMES else 10)
    assert simulated_db(model, net[1], "coreml") == pytest.approx(ratio, abs=4)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    near = max(0.03, 2000 / size)
    assert predicted_size(model, emission, tmp_path, "coreml") == pytest.approx(1, abs=near)


def test_weights_that_were_never_made_narrow_fail(tmp_path: Path) -> None:
    emission = TARGET.emit(model_in(block(), "fp16"), IOS18, tmp_path)
    checks = TARGET.checks(tmp_path, emission, model_in(block(), "w4"))
    precision = next(check for check in checks if check.name == "precision")
    assert not precision.passed
    assert "up_linear is fp16" in precision.detail


def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="w4 weights need iOS 18 or macOS 15, not iOS17"):
        TARGET.emit(model_in(block(), "w4"), IOS17, tmp_path)
    with pytest.raises(UnsupportedModel, match="Core ML finds no ranges at run time"):
        TARGET.emit(model_in(block(), "int8_dynamic"), IOS18, tmp_path)
