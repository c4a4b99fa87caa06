"""Measure an ONNX artifact with TensorRT's own program, ``trtexec``, which comes with JetPack.

The options are those of TensorRT 10; the formats are what its samples write
(github.com/NVIDIA/TensorRT, samples/common/sampleReporting.cpp: exportJSONTrace, exportJSONProfile
and exportJSONOutput). Not verified on a Jetson: every measurement carries a note that says so.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .child import run
from .energy import Metering, find_meter
from .job import Findings, Job
from .machine import temperature_c
from .operators import first_known, layers_by_name
from .problem import AgentError
from .self_test import replay
from .timing import FEWEST_RUNS, SLICE_S, TIMED_MS, WARMUP_MS, say

NOT_VERIFIED = "not verified on a Jetson: trtexec was tested with its documented formats only"
_JETPACK = Path("/usr/src/tensorrt/bin/trtexec")
# What an artifact's own build command may ask for; everything else in it is ours to say.
_BUILD_OPTIONS = ("--fp16", "--int8", "--stronglyTyped")
# Starting the program takes seconds, so that not every golden sample is replayed.
_REPLAYED = 4
_LONGEST_BUILD_S = 3600.0
_ENGINE = "model.engine"


def find_program() -> tuple[str, str]:
    """Return where trtexec lies and TensorRT's version, as its banner tells it."""
    program = shutil.which("trtexec") or (str(_JETPACK) if _JETPACK.is_file() else None)
    if program is None:
        raise AgentError("trtexec is not on the path and not in /usr/src/tensorrt/bin")
    said = run([program, "--help"], Path.cwd(), 60.0)
    found = re.search(r"\[TensorRT v(\d+)\]", said)
    if not found:
        raise AgentError(f"{program} tells no version of TensorRT")
    return program, read_version(found[1])


def read_version(digits: str) -> str:
    """Return "10.3.0" for 100300 and "8.6.2" for 8602: TensorRT 10 gave every part two digits."""
    number = int(digits)
    major, minor = (10_000, 100) if number >= 100_000 else (1000, 100)
    return f"{number // major}.{number % major // minor}.{number % minor}"


def measure(program: str, jobs: Sequence[Job]) -> list[Findings]:
    """Return what building, running and watching each artifact told, one behind the other."""
    return [_measure(program, job) for job in jobs]


def _measure(program: str, job: Job) -> Findings:
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as name:
        engine = Engine(program, job, Path(name))
        engine.build()
        before = temperature_c()
        say("Timing inferences")
        with Metering(find_meter()) as metering:
            times, window = engine.time(TIMED_MS / 1e3)
        sustained = []
        if job.sustained_s:
            say("Running on to see whether it stays as fast")
            sustained = slices(engine.time(job.sustained_s)[0])
        after = temperature_c()
        samples = [one["latencyMs"] for one in times]
        self_test = replay(engine.answer, job.manifest, job.folder, _REPLAYED)
        per_op = engine.watch(float(np.median(samples))) if job.hooks else None
    return Findings(
        unit="gpu",
        threads=1,
        load_ms=engine.load_ms,
        first_ms=engine.first_ms,
        warmup_runs=0,
        samples_ms=samples,
        sustained=sustained,
        per_op=per_op,
        peak_memory=None,
        energy=metering.of_inference(*window, len(samples)),
        self_test=self_test,
        temperature_before_c=before,
        temperature_after_c=after,
        notes=[NOT_VERIFIED, *_notes(job, per_op)],
    )


def _notes(job: Job, per_op: dict[str, Any] | None) -> list[str]:
    told = [
        f"warmup_runs: trtexec warms up for {WARMUP_MS:.0f} ms and does not count",
        "peak_memory: trtexec does not tell it",
    ]
    if job.hooks and per_op is None:
        told.append("per_op: trtexec's profile holds no layers, or more than the whole inference")
    return told


