"""ONNX artifacts by trtexec: a stand-in program that writes what TensorRT documents.

The formats are those of samples/common/sampleReporting.cpp in github.com/NVIDIA/TensorRT, and the
banner that TensorRT 10.3 prints. No Jetson has run this.
"""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from profiled import job_of, make_artifact

from edgesdk.artifact import PROFILE_MAP, sha256_of
from edgesdk.errors import MeasurementError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import read_measurement
from edgesdk.profiling import local
from edgesdk.profiling.agent import trtexec
from edgesdk.profiling.agent.problem import AgentError
from edgesdk.profiling.agent_file import agent_bytes

# Each inference takes 2 ms, of which 1.5 ms are computed; the first one of all takes 9 ms.
_PROGRAM = """#!{python}
import json, struct, sys, time
given = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # " + " ".join(sys.argv))
if "help" in given:
    print("=== Model Options ===")
    sys.exit(0)
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
{extra}
if "saveEngine" in given:
    open(given["saveEngine"], "wb").write(b"engine of " + open(given["onnx"], "rb").read())
    print("[11/21/2026-20:00:00] [I] Engine built in 104.774 sec.")
    sys.exit(0)
assert open(given["loadEngine"], "rb").read() == b"engine of a model that doubles"
print("[11/21/2026-20:00:00] [I] Engine deserialized in 0.0326257 sec.")
warm, count = float(given["warmUp"]), int(1000 * float(given["duration"]) / 2) or 1
if "loadInputs" in given:
    name, _, file = given["loadInputs"].partition(":")
    assert name == "'x'", name
    content = open(file, "rb").read()
    values = struct.unpack(f"<{{len(content) // 4}}f", content)
    with open(given["exportOutput"], "w") as out:
        shown = ", ".join(f"{{{factor} * value:g}}" for value in values)
        out.write('[\\n  {{ "name" : "y"\\n  , "dimensions" : "1x3"\\n  , "values" : [ ')
        out.write(shown + " ]\\n  }}\\n]\\n")
if "exportProfile" in given:
    with open(given["exportProfile"], "w") as out:
        out.write('[\\n  {{ "count" : 500 }}\\n')
        for layer, ms in (("mul_1 + relu", 1.2), ("Reformatting CopyNode", 0.4)):
            out.write(f', {{{{ "name" : "{{layer}}", "timeMs" : {{500 * ms}}, "averageMs" : {{ms}}'
                      f', "medianMs" : {{ms}}, "percentage" : 10 }}}}\\n')
        out.write("]\\n")
if "exportTimes" in given:
    first = 9 if warm == 0 else 2.5 if "dumpProfile" in given else 2
    with open(given["exportTimes"], "w") as out:
        out.write("[\\n")
        for i in range(count):
            at = warm + 2 * i
            out.write((", " if i else "  ") + json.dumps({{
                "startEnqMs": at, "endEnqMs": at, "startH2dMs": at, "endH2dMs": at + 0.25,
                "startComputeMs": at + 0.25, "endComputeMs": at + 1.75, "startD2hMs": at + 1.75,
                "endD2hMs": at + 2, "h2dMs": 0.25, "computeMs": 1.5, "d2hMs": 0.25,
                "latencyMs": {latency},
            }}) + "\\n")
        out.write("]\\n")
print("&&&& PASSED TensorRT.trtexec [TensorRT v{version}]")
"""


