"""Refining a profile with artifacts that were measured on the device."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesdk.artifact import (
    GOLDEN,
    GRAPH,
    MANIFEST,
    MANIFEST_SHA256,
    PLAN,
    Manifest,
    Parity,
    files_under,
    manifest_seal,
    sha256_of,
)
from edgesdk.calibrating.host import packaged_host
from edgesdk.calibrating.microbenchmarks import microbenchmarks
from edgesdk.calibrating.refining import LEAST_MEASUREMENTS, read_measured, refine
from edgesdk.cost.latency import predict_latency
from edgesdk.document import to_json
from edgesdk.errors import ArtifactError, MeasurementError
from edgesdk.graph import OpGraph
from edgesdk.measurement import Measurement, RuntimeIdentity, SelfTest
from edgesdk.stored_graph import write_graph
from edgesdk.trace import trace

DEVICE = packaged_host()
RUNTIME = DEVICE.runtime_for("tflite")
NETWORKS = [item for item in microbenchmarks() if item.family][:4]
Making = Callable[..., Path]


@pytest.fixture(scope="module")
def graphs() -> dict[str, OpGraph]:
    return {item.name: trace(item.module(), item.example_inputs(), name="n") for item in NETWORKS}


@pytest.fixture
def making(tmp_path: Path, graphs: dict[str, OpGraph]) -> Making:
    """Write the artifact of a network, measured at so many times its predicted latency."""

    def make(index: int, *, factor: float = 2.0, inside: bool = True, **changes: Any) -> Path:
        name = NETWORKS[index].name
        folder = tmp_path / f"artifact_{index}"
        folder.mkdir()
        for file, text in (("model.tflite", name), (PLAN, "{}"), (GOLDEN, "vectors")):
            (folder / file).write_text(text)
        write_graph(graphs[name], folder / GRAPH)
        measurement = measured_at(graphs[name], factor, folder, **changes)
        write_manifest(folder, measurement if inside else None)
        if not inside:
            (tmp_path / f"{index}.json").write_text(to_json(measurement))
        return folder

    return make


def measured_at(graph: OpGraph, factor: float, folder: Path, **changes: Any) -> Measurement:
    latency_ms = factor * predict_latency(graph, RUNTIME, "fp32").total.value
    identity = RuntimeIdentity(
        runtime="litert", version="2.3.0", platform="p", unit="cpu", threads=1
    )
    measurement = Measurement(
        artifact_sha256=sha256_of(folder / "model.tflite"),
        device="host",
        identity=identity,
        batch_size=1,
        warmup_runs=1,
        runs=10,
        measured_by="a test",
        load_ms=1.0,
        first_ms=latency_ms,
        minimum_ms=latency_ms,
        p50_ms=latency_ms,
        p90_ms=latency_ms,
        p99_ms=latency_ms,
    )
    ran = {name: changes.pop(name) for name in ("threads", "unit") if name in changes}
    return replace(measurement, identity=replace(identity, **ran), **changes)


def write_manifest(folder: Path, measurement: Measurement | None) -> None:
    fields: dict[str, Any] = {
        "task": "t", "device": "host", "target": "tflite", "delegate": "xnnpack",
        "runtime": "litert", "minimum_runtime": "2.3.0", "host_runtime": None, "threads": 1,
        "unit": "cpu",
        "scheme": "fp32", "batch_size": 1, "files": ("model.tflite",), "tool_versions": {},
        "budget": (), "plan_sha256": sha256_of(folder / PLAN), "measurement": measurement,
        "parity": Parity(
            status="not verified", runtime="none", samples=0, sqnr_db=None, maximum_error=None,
            top1_agreement=None, checks=(),
        ),
    }  # fmt: skip
    fields |= dict.fromkeys(("inputs", "outputs", "input_specs", "output_specs", "operators"), ())
    fields |= {
        name: {} for name in ("baseline", "predicted", "verified", "interpreted", "measured")
    }
    names = [path.relative_to(folder).as_posix() for path in files_under(folder)]
    manifest = Manifest(sha256={name: sha256_of(folder / name) for name in names}, **fields)
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / MANIFEST_SHA256).write_text(manifest_seal(folder))


def test_a_profile_follows_what_was_measured(making: Making, graphs: dict[str, OpGraph]) -> None:
    result = refine(DEVICE, read_measured([making(index) for index in range(3)]))
    assert result.kept == {}
    assert result.profile.calibrated_from == "host"
    refined = result.profile.runtime_for("tflite")
    for graph in graphs.values():
        before = predict_latency(graph, RUNTIME, "fp32").total.value
        after = predict_latency(graph, refined, "fp32").total.value
        assert after == pytest.approx(2 * before, rel=0.05)
    assert refined.precisions["int8"] == RUNTIME.precisions["int8"]


def test_too_few_measurements_keep_the_coefficients(making: Making) -> None:
    result = refine(DEVICE, read_measured([making(0), making(1)]))
    assert result.kept == {
        ("tflite", RUNTIME.delegate, "fp32"): f"2 measurement(s), {LEAST_MEASUREMENTS} are needed"
    }
    assert result.profile.runtime == DEVICE.runtime


def test_a_measurement_may_lie_in_a_file_of_its_own(making: Making, tmp_path: Path) -> None:
    folder = making(0, inside=False)
    [found] = read_measured([folder, tmp_path / "0.json"])
    assert found.folder == folder
    with pytest.raises(MeasurementError, match="artifact_0 was not measured"):
        read_measured([folder])
    with pytest.raises(MeasurementError, match="in none of the folders given"):
        read_measured([making(1), tmp_path / "0.json"])


def test_a_stored_measurement_comes_before_the_manifest_s(
    making: Making, graphs: dict[str, OpGraph]
) -> None:
    folder = making(0)
    graph = graphs[NETWORKS[0].name]
    older, newer = measured_at(graph, 3.0, folder), measured_at(graph, 4.0, folder)
    four_threads = measured_at(graph, 1.0, folder, threads=4)
    on_gpu = measured_at(graph, 1.0, folder, unit="gpu")
    [found] = read_measured([folder], [older, newer, four_threads, on_gpu])
    assert found.measurement == newer
    wrong = measured_at(graph, 5.0, folder, self_test=SelfTest(status="failed", samples=8))
    [found] = read_measured([folder], [newer, wrong])
    assert found.measurement == newer
    [found] = read_measured([folder], [four_threads, measured_at(graph, 1, making(1))])
    assert found.measurement == found.manifest.measurement


def test_a_measurement_of_another_file_is_refused(making: Making) -> None:
    folder = making(0, artifact_sha256="0" * 64)
    with pytest.raises(MeasurementError, match="is about another file"):
        read_measured([folder])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "pixel"}, "measured on 'pixel'. Expected: measurements of 'host'"),
        ({"threads": 4}, "was measured on 4 threads, not 1 thread"),
        ({"unit": "gpu"}, "was measured on the gpu, not cpu"),
        ({"self_test": SelfTest(status="failed", samples=8)}, "failed its self-test on host"),
    ],
)
def test_a_measurement_of_something_else_is_refused(
    making: Making, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(MeasurementError, match=said):
        refine(DEVICE, read_measured([making(0, **changes)]))


def test_a_damaged_artifact_is_refused(making: Making) -> None:
    folder = making(0)
    (folder / "model.tflite").write_text("another network")
    with pytest.raises(ArtifactError, match="SHA-256"):
        read_measured([folder])


@pytest.mark.parametrize("text", ["", "[]", '{"device": "host"}', '{"p50_ms": NaN}'])
def test_a_file_that_is_no_measurement(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(MeasurementError):
        read_measured([tmp_path / "m.json"])
