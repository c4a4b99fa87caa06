"""Runs on older runtimes, sealed into an artifact that is whole already."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_artifacts import write_artifact

from edgesdk.artifact import REPORT, Check, read_manifest
from edgesdk.stages import field
from edgesdk.stages.field import seal_field_run
from edgesdk.verification import Verification


@pytest.mark.parametrize(("passed", "told"), [(True, "It runs on"), (False, "It does not run on")])
def test_a_run_is_sealed_into_manifest_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed: bool, told: str
) -> None:
    artifact = write_artifact(tmp_path / "artifact")
    before = read_manifest(artifact)
    outcome = Verification(
        status="verified" if passed else "failed",
        artifact=artifact,
        runtime="tflite-runtime 2.14.0",
        checks=(Check(name="golden vectors", passed=passed, detail="41 dB"),),
        accuracy=None,
        sealed_accuracy=None,
    )
    monkeypatch.setattr(field, "verify_in_field", lambda folder, name: outcome)

    sealed = seal_field_run(artifact, "tflite-runtime")

    assert read_manifest(artifact) == sealed
    [run] = sealed.field_runs
    assert (run.runtime, run.runs) == ("tflite-runtime 2.14.0", passed)
    assert f"{told} tflite-runtime 2.14.0: golden vectors: 41 dB" in (artifact / REPORT).read_text()
    assert sealed.minimum_runtime == before.minimum_runtime, "that is another runtime's version"