class Engine:
    """An engine built from the artifact, in a folder of its own; every step is one trtexec."""

    def __init__(self, program: str, job: Job, folder: Path) -> None:
        self._program, self._job, self._folder = program, job, folder
        self.load_ms: float | None = None
        self.first_ms: float | None = None

    def build(self) -> None:
        """Build the engine, with the precisions that the artifact's own command names."""
        say("Building TensorRT's engine, which takes minutes")
        commands = " ".join(self._job.manifest.get("device_commands", ()))
        options = [word for word in _BUILD_OPTIONS if word in shlex.split(commands)]
        model = f"--onnx={self._job.model.resolve()}"
        self._trtexec([model, *options, f"--saveEngine={_ENGINE}", "--skipInference"])
        if not (self._folder / _ENGINE).is_file():
            raise AgentError("trtexec built no engine")

    def time(self, seconds: float) -> tuple[list[dict[str, float]], tuple[float, float]]:
        """Return each inference's times, and between which moments they ran."""
        begun = time.monotonic()
        said = self._infer(seconds, f"--iterations={FEWEST_RUNS}", "--exportTimes=times.json")
        end = time.monotonic()
        loaded = re.search(r"Engine deserialized in ([\d.]+) sec", said)
        self.load_ms = 1e3 * float(loaded[1]) if loaded else None
        times = self._read("times.json")
        try:
            times = [{name: float(value) for name, value in one.items()} for one in times]
            # TensorRT before 8.6 writes those of its warm-up too.
            times = [one for one in times if one["startComputeMs"] >= WARMUP_MS]
            ran_s = (times[-1]["endD2hMs"] - times[0]["startH2dMs"]) / 1e3
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise AgentError("trtexec wrote times that cannot be read") from None
        if any(one["latencyMs"] < 0 for one in times):
            raise AgentError("the clock went backwards: an inference took less than no time")
        # It ends soon after the last inference; what comes before them is loading.
        return times, (max(begun, end - ran_s), end)

    def answer(self, inputs: list[Any]) -> list[Any]:
        """Return the outputs of one inference, in the file's order, shapes and types."""
        specs = self._job.manifest["inputs"]
        named = []
        for at, (spec, value) in enumerate(zip(specs, inputs, strict=True)):
            (self._folder / f"input{at}.bin").write_bytes(np.ascontiguousarray(value).tobytes())
            named.append(f"'{spec['name']}':input{at}.bin")
        exports = ("--exportOutput=output.json", "--exportTimes=first.json")
        once = ["--iterations=1", "--duration=0", "--warmUp=0", f"--loadInputs={','.join(named)}"]
        self._trtexec([f"--loadEngine={_ENGINE}", *once, *exports])
        try:
            if self.first_ms is None:
                self.first_ms = float(self._read("first.json")[0]["latencyMs"])
            values = {one["name"]: one["values"] for one in self._read("output.json")}
            return [
                np.array(values[spec["name"]], dtype=spec["dtype"]).reshape(spec["shape"])
                for spec in self._job.manifest["outputs"]
            ]
        except (IndexError, KeyError, TypeError, ValueError):
            raise AgentError("trtexec wrote outputs that are not the artifact's") from None

    def watch(self, p50_ms: float) -> dict[str, Any] | None:
        """Return the times of layers while TensorRT profiles them, scaled to ``p50_ms``."""
        say("Timing operators")
        exports = ("--exportProfile=profile.json", "--exportTimes=watched.json")
        self._infer(TIMED_MS / 1e3, "--dumpProfile", *exports)
        hooked_ms = float(np.median([one["latencyMs"] for one in self._read("watched.json")]))
        layers = [one for one in self._read("profile.json") if "averageMs" in one]
        total_ms = sum(float(one["averageMs"]) for one in layers)
        if not layers or not 0 < total_ms <= hooked_ms:
            return None
        known = layers_by_name(self._job.folder)
        ops = [
            {
                "op": str(one["name"]),
                "layer": first_known(str(one["name"]).split(" + "), known),
                "ms": float(one["averageMs"]) * p50_ms / hooked_ms,
                "count": 1,
            }
            for one in layers
        ]
        source = "trtexec --dumpProfile"
        return {"ops": ops, "hooked_ms": hooked_ms, "source": source, "scaled_to": "p50_ms"}

    def _infer(self, seconds: float, *options: str) -> str:
        warm = (f"--warmUp={WARMUP_MS:.0f}", f"--duration={max(1, round(seconds))}")
        return self._trtexec([f"--loadEngine={_ENGINE}", *warm, *options], 600.0 + seconds)

    def _trtexec(self, options: list[str], longest_s: float = _LONGEST_BUILD_S) -> str:
        return run([self._program, *options], self._folder, longest_s)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise AgentError(f"trtexec wrote no {name} that can be read") from None


def slices(times: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return the medians of inferences that began in the same second of a long run."""
    start = times[0]["startH2dMs"]
    seconds: dict[int, list[dict[str, float]]] = {}
    for one in times:
        at = int((one["startH2dMs"] - start) / 1e3 / SLICE_S)
        seconds.setdefault(at, []).append(one)
    return [
        {
            "start_s": round((inside[0]["startH2dMs"] - start) / 1e3, 6),
            "median_ms": float(np.median([one["latencyMs"] for one in inside])),
            "runs": len(inside),
        }
        for _, inside in sorted(seconds.items())
    ]
