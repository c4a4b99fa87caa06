"""The oldest runtime in the field: an environment of its own, and what its answers are worth."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from blobs_task import blobs
from tflite_nets import emitted

from edgesdk.artifact import read_manifest
from edgesdk.errors import TargetUnavailable, UsageError
from edgesdk.pipeline import compile_task
from edgesdk.scheme import Scheme
from edgesdk.target import Arrays, FieldRunner
from edgesdk.verification import emission_of, verify_in_field
from edgesdk_tflite import TARGET
from edgesdk_tflite.field_runtime import NAME, VERSION, prepare_environment, run_in_field

pytestmark = pytest.mark.toolchain

ARTIFACTS = Path(__file__).parents[2] / "examples/artifacts"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment, installed once for these tests from the package index."""
    cache = tmp_path_factory.mktemp("runtimes")
    try:
        found = prepare_environment(cache)
    except TargetUnavailable as lack:
        if os.environ.get("EDGESDK_REQUIRE_PROGRAMS"):
            raise
        pytest.skip(f"{NAME} cannot be installed here: {lack.found}")
    assert found.is_relative_to(cache)
    assert prepare_environment(cache) == found, "it is made once"
    return found


def test_the_target_names_it() -> None:
    assert isinstance(TARGET, FieldRunner)
    assert TARGET.field_runtimes == (NAME,)


@pytest.mark.slow
def test_a_static_int8_artifact_really_runs_there(python: Path) -> None:
    result = verify_in_field(ARTIFACTS / "digits_phone", NAME, python)
    assert (result.status, result.runtime) == ("verified", f"{NAME} {VERSION}")
    assert [check.name for check in result.checks] == ["hashes", "runs there", "golden vectors"]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "answers"), [("fp32", True), ("int8_dynamic", False)])
def test_ranges_found_at_run_time_give_one_output_for_all_inputs_there(
    python: Path, scheme: Scheme, answers: bool
) -> None:
    """No error, and metadata that says any version would do: only a run tells."""
    file = emitted("perceptron", scheme)
    shapes = [spec.shape for spec in file.emission.inputs]
    samples = [np.random.default_rng(0).normal(size=(8, *shape)) for shape in shapes]
    arrays: Arrays = [sample.astype(np.float32) for sample in samples]
    _, outputs = run_in_field(python, file.path.parent, file.emission, arrays)
    assert (np.ptp(outputs[0], axis=0).max() > 0) == answers


@pytest.mark.slow
def test_a_python_without_it_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="has no tflite-runtime") as raised:
        verify_in_field(ARTIFACTS / "digits_phone", NAME, Path(sys.executable))
    assert f"{NAME}=={VERSION}" in str(raised.value.expected)


def test_a_python_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be run"):
        verify_in_field(ARTIFACTS / "digits_phone", NAME, tmp_path / "python")


def test_runtimes_that_do_not_run_such_files_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown runtime 'tflite'"):
        verify_in_field(ARTIFACTS / "digits_phone", "tflite")
    with pytest.raises(UsageError, match="target 'executorch'"):
        verify_in_field(ARTIFACTS / "digits_board", NAME)


def stub(folder: Path, script: str) -> Path:
    """An executable that stands for a Python: it ignores what it is told and runs a script."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("raise SystemExit('op has no kernel')", "cannot run this artifact: op has no kernel"),
        ("print('hello')", "without saying its version"),
        ('print(\'{"version": "2.14.0"}\')', "wrote no outputs"),
    ],
)
def test_what_goes_wrong_there_is_a_failed_check(tmp_path: Path, script: str, said: str) -> None:
    result = verify_in_field(ARTIFACTS / "digits_phone", NAME, stub(tmp_path, script))
    assert result.status == "failed"
    [check] = [check for check in result.checks if not check.passed]
    assert check.name == "runs there"
    assert said in check.detail


def test_wrong_answers_fail_however_the_runtime_ended(tmp_path: Path) -> None:
    artifact = ARTIFACTS / "digits_phone"
    emission = emission_of(artifact, read_manifest(artifact))
    [spec] = emission.outputs
    script = f"""import sys, numpy as np
np.savez(sys.argv[5], np.zeros((64, *{spec.shape}), np.{spec.dtype}))
print('{{"version": "2.14.0"}}')"""
    result = verify_in_field(artifact, NAME, stub(tmp_path, script))
    [check] = [check for check in result.checks if not check.passed]
    assert check.name == "golden vectors"


def test_an_unknown_runtime_is_refused_before_any_work(tmp_path: Path) -> None:
    asked = {"out": tmp_path / "a", "accelerator": "cpu"}
    with pytest.raises(UsageError, match="unknown runtime 'tflit'"):
        compile_task(blobs(), device="raspberry_pi_5", field_runtime="tflit", **asked)
    with pytest.raises(UsageError, match="does not run files for ethos_u55_128"):
        compile_task(blobs(), device="corstone_300", field_runtime=NAME, **asked)
