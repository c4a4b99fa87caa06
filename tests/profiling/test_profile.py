"""A measurement beside its prediction, and the refusal of what is about something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measuring import EXAMPLE
from profiled import MODEL, job_of, make_artifact

from edgesdk.artifact import read_manifest, sha256_of
from edgesdk.document import to_json
from edgesdk.errors import MeasurementError, UsageError
from edgesdk.measurement import Measurement, OpTime, PerOp, RuntimeIdentity
from edgesdk.profiling.profile import LayerTime, join_profile, profile_artifact
from edgesdk.profiling.tracing import trace_text


def measured(folder: Path, **changes: Any) -> Measurement:
    """Return a measurement of the artifact on its own device."""
    per_op = PerOp(
        ops=(OpTime(op="MUL", layer="double", ms=1.5), OpTime(op="COPY", layer=None, ms=0.2)),
        hooked_ms=2.5,
        source="ETDump",
    )
    digest = sha256_of(folder / MODEL)
    identity = replace(EXAMPLE.identity, threads=1)
    made = replace(EXAMPLE, artifact_sha256=digest, device="host", identity=identity, per_op=per_op)
    return replace(made, **changes)


def imported(folder: Path, measurement: Measurement, path: Path) -> Any:
    path.write_text(to_json(measurement), encoding="utf-8")
    return profile_artifact(job_of(folder, f"import:{path}"))


def test_an_imported_measurement_is_joined(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "out")
    before = sha256_of(folder)
    profile = imported(folder, measured(folder), tmp_path / "m.json")
    assert profile.measurement == measured(folder)
    assert profile.layers == (
        LayerTime(layer="double", predicted_ms=0.5, measured_ms=1.5),
        LayerTime(layer=None, predicted_ms=None, measured_ms=0.2),
    )
    assert profile.predicted == read_manifest(folder).predicted["latency_ms"]
    assert profile.hook_overhead == pytest.approx(0.25)
    assert sha256_of(folder) == before


def test_a_prediction_for_another_device_is_not_set_beside_it(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "out", device="raspberry_pi_5")
    profile = join_profile(folder, read_manifest(folder), measured(folder))
    assert profile.predicted is None
    assert {layer.predicted_ms for layer in profile.layers} == {None}


@pytest.mark.parametrize(
    ("meant_for", "ran", "said"),
    [
        ({"unit": "npu"}, {"unit": "cpu"}, ("on the cpu, not npu",)),
        ({"unit": "npu"}, {"unit": "cpu", "threads": 4}, ("on the cpu, not npu",)),
        ({"unit": "npu"}, {"unit": "npu", "threads": 4}, ()),
        ({"unit": "npu"}, {"unit": "all"}, ()),
        ({"unit": "cpu"}, {"unit": "gpu"}, ("on the gpu, not cpu",)),
        ({}, {"threads": 4}, ("on 4 threads, not 1 thread",)),
        ({"threads": 2}, {"threads": 1}, ("on 1 thread, not 2 threads",)),
        ({}, {"runtime": "litert.js", "unit": "gpu"}, (
            "with litert.js, not litert", "on the gpu, not cpu",
        )),
        ({}, {}, ()),
    ],
)  # fmt: skip
def test_a_prediction_for_another_unit_or_other_threads_is_not_set_beside_it(
    tmp_path: Path, meant_for: dict[str, Any], ran: dict[str, Any], said: tuple[str, ...]
) -> None:
    folder = make_artifact(tmp_path / "out", **meant_for)
    manifest, here = read_manifest(folder), measured(folder)
    timed = replace(here, identity=replace(here.identity, **ran))
    assert manifest.departures(timed) == said
    profile = join_profile(folder, manifest, timed)
    assert (profile.predicted is None) == bool(said)
    assert (profile.layers[0].predicted_ms is None) == bool(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"artifact_sha256": "0" * 64}, "is about a file with SHA-256 000000000000"),
        ({"batch_size": 8}, "is of batches of 8. Expected: batches of 1"),
        ({"identity": ("executorch", "1.5.1")}, "is of executorch 1.5.1. Expected: litert"),
        ({"identity": ("litert", "2.2.9")}, "the artifact needs 2.3.0 or newer"),
    ],
)
def test_what_is_about_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = make_artifact(tmp_path / "out")
    if isinstance(changes.get("identity"), tuple):
        runtime, version = changes["identity"]
        identity = RuntimeIdentity(
            runtime=runtime, version=version, platform="p", unit="cpu", threads=1
        )
        changes = {"identity": identity}
    wrong = replace(measured(folder), **changes)
    with pytest.raises(MeasurementError, match=said):
        imported(folder, wrong, tmp_path / "m.json")


def test_a_file_that_is_not_there_and_no_file_at_all(tmp_path: Path) -> None:
    out = make_artifact(tmp_path / "out")
    with pytest.raises(MeasurementError, match="cannot be read: No such file"):
        profile_artifact(job_of(out, f"import:{tmp_path}/none.json"))
    with pytest.raises(UsageError, match="import takes a file"):
        profile_artifact(job_of(out, "import"))
    (tmp_path / "m.json").write_text('{"p50_ms": 1')
    with pytest.raises(MeasurementError, match="cannot be read as JSON"):
        profile_artifact(job_of(out, f"import:{tmp_path}/m.json"))


def test_a_trace_holds_operators_one_behind_the_other(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "out")
    profile = join_profile(folder, read_manifest(folder), measured(folder))
    events = json.loads(trace_text(profile))["traceEvents"]
    rows = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert rows == {1: "measured, scaled to p50 (ETDump)", 2: "predicted"}
    pieces = [(e["tid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert pieces == [(1, "MUL", 0.0, 1500.0), (1, "COPY", 1500.0, 200.0), (2, "double", 0.0, 500)]
    assert events[1]["args"] == {
        "layer": "double", "measured_ms": 1.5, "count": 1, "layer_predicted_ms": 0.5,
    }  # fmt: skip


def test_without_operators_there_is_nothing_to_trace(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "out")
    bare = replace(measured(folder), per_op=None, notes=("per_op: no profiler",))
    with pytest.raises(MeasurementError, match="per_op: no profiler"):
        trace_text(join_profile(folder, read_manifest(folder), bare))
