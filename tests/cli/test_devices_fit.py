"""``edgesdk devices fit``: what it prints and writes, and evidence it refuses."""

from pathlib import Path

import pytest
import torch
from answers import Asking, answered
from torch import nn

from edgesdk.cost import published
from edgesdk.device_document import read_profile
from edgesdk.graph import OpGraph
from edgesdk.trace import trace

HEADER = "device,runtime,precision,model,latency_ms\n"
WIDTHS = (8, 16, 24, 48)


def graph(width: int) -> OpGraph:
    model = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3))
    return trace(model.eval(), (torch.zeros(1, 3, 32, 32),), name=f"net{width}")


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of four networks on one phone; their graph files are empty and read as traced."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    graphs = {f"net{width}": graph(width) for width in WIDTHS}
    for name in graphs:
        (folder / f"{name}.json.gz").touch()
    monkeypatch.setattr(published, "_graph", lambda path, name: graphs[name])
    rows = [f"Samsung Galaxy S24,tflite,float,net{n},{0.1 * (1 + n / 8)}\n" for n in WIDTHS]
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "".join(rows) + "Toaster,tflite,float,net8,1\n", encoding="utf-8")
    return path


def fit(asking: Asking, evidence: Path, *more: str) -> tuple[int, dict[str, object]]:
    graphs = str(evidence.parent / "graphs")
    return answered(asking("devices", "fit", str(evidence), "--graphs", graphs, *more, "--json"))


def test_profiles_that_change_are_written(asking: Asking, evidence: Path, tmp_path: Path) -> None:
    code, data = fit(asking, evidence, "-o", str(tmp_path / "fitted"))
    assert code == 0
    assert (data["rows"], data["used"]) == (5, 4)
    assert data["left_out"] == {"of a device, runtime and precision that no profile names": 1}
    assert data["changed"] == ["samsung_galaxy_s24"]
    written = read_profile(tmp_path / "fitted" / "samsung_galaxy_s24.toml")
    assert written.runtime[0].precisions["fp16"].networks == len(WIDTHS)


def test_without_a_folder_nothing_is_written(asking: Asking, evidence: Path) -> None:
    before = sorted(evidence.parent.rglob("*"))
    assert fit(asking, evidence)[0] == 0
    assert sorted(evidence.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device,runtime\n", "lacks the column(s) precision, model, latency_ms"),
        (HEADER.replace("_ms", "_us"), "latency_us"),
        (HEADER + "Samsung Galaxy S24,tflite,float,net8,\n", "line 2"),
        (HEADER + "Samsung Galaxy S24,tflite,float,net8,-1\n", "positive number"),
        (HEADER + "Samsung Galaxy S24,tflite,float,net8,1\n", "at least 4 networks"),
        (HEADER, "no row names one"),
    ],
)
def test_evidence_that_cannot_be_used(asking: Asking, evidence: Path, text: str, said: str) -> None:
    evidence.write_text(text, encoding="utf-8")
    code, data = fit(asking, evidence)
    assert code == 9
    assert data["error"] == "MeasurementError"
    assert said in str(data["message"])