class Board:
    """A folder on the path with the stand-in, and the calls that it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "calls.jsonl"

    def install(
        self, *, version: str = "100300", extra: str = "", factor: float = 2, latency: str = "first"
    ) -> None:
        self.folder.mkdir(exist_ok=True)
        program = self.folder / "trtexec"
        text = _PROGRAM.format(
            python=sys.executable, version=version, extra=extra, factor=factor, latency=latency,
            log=str(self._log),
        )  # fmt: skip
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    found = Board(tmp_path / "bin")
    found.install()
    monkeypatch.setenv("PATH", f"{found.folder}:/usr/bin:/bin")
    return found


def onnx_artifact(folder: Path, **changes: Any) -> Path:
    """Write an artifact for TensorRT whose map names the one operator of its file."""
    command = "trtexec --onnx=model.tflite --int8 --fp16 --saveEngine=x; rm -rf / --plugins=evil.so"
    fields: dict[str, Any] = {
        "target": "onnx", "delegate": "tensorrt", "runtime": "tensorrt", "unit": "gpu",
        "minimum_runtime": "10.3", "device_commands": (command,),
    }  # fmt: skip
    return make_artifact(folder, **(fields | changes), layer_of={"mul_1": "double"})


def measured(artifact: Path, **changes: Any) -> Measurement:
    return local.measure("", job_of(artifact, **changes))


def test_an_engine_is_built_tested_timed_and_watched(board: Board, tmp_path: Path) -> None:
    artifact = onnx_artifact(tmp_path / "out")
    found = measured(artifact, sustained_s=3.0)
    assert (found.identity.runtime, found.identity.version) == ("tensorrt", "10.3.0")
    assert (found.identity.unit, found.identity.threads) == ("gpu", 1)
    assert found.artifact_sha256 == sha256_of(artifact / "model.tflite")
    assert (found.p50_ms, found.minimum_ms, found.p99_ms, found.runs) == (2.0, 2.0, 2.0, 1000)
    assert found.load_ms == pytest.approx(32.6257)
    assert found.first_ms == 9.0
    assert [(one.start_s, one.median_ms, one.runs) for one in found.sustained] == [
        (0.0, 2.0, 500), (1.0, 2.0, 500), (2.0, 2.0, 500),
    ]  # fmt: skip
    assert found.self_test is not None
    assert (found.self_test.status, found.self_test.samples) == ("passed", 4)
    assert found.per_op is not None
    assert found.per_op.hooked_ms == 2.5
    assert [(op.op, op.layer, op.ms) for op in found.per_op.ops] == [
        ("mul_1 + relu", "double", pytest.approx(0.96)),
        ("Reformatting CopyNode", None, pytest.approx(0.32)),
    ]
    assert trtexec.NOT_VERIFIED in found.notes
    build = board.calls()[0]
    assert build == [
        f"--onnx={artifact.resolve()}/model.tflite", "--fp16", "--int8",
        "--saveEngine=model.engine", "--skipInference",
    ]  # fmt: skip


def test_without_hooks_nothing_is_profiled(board: Board, tmp_path: Path) -> None:
    found = measured(onnx_artifact(tmp_path / "out"), hooks=False)
    assert found.per_op is None
    assert not any("--dumpProfile" in call for call in board.calls())
    # One build, one timed run, four golden samples: no more.
    assert len(board.calls()) == 6


def test_a_wrong_answer_fails_the_self_test(board: Board, tmp_path: Path) -> None:
    board.install(factor=3)
    test = measured(onnx_artifact(tmp_path / "out"), hooks=False).self_test
    assert test is not None
    assert test.status == "failed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "8602"}, "TensorRT is 8.6.2 here, the artifact needs 10.3 or newer"),
        ({"extra": 'print("[E] Unknown option"); sys.exit(1)'}, r"exit code 1: \[E\] Unknown opt"),
        ({"extra": "given.pop('saveEngine', None) and sys.exit(0)"}, "built no engine"),
        ({"extra": 'given.pop("exportTimes", None)'}, "no times.json that can be read"),
        ({"latency": "-1"}, "the clock went backwards"),
        ({"latency": "'soon'"}, "times that cannot be read"),
        ({"factor": "float('nan')"}, "no output.json that can be read"),
    ],
)
def test_what_trtexec_cannot_do_is_said(
    board: Board, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    board.install(**change)
    with pytest.raises(MeasurementError, match=said):
        measured(onnx_artifact(tmp_path / "out"))


def test_without_the_program_its_places_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(MeasurementError, match="not on the path and not in /usr/src/tensorrt"):
        measured(onnx_artifact(tmp_path / "out"))


@pytest.mark.parametrize(
    ("digits", "version"),
    [("8602", "8.6.2"), ("8502", "8.5.2"), ("100300", "10.3.0"), ("101602", "10.16.2")],
)
def test_versions_are_read_as_tensorrt_writes_them(digits: str, version: str) -> None:
    assert trtexec.read_version(digits) == version


def test_a_program_without_a_banner_is_refused(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (board.folder / "trtexec").write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(AgentError, match="tells no version"):
        trtexec.find_program()


def test_it_ends_when_nobody_waits_for_the_agent(board: Board, tmp_path: Path) -> None:
    mark = tmp_path / "building"
    board.install(extra=f"open({str(mark)!r}, 'w').close(); time.sleep(600)")
    agent = tmp_path / "agent.pyz"
    agent.write_bytes(agent_bytes())
    words = [sys.executable, str(agent), str(onnx_artifact(tmp_path / "out")), "--stop-at-eof"]
    process = subprocess.Popen([*words, "-o", str(tmp_path / "m.json")], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mark.exists()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=30) == 13
    assert not _running(board.folder / "trtexec")
    assert not (tmp_path / "m.json").exists()


def _running(program: Path) -> bool:
    """Return whether a process of that program is left, after a while for its end."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = [
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _exists(path)
        ]
        if not any(str(program).encode() in line for line in lines):
            return False
        time.sleep(0.1)
    return True


def _exists(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_the_document_is_a_measurement(board: Board, tmp_path: Path) -> None:
    agent, out = tmp_path / "agent.pyz", tmp_path / "m.json"
    agent.write_bytes(agent_bytes())
    artifact = onnx_artifact(tmp_path / "out")
    profile_map = json.loads((artifact / PROFILE_MAP).read_text())
    assert profile_map["runtime_op_to_layer"] == {"mul_1": "double"}
    words = [sys.executable, str(agent), str(artifact), "-o", str(out), "--no-hooks"]
    assert subprocess.run(words, check=False, timeout=120).returncode == 0
    assert read_measurement(out).identity.unit == "gpu"
