"""Energy while inferences are timed, from the files that Linux shows of its meters."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgesdk.profiling.agent import energy
from edgesdk.profiling.agent.energy import Meter, Metering, find_meter


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any meter."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    monkeypatch.setattr(energy, "HWMON", tmp_path / "hwmon")
    monkeypatch.setattr(energy, "_PERIOD_S", 0.01)
    return tmp_path


def write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def jetson(root: Path, label: str = "VDD_IN", name: str = "ina3221") -> Path:
    """Write the rails of a Jetson: 5.1 V and 1.2 A on the first."""
    rail = {"in1_input": 5100, "curr1_input": 1200, "in1_label": label}
    cpu = {"in2_input": 5000, "curr2_input": 300, "in2_label": "VDD_CPU_GPU_CV"}
    return write(root / "hwmon/hwmon3", name=name, **rail, **cpu)


def package(root: Path, number: int = 0, name: str = "package-0", uj: int = 1_000_000) -> Path:
    folder = root / f"powercap/intel-rapl:{number}"
    return write(folder, name=name, energy_uj=uj, max_energy_range_uj=5_000_000)


def test_a_machine_without_a_meter_tells_nothing() -> None:
    assert find_meter() is None
    with Metering(None) as metering:
        begin = time.monotonic()
    assert metering.of_inference(begin, time.monotonic(), 10) is None


def test_the_rail_that_feeds_a_jetson_is_read(machine: Path) -> None:
    jetson(machine)
    meter = find_meter()
    assert meter is not None
    assert not meter.counts
    assert meter.read() == pytest.approx(6.12)
    assert "VDD_IN" in meter.source
    with Metering(meter) as metering:
        begin = time.monotonic()
        time.sleep(0.2)
        end = time.monotonic()
    found = metering.of_inference(begin, end, 100)
    assert found is not None
    assert found["inference_mj"] == pytest.approx(1e3 * 6.12 * (end - begin) / 100)
    assert "6.12 W" in found["source"]


def test_rails_that_feed_a_part_are_not_taken_for_the_whole(machine: Path) -> None:
    jetson(machine, label="VDD_GPU_SOC")
    assert find_meter() is None


def test_another_chip_with_that_label_is_not_read(machine: Path) -> None:
    jetson(machine, name="max17042")
    assert find_meter() is None


def test_packages_are_added_and_their_parts_are_not(machine: Path) -> None:
    package(machine, 0, "package-0", 1_000_000)
    package(machine, 1, "package-1", 500_000)
    package(machine, 2, "psys", 9_000_000)
    write(machine / "powercap/intel-rapl:0:0", name="core", energy_uj=700_000)
    meter = find_meter()
    assert meter is not None
    assert meter.counts
    assert meter.read() == pytest.approx(1.5)


def test_a_counter_that_wraps_goes_on(machine: Path) -> None:
    zone = package(machine, uj=4_900_000)
    meter = find_meter()
    assert meter is not None
    before = meter.read()
    (zone / "energy_uj").write_text("200000")
    assert meter.read() - before == pytest.approx(0.3)


def test_a_counter_becomes_the_energy_of_one_inference() -> None:
    start = time.monotonic()
    meter = Meter(source="m", counts=True, read=lambda: 7 + 3 * (time.monotonic() - start))
    with Metering(meter) as metering:
        begin = time.monotonic()
        time.sleep(0.2)
        end = time.monotonic()
    found = metering.of_inference(begin, end, 50)
    assert found is not None
    assert found["inference_mj"] == pytest.approx(1e3 * 3 * (end - begin) / 50, rel=0.05)


def test_what_only_root_may_read_is_not_known(machine: Path) -> None:
    (package(machine) / "energy_uj").unlink()
    (jetson(machine) / "curr1_input").write_text("garbage")
    assert find_meter() is None


def test_a_meter_that_goes_away_ends_nothing() -> None:
    def gone() -> float:
        raise OSError("the file is no more")

    with Metering(Meter(source="m", counts=False, read=gone)) as metering:
        begin = time.monotonic()
        time.sleep(0.05)
    assert metering.of_inference(begin, time.monotonic(), 1) is None
