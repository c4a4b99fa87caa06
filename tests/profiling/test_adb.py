"""Measuring over adb: recorded outputs of the programs, and a stand-in for adb itself."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import pytest
from profiled import MODEL, job_of, make_artifact

from edgesdk.artifact import sha256_of
from edgesdk.errors import MeasurementError, UsageError
from edgesdk.profiling import benchmark_model, executor_runner
from edgesdk.profiling.adb import NOT_VERIFIED, measure
from edgesdk.profiling.profile import profile_artifact

RECORDED = Path(__file__).parent / "recorded"
MEDIAN = (RECORDED / "benchmark_model_median.txt").read_text(encoding="utf-8")
OPERATORS = (RECORDED / "benchmark_model_operators.txt").read_text(encoding="utf-8")
# The recorded build with operators prints no median; a newer one prints it in this form.
BOTH = OPERATORS.replace(
    "avg=2.95034e+06 std=109798", "avg=2.95034e+06 std=109798 p5=2730000 median=2900000 p95=3180000"
)
LOG = "".join(
    f"I 00:00:0{at}.0 executorch:executor_runner.cpp:785] Iteration {at} of 3: {ms:f} ms\n"
    for at, ms in ((1, 9.0), (2, 3.0), (3, 4.0))
)

# Answers like adb would; every word that it was given is in a log, one call a line.
_ADB = """#!{python}
import json, pathlib, shlex, sys
home = pathlib.Path({home!r})
with (home / "calls").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
if words[:1] == ["-s"]:
    words = words[2:]
if words[0] == "push":
    if (home / "full").exists():
        print("adb: error: failed to copy: remote No space left on device"); sys.exit(1)
    sys.exit(0)
if (home / "gone").exists() and "benchmark" in words[1] and "--" in words[1]:
    print("error: device 'X' not found"); sys.exit(1)
command = shlex.split(words[1])
if command[0] == "getprop":
    print({{"ro.product.model": "Pixel 8", "ro.soc.model": "Tensor G3"}}.get(command[1], "15"))
elif command == ["dumpsys", "battery"]:
    print("  AC powered: false\\n  USB powered: true\\n  temperature: 312")
elif command == ["dumpsys", "thermalservice"]:
    print("Thermal Status: 1")
elif command[0].endswith("/benchmark"):
    hooked = "--enable_op_profiling=true" in command
    print((home / ("hooked" if hooked else "plain")).read_text())
