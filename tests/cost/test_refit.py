"""Fitting profiles to published rows: what changes, and what is said of rows that cannot count."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from edgesdk.cost.published import Row, Suspect, read_rows
from edgesdk.cost.refit import refit, select
from edgesdk.device import DeviceProfile
from edgesdk.device_document import read_profile
from edgesdk.device_files import load_device
from edgesdk.device_text import profile_text
from edgesdk.errors import MeasurementError
from edgesdk.graph import OpGraph
from edgesdk.trace import trace

DEVICE = "samsung_galaxy_s24"


def graph(width: int) -> OpGraph:
    model = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3))
    return trace(model.eval(), (torch.zeros(1, 3, 32, 32),), name=f"net{width}")


GRAPHS = {f"net{width}": graph(width) for width in (8, 16, 24, 48, 96)}


def row(model: str, seconds: float, *, precision: str = "float", device: str = "") -> Row:
    return Row(
        device=device or "Samsung Galaxy S24",
        runtime="tflite",
        precision=precision,
        model=model,
        seconds=seconds,
        energy_j=None,
        source="a bench",
    )


ROWS = tuple(row(name, 1e-4 * (1 + index)) for index, name in enumerate(GRAPHS))


@pytest.fixture(scope="module")
def profile() -> DeviceProfile:
    return load_device(DEVICE)


def test_coefficients_and_their_errors_go_into_the_profile(profile: DeviceProfile) -> None:
    (new,) = refit([profile], ROWS, GRAPHS, source="a bench").profiles
    cost = new.runtime[0].precisions["fp16"]
    assert cost.mac_per_s.source == "a bench"
    assert cost.mac_per_s.kind == "fitted"
    assert cost.networks == len(GRAPHS)
    assert cost.median_error is not None
    assert new.runtime[0].precisions["int8"] == profile.runtime[0].precisions["int8"]
    assert new.runtime[1:] == profile.runtime[1:]


def test_the_written_profile_reads_back(profile: DeviceProfile, tmp_path: Path) -> None:
    (new,) = refit([profile], ROWS, GRAPHS, source="a bench").profiles
    path = tmp_path / f"{DEVICE}.toml"
    path.write_text(profile_text(new), encoding="utf-8")
    assert read_profile(path) == new


def test_what_is_left_out_is_counted_with_its_reason(profile: DeviceProfile) -> None:
    rows = [
        *ROWS,
        row("net8", 2e-4),
        row("elsewhere", 1e-3),
        row("net8", 1e-3, device="another phone"),
        row("net16", 1e-3, precision="w8a8"),
    ]
    suspect = Suspect(model="net16", precision="w8a8", reason="smoke came out")
    selection = select(rows, [profile], GRAPHS, [suspect])
    reasons = " | ".join(selection.left_out)
    assert sum(selection.left_out.values()) + selection.used == len(rows)
    for part in ("no profile names", "without a graph", "smoke came out", "repeats"):
        assert part in reasons


def test_too_few_networks_keep_the_coefficients(profile: DeviceProfile) -> None:
    with pytest.raises(MeasurementError, match="2 network.*at least 4 networks"):
        refit([profile], ROWS[:2], GRAPHS, source="a bench")


def test_read_rows_feeds_the_fit(profile: DeviceProfile, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["device", "runtime", "precision", "model", "latency_ms"])
        for item in ROWS:
            writer.writerow(
                [item.device, item.runtime, item.precision, item.model, 1e3 * item.seconds]
            )
    assert select(read_rows(path), [profile], GRAPHS).used == len(ROWS)
