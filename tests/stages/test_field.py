"""Runs on older runtimes, sealed into an artifact that is whole already."""

from __future__ import annotations

from pathlib import Path

import pytest
from blobs_task import blobs
from whole_artifacts import write_artifact

from edgesdk import pipeline
from edgesdk.artifact import REPORT, Check, read_manifest
from edgesdk.errors import TargetUnavailable
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
    monkeypatch.setattr(field, "verify_in_field", lambda folder, name, python: outcome)

    sealed = seal_field_run(artifact, "tflite-runtime", Path("python"))

    assert read_manifest(artifact) == sealed
    [run] = sealed.field_runs
    assert (run.runtime, run.runs) == ("tflite-runtime 2.14.0", passed)
    assert f"{told} tflite-runtime 2.14.0: golden vectors: 41 dB" in (artifact / REPORT).read_text()
    assert sealed.minimum_runtime == before.minimum_runtime, "that is another runtime's version"


def test_the_environment_is_made_under_the_cache_that_compile_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Runner:
        def prepare_field(self, name: str, cache: Path) -> Path:
            asked.append((name, cache))
            raise TargetUnavailable("far enough for this test")

    monkeypatch.setattr(pipeline, "field_runner", lambda target, name: Runner())
    with pytest.raises(TargetUnavailable, match="far enough"):
        pipeline.compile_task(
            blobs(),
            device="host",
            target="tflite",
            field_runtime="tflite-runtime",
            cache=tmp_path / "cache",
            out=tmp_path / "out",
        )
    assert asked == [("tflite-runtime", tmp_path / "cache")]
