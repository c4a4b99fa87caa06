"""Importing an ETDump that ExecuTorch recorded: 20 inferences of the demo task's artifact."""

from __future__ import annotations

from pathlib import Path

import pytest
from profiled import job_of, make_artifact

from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement
from edgesdk.profiling import imported
from edgesdk.profiling.profile import join_profile, profile_artifact

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "examples/artifacts/digits_board"
DUMP = Path(__file__).parent / "recorded/digits_board.etdp"


@pytest.fixture(scope="module")
def measured() -> Measurement:
    return imported.measure(str(DUMP), job_of(BOARD))


@pytest.mark.toolchain
def test_totals_are_the_whole_method_s(measured: Measurement) -> None:
    assert (measured.warmup_runs, measured.runs) == (10, 10)
    assert measured.load_ms == pytest.approx(0.343461)
    assert measured.first_ms == pytest.approx(0.141991)
    assert measured.per_op is not None
    assert 0 < measured.per_op.total_ms < measured.p50_ms < measured.first_ms
    assert any("while the profiler watched" in note for note in measured.notes)
    assert any("names no file" in note for note in measured.notes)


@pytest.mark.toolchain
def test_operators_are_joined_to_layers_and_no_overhead_is_claimed(measured: Measurement) -> None:
    job = job_of(BOARD)
    profile = join_profile(BOARD, job.manifest, measured)
    timed = {row.layer for row in profile.layers if row.measured_ms is not None}
    assert {"conv1", "stages.0.0.conv1", "linear"} <= timed
    assert profile.hook_overhead is None
    assert profile.to_json()["hook_overhead"] is None


@pytest.mark.toolchain
def test_without_hooks_operators_are_left_out() -> None:
    job = job_of(BOARD, on=f"import:{DUMP}", hooks=False, threads=4, device="other")
    measured = profile_artifact(job).measurement
    assert measured.per_op is None
    assert (measured.identity.threads, measured.device) == (4, "other")


@pytest.mark.toolchain
@pytest.mark.parametrize("end", [12, 100, 5000, 30_000])
def test_a_truncated_dump_is_refused(end: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.etdp"
    path.write_bytes(DUMP.read_bytes()[:end])
    with pytest.raises(MeasurementError, match="cut.etdp"):
        imported.measure(str(path), job_of(BOARD))


def test_a_dump_of_another_runtime_s_artifact_is_refused(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "out")
    with pytest.raises(MeasurementError, match="which ExecuTorch writes"):
        imported.measure(str(DUMP), job_of(folder))