elif command[0] == "logcat":
    print((home / "logcat").read_text())
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that says what the stand-in answers, and logs what it was asked."""
    home = tmp_path / "phone"
    home.mkdir()
    adb = home / "adb"
    adb.write_text(_ADB.format(python=sys.executable, home=str(home)))
    adb.chmod(adb.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(home), prepend=":")
    (home / "plain").write_text(MEDIAN)
    (home / "hooked").write_text(BOTH)
    (home / "logcat").write_text("")
    (home / "program").touch()
    return home


def test_a_run_as_it_was_printed() -> None:
    found = benchmark_model.read_output(MEDIAN)
    assert (found.runs, found.warmup_runs, found.model_mb) == (50, 1, "67.3128")
    assert (found.load_ms, found.first_ms) == (5.579, 1357.602)
    assert (found.minimum_ms, found.median_ms) == (1238.588, 1239.807)
    assert (found.threads, found.ops) == (None, ())


def test_the_operators_as_they_were_printed() -> None:
    found = benchmark_model.read_output(BOTH)
    assert (found.threads, len(found.ops), found.median_ms) == (4, 6, 2900.0)
    assert found.ops[0] == ("[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]:0", 60.957, 1)
    assert found.ops[-1] == ("[MobilenetV1/Predictions/Reshape_1]:30", 0.233, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OPERATORS, "printed a mean and no median"),
        ("", "printed no timings; it ended with: nothing"),
        (MEDIAN[:700], "printed no timings"),
        ("ERROR: Failed to load model", "it ended with: ERROR: Failed to load model"),
    ],
)
def test_an_output_without_the_figures_is_refused(text: str, said: str) -> None:
    with pytest.raises(MeasurementError, match=said):
        benchmark_model.read_output(text)


def test_the_last_run_in_a_log_counts() -> None:
    earlier = LOG.replace("9.0", "1.0")
    loaded = "I executorch:executor_runner.cpp:600] Model loaded in 12.5 ms.\n"
    assert executor_runner.read_output(earlier + loaded + LOG) == (12.5, [9.0, 3.0, 4.0])
    assert executor_runner.read_output(LOG)[0] is None


@pytest.mark.parametrize(
    "text", ["", "Model executed successfully 3 time(s) in 16.0 ms.", LOG.split("\n", 1)[1]]
)
def test_a_log_without_every_execution_is_refused(text: str) -> None:
    with pytest.raises(MeasurementError, match="logged no times of executions"):
        executor_runner.read_output(text)


def test_a_phone_is_measured_and_cleaned(phone: Path, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out", device="google_pixel_8")
    found = measure("R58:M1.2", job_of(artifact, binary=phone / "program"))
    assert found.artifact_sha256 == sha256_of(artifact / MODEL)
    assert (found.p50_ms, found.p90_ms) == (1239.807, None)
    assert found.notes[0] == NOT_VERIFIED
    assert (found.hardware.model, found.hardware.system) == ("Pixel 8", "Android 15")
    assert (found.conditions.temperature_after_c, found.conditions.is_throttled) == (31.2, True)
    assert found.conditions.power_source == "mains"
    assert found.per_op is not None
    assert found.per_op.hooked_ms == 2900.0
    assert found.per_op.ops[0].ms == pytest.approx(60.957 * 1239.807 / 2900.0)
    calls = (phone / "calls").read_text().splitlines()
    assert all('["-s", "R58:M1.2"' in call for call in calls)
    [made] = re.findall(r"mkdir (/data/local/tmp/edgesdk-\w+)", calls[0])
    assert any(f"rm -rf {made}" in call for call in calls)


def test_executorch_is_read_from_the_system_s_log(phone: Path, tmp_path: Path) -> None:
    artifact = make_artifact(
        tmp_path / "out", device="google_pixel_8", runtime="executorch", minimum_runtime="1.5.1"
    )
    runs = [f"Iteration {at} of 220: {5 + at / 100:f} ms" for at in range(1, 221)]
    (phone / "plain").write_text("")
    (phone / "logcat").write_text("\n".join(runs))
    found = measure("", job_of(artifact, binary=phone / "program"))
    assert (found.warmup_runs, found.runs, found.first_ms) == (20, 200, 5.01)
    assert found.p50_ms == pytest.approx(6.205)
    assert found.load_ms is None
    assert found.per_op is None


@pytest.mark.parametrize(
    ("state", "said"), [("full", "No space left on device"), ("gone", "device 'X' not found")]
)
def test_a_full_or_lost_phone_is_an_error_and_is_cleaned(
    phone: Path, tmp_path: Path, state: str, said: str
) -> None:
    artifact = make_artifact(tmp_path / "out")
    (phone / state).touch()
    with pytest.raises(MeasurementError, match=said):
        measure("", job_of(artifact, binary=phone / "program"))
    assert "rm -rf /data/local/tmp/edgesdk-" in (phone / "calls").read_text().splitlines()[-1]


@pytest.mark.parametrize("serial", ["-s", "a b", "x;reboot", "$(reboot)", "a\nb", "../x", "'"])
def test_what_is_no_serial_is_refused(phone: Path, tmp_path: Path, serial: str) -> None:
    job = job_of(make_artifact(tmp_path / "out"), binary=phone / "program")
    with pytest.raises(UsageError, match="no serial of a device"):
        measure(serial, job)
    assert not (phone / "calls").exists()


def test_without_a_program_or_adb(
    phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path / "out")
    with pytest.raises(UsageError, match="needs the benchmark program for litert"):
        measure("", job_of(artifact))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasurementError, match="adb is not installed"):
        measure("", job_of(artifact, binary=phone / "program"))


def test_an_output_can_be_imported_where_the_size_is_the_model_s(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "out")
    size_mb = (artifact / MODEL).stat().st_size / 1e6
    path = tmp_path / "printed.txt"
    path.write_text(MEDIAN.replace("67.3128", f"{size_mb:.6g}"))
    found = profile_artifact(job_of(artifact, f"import:{path}")).measurement
    assert found.p50_ms == 1239.807
    assert any("names no hash" in note for note in found.notes)
    path.write_text(MEDIAN)
    with pytest.raises(MeasurementError, match="is about a model of 67.3128 MB"):
        profile_artifact(job_of(artifact, f"import:{path}"))
    path.write_text(BOTH.replace("16.9008", f"{size_mb:.6g}"))
    with pytest.raises(MeasurementError, match="with the operator profiler on"):
        profile_artifact(job_of(artifact, f"import:{path}"))
