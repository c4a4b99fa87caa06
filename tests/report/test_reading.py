import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whole_artifacts import DEVICE, MODEL, layers, manifest, measurement, seal, write_artifact

from edgesdk.artifact import LAYERS, PLAN
from edgesdk.document import to_json
from edgesdk.errors import ArtifactError, MeasurementError, UsageError
from edgesdk.figure import Figure
from edgesdk.measurement import RuntimeIdentity, SelfTest
from edgesdk.profiling.store import Stored
from edgesdk.report import reading
from edgesdk.report.reading import read_report


def write_measurement(folder: Path, path: Path, **changes: object) -> Path:
    path.write_text(to_json(measurement(folder, **changes)))
    return path


def test_an_artifact_is_read_with_every_figure_in_its_standing(artifact: Path) -> None:
    data = read_report([artifact])
    [found] = data.artifacts
    assert (found.label, found.device, found.status) == ("small", DEVICE, "kept")
    latency, size = found.figure("latency_ms"), found.figure("size_bytes")
    assert latency is not None
    assert size is not None
    assert (latency.best, latency.measured) == (latency.predicted, None)
    assert size.best == size.proven
    assert size.proven is not None
    assert size.proven.value == (artifact / MODEL).stat().st_size == found.files[0].size_bytes
    assert found.figure("energy_mj") is None
    assert [row.figure for row in data.comparison][:3] == [
        "latency_ms",
        "memory_bytes",
        "size_bytes",
    ]


