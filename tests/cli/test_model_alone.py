"""A saved model in the task's place: what the command line says of it, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from answers import Asking, answered
from torch import nn

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 8, 8),)), path)
    return str(path)


def test_the_file_is_verified_and_accuracy_is_not_measured(
    asking: Asking, saved: str, tmp_path: Path
) -> None:
    code, data = answered(asking("inspect", saved, "--json"))
    assert (code, data["task"], data["total"]["parameters"]) == (0, "net", 186)

    device = ("--device", "raspberry_pi_5", "--target", "tflite")
    code, text = asking("compile", saved, *device, "-o", str(tmp_path / "out"))
    assert code == 0
    assert "Accuracy: not measured. Parity: verified (litert)" in text
    assert "int8 is not offered: the task has no calibration data" in text
    report = (tmp_path / "out" / "REPORT.md").read_text(encoding="utf-8")
    assert "not measured" in report
    assert ", 1 sample: signal to noise" in report

    code, data = answered(asking("verify", str(tmp_path / "out"), "--json"))
    assert code == 0

    arguments = ("compile", saved, *device, "--max-drop", "1%", "-o", str(tmp_path / "other"))
    code, data = answered(asking(*arguments, "--json"))
    assert (code, data["error"]) == (2, "UsageError")