@pytest.mark.parametrize("name", [MODEL, PLAN, LAYERS, "manifest.json"])
def test_one_changed_byte_is_refused(artifact: Path, name: str) -> None:
    content = bytearray((artifact / name).read_bytes())
    content[len(content) // 2] ^= 1
    (artifact / name).write_bytes(content)
    with pytest.raises(ArtifactError):
        read_report([artifact])


def test_an_artifact_without_layers_says_what_to_do(artifact: Path) -> None:
    (artifact / LAYERS).unlink()
    for name in ("manifest.json", "manifest.sha256"):
        (artifact / name).unlink()
    seal(artifact, manifest(artifact))
    with pytest.raises(ArtifactError, match=r"layers\.json.*compile it anew"):
        read_report([artifact])


def test_documents_too_large_are_refused_unread(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIMIT_BYTES", 1000)
    with pytest.raises(ArtifactError, match="larger than"):
        read_report([artifact])


def test_a_folder_given_twice_is_refused(artifact: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        read_report([artifact, artifact.parent / "." / "small"])


def test_equal_names_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    folders = [write_artifact(tmp_path / parent / "out") for parent in ("a", "b")]
    labels = [found.label for found in read_report(folders).artifacts]
    assert labels == [str(folder) for folder in folders]


def test_a_slower_measurement_on_its_device_refutes_the_budget(artifact: Path) -> None:
    slow = {"minimum_ms": 8.5, "p50_ms": 9.0, "p90_ms": 9.5, "p99_ms": 11.0}
    fast = write_measurement(artifact, artifact.parent / "fast.json")
    late = write_measurement(artifact, artifact.parent / "slow.json", **slow)
    [kept] = read_report([artifact], [fast]).artifacts
    assert (kept.status, [v.met for v in kept.verdicts]) == ("kept", [True] * 4)
    assert kept.verdicts[0].figure is not None
    assert (kept.verdicts[0].figure.standing, kept.verdicts[0].figure.value) == ("measured", 4.0)
    [missed] = read_report([artifact], [late, fast]).artifacts
    assert (missed.status, missed.verdicts[0].met) == ("missed", False)
    assert missed.verdicts[0].figure is not None
    assert missed.verdicts[0].figure.value == 9.0
    assert missed.verdicts[1:] == kept.verdicts[1:]


def test_how_fast_wrong_answers_came_judges_nothing(artifact: Path) -> None:
    failed = SelfTest(status="failed", samples=64, detail="3 dB")
    path = write_measurement(artifact, artifact.parent / "wrong.json", self_test=failed)
    [found] = read_report([artifact], [path]).artifacts
    latency = found.figure("latency_ms")
    assert latency is not None
    assert latency.measured is None
    assert found.verdicts[0].figure == latency.predicted
    assert [item.measurement.self_test for item in found.measurements] == [failed]
    [caution] = found.cautions
    assert "the self-test failed on board (tflite-micro 2.16, cpu)" in caution


def test_a_loss_that_no_limit_forbids_is_a_caution(tmp_path: Path, artifact: Path) -> None:
    assert read_report([artifact]).artifacts[0].cautions == ()
    free = write_artifact(tmp_path / "free", budget=())
    [caution] = read_report([free]).artifacts[0].cautions
    assert "lost 2.25 % of accuracy (97.00 % is left)" in caution


def test_a_measurement_elsewhere_is_shown_and_judges_nothing(artifact: Path) -> None:
    slow = {"p50_ms": 90.0, "p90_ms": 95.0, "p99_ms": 99.0}
    path = write_measurement(artifact, artifact.parent / "m.json", device="elsewhere", **slow)
    [found] = read_report([artifact], [path]).artifacts
    assert [item.departures for item in found.measurements] == [("on elsewhere, not board",)]
    assert found.measurements[0].predicted is None
    assert {row.predicted_ms for row in found.measurements[0].layers} == {None}
    assert found.verdicts == read_report([artifact]).artifacts[0].verdicts
    assert found.figures == read_report([artifact]).artifacts[0].figures


def test_a_measurement_joins_its_layers_and_its_own_artifact(tmp_path: Path) -> None:
    folders = [write_artifact(tmp_path / name) for name in ("a", "b")]
    path = write_measurement(folders[1], tmp_path / "m.json")
    first, second = read_report(folders, [path]).artifacts
    assert first.measurements == ()
    [item] = second.measurements
    assert [(row.layer, row.measured_ms, row.predicted_ms) for row in item.layers] == [
        ("conv1", 0.31, 0.08),
        ("stages.0.conv1", 3.1, 1.41),
        ("stages.0", 0.2, 0.05),
        (None, 0.1, None),
    ]


def stored(folder: Path, *changes: dict[str, Any]) -> list[Stored]:
    """Return measurements of an artifact as the store numbers them, from 1."""
    return [
        Stored(number=number, label="digits", measurement=measurement(folder, **change))
        for number, change in enumerate(changes, 1)
    ]


def elsewhere(folder: Path, **changes: Any) -> RuntimeIdentity:
    return replace(measurement(folder).identity, **changes)


def test_what_lies_in_the_store_is_shown_with_its_number(tmp_path: Path) -> None:
    folders = [write_artifact(tmp_path / name) for name in ("a", "b")]
    kept = stored(
        folders[1],
        {},
        {"device": "browser", "identity": elsewhere(folders[1], runtime="litert.js")},
        {"identity": elsewhere(folders[1], unit="gpu")},
    )
    kept.append(replace(kept[0], number=4, measurement=measurement(folders[0], device="x")))
    first, second = read_report(folders, stored=kept).artifacts
    assert [item.number for item in first.measurements] == [4]
    assert [(item.number, item.departures) for item in second.measurements] == [
        (1, ()),
        (2, ("on browser, not board", "with litert.js, not tflite-micro")),
        (3, ("on the gpu, not cpu",)),
    ]
    guess, none, _ = (item.predicted for item in second.measurements)
    assert guess is not None
    assert (guess, none) == (second.figures[0].predicted, None)
    timed = second.measurements[0].measurement
    assert second.measurements[0].latency.value == timed.p50_ms
    assert second.measurements[0].latency.low == timed.minimum_ms
    assert second.measurements[0].latency.high == timed.p90_ms
    assert second.verdicts[0].figure == second.measurements[0].latency


def test_of_each_place_the_last_in_the_store_counts(artifact: Path) -> None:
    slow = {"minimum_ms": 8.5, "p50_ms": 9.0, "p90_ms": 9.5, "p99_ms": 11.0}
    refuted = stored(artifact, {"sustained": ()}, {"sustained": (), **slow})
    [found] = read_report([artifact], stored=refuted).artifacts
    assert ([item.number for item in found.measurements], found.status) == ([2], "missed")
    again = stored(artifact, {"sustained": (), **slow}, {"sustained": ()})
    [found] = read_report([artifact], stored=again).artifacts
    assert ([item.number for item in found.measurements], found.status) == ([2], "kept")
    # A curve is not lost to a shorter measurement that came after it.
    [found] = read_report([artifact], stored=stored(artifact, {}, {"sustained": ()})).artifacts
    assert [bool(item.measurement.sustained) for item in found.measurements] == [True, False]


def test_what_is_sealed_stored_and_in_a_file_is_shown_once(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "small")
    timed = measurement(folder)
    for name in ("manifest.json", "manifest.sha256"):
        (folder / name).unlink()
    seal(folder, manifest(folder, measurement=timed))
    path = write_measurement(folder, tmp_path / "m.json")
    [found] = read_report([folder], [path], stored(folder, {})).artifacts
    assert [(item.measurement, item.number) for item in found.measurements] == [(timed, 1)]
    [found] = read_report([folder], [path]).artifacts
    assert [(item.measurement, item.number) for item in found.measurements] == [(timed, None)]


def test_a_measurement_of_another_file_is_refused(artifact: Path) -> None:
    path = write_measurement(artifact, artifact.parent / "m.json", artifact_sha256="0" * 64)
    with pytest.raises(MeasurementError, match="000000000000"):
        read_report([artifact], [path])


def test_a_forged_measurement_is_refused(artifact: Path) -> None:
    path = write_measurement(artifact, artifact.parent / "m.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "p50_ms": "4"}))
    with pytest.raises(MeasurementError, match="p50_ms"):
        read_report([artifact], [path])


def test_metered_energy_judges_like_latency(tmp_path: Path) -> None:
    folder = write_artifact(
        tmp_path / "small",
        measured={"energy_mj": Figure(value=1.0, standing="measured", source="before")},
    )
    energy = {"energy": {"inference_mj": 4.0, "source": "rail"}}
    path = tmp_path / "m.json"
    data = json.loads(to_json(measurement(folder)))
    path.write_text(json.dumps(data | energy))
    row = read_report([folder], [path]).artifacts[0].figure("energy_mj")
    assert row is not None
    assert row.measured == Figure(value=4.0, standing="measured", source="rail")


def test_options_that_no_other_beats_in_both_are_efficient(artifact: Path) -> None:
    options = {o.option: o for o in read_report([artifact]).artifacts[0].options}
    assert [name for name, option in options.items() if option.is_chosen] == ["int8, pruned 27 %"]
    assert {name for name, option in options.items() if option.is_efficient} == {
        "int8, pruned 27 %", "fp32", "int8", "int8, pruned 41 %", "int8, pruned 61 %",
    }  # fmt: skip


def test_predictions_stand_beside_what_is_known(artifact: Path) -> None:
    [found] = read_report([artifact]).artifacts
    by_name = {item.figure: item for item in found.agreements}
    assert set(by_name) == {"memory_bytes", "size_bytes", "download_bytes"}
    memory = by_name["memory_bytes"]
    assert memory.ratio == memory.known.value / memory.predicted.value
    assert memory.within
    far = replace(memory.known, value=2 * memory.predicted.value)
    assert memory.predicted.high is not None
    assert far.value > memory.predicted.high


def test_the_commands_ask_for_the_same_budget(artifact: Path) -> None:
    *_, anew = read_report([artifact]).artifacts[0].commands
    assert "edgesdk compile demo:digits --device board --target tflite" in anew
    assert "--latency 8ms --size 19% --max-drop 0.03 -o anew" in anew


def test_no_layer_is_no_obstacle(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "small", changed=layers(layers=()))
    assert read_report([folder]).artifacts[0].layers.layers == ()
