"""``adb[:SERIAL]``: an Android device, measured by a benchmark program that the user points to.

Not verified on a phone: no device was connected to anything this was tested on. The formats are
those that the programs print; every measurement carries a note that says so.
"""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from edgesdk.artifact import inside, sha256_of
from edgesdk.errors import EdgeSDKError, MeasurementError, UsageError
from edgesdk.measurement import (
    Conditions,
    Hardware,
    Measurement,
    OpTime,
    PerOp,
    RuntimeIdentity,
    percentile,
)
from edgesdk.profiling import benchmark_model, executor_runner
from edgesdk.profiling.agent_run import program_name
from edgesdk.profiling.job import Job

NOT_VERIFIED = "not verified on a phone: this runner was tested with recorded outputs only"

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_HOME = "/data/local/tmp"
_PUSH_TIMEOUT_S = 300.0
_RUN_TIMEOUT_S = 900.0
_RUNS = 200
_WARMUP_RUNS = 20


class Phone:
    """An Android device over ``adb``, with a folder of its own that goes when the block ends."""

    def __init__(self, serial: str | None) -> None:
        self._words = ["adb", *(["-s", serial] if serial else [])]
        self.folder = f"{_HOME}/edgesdk-{secrets.token_hex(6)}"

    def __enter__(self) -> Phone:
        self.shell("mkdir", self.folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.shell("rm", "-rf", self.folder)
        except EdgeSDKError:
            if kind is None:
                raise

    def shell(self, *words: str, timeout_s: float = 60.0) -> str:
        """Return what a command on the device prints; its shell gets every word quoted."""
        return self._run(["shell", shlex.join(words)], timeout_s)

    def push(self, source: str, name: str) -> str:
        """Copy a file into the folder and return its path there."""
        path = f"{self.folder}/{name}"
        self._run(["push", source, path], _PUSH_TIMEOUT_S)
        return path

    def tell(self, *words: str) -> str | None:
        """Return what a command prints, None where the device does not know it."""
        try:
            return self.shell(*words).strip() or None
        except MeasurementError:
            return None

    def _run(self, arguments: Sequence[str], timeout_s: float) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - a list of words, no shell here
                [*self._words, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise MeasurementError(
                "adb is not installed here", next_step="install Android's platform tools"
            ) from None
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"the device did not answer to '{arguments[0]}' within {timeout_s:.0f} s",
                next_step="look whether it is still connected: adb devices",
            ) from None
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            last = (text.strip().splitlines() or ["nothing"])[-1][:300]
            raise MeasurementError(
                f"adb {arguments[0]} failed with exit code {done.returncode}: {last}",
                next_step="look whether the device is there, unlocked and has space: adb devices",
            )
        return text


def measure(place: str, job: Job) -> Measurement:
    """Return what the benchmark program measured on the device; nothing of it stays there."""
    if place and not _SERIAL.fullmatch(place):
        raise UsageError(f"{place!r} is no serial of a device", expected="one of 'adb devices'")
    programs = {"litert": _litert, "executorch": _executorch}
    run = programs.get(job.manifest.runtime)
    if run is None or job.bench.binary is None or not job.bench.binary.is_file():
        raise UsageError(
            f"--on adb needs the benchmark program for {job.manifest.runtime}, found "
            f"{str(job.bench.binary) if job.bench.binary else 'no --binary'}",
            expected="--binary PATH: LiteRT's benchmark_model or ExecuTorch's executor_runner, "
            "built for the device",
        )
    if job.sustained_s:
        raise UsageError("--on adb has no sustained run: the benchmark programs have none")
    with Phone(place or None) as phone:
        job.progress.step("Copying the artifact to the device")
        binary = phone.push(str(job.bench.binary), "benchmark")
        phone.shell("chmod", "755", binary)
        model = phone.push(str(inside(job.folder, job.manifest.files[0])), "model")
        measured = run(phone, binary, model, job)
        return replace(
            measured,
            hardware=Hardware(
                model=phone.tell("getprop", "ro.product.model"),
                processor=phone.tell("getprop", "ro.soc.model"),
                system=f"Android {phone.tell('getprop', 'ro.build.version.release') or 'unknown'}",
            ),
            conditions=_conditions(phone),
            notes=(NOT_VERIFIED, *measured.notes),
        )


def _conditions(phone: Phone) -> Conditions:
    """Return the battery's temperature and the power source, as dumpsys tells them afterwards."""
    text = phone.tell("dumpsys", "battery") or ""
    celsius = re.search(r"^\s*temperature: (-?\d+)$", text, re.MULTILINE)
    powered = re.findall(r"powered: (true|false)$", text, re.MULTILINE)
    status = phone.tell("dumpsys", "thermalservice") or ""
    throttling = re.search(r"Thermal Status: (\d)", status)
    return Conditions(
        temperature_after_c=int(celsius[1]) / 10 if celsius else None,
        is_throttled=int(throttling[1]) > 0 if throttling else None,
        power_source=("mains" if "true" in powered else "battery") if powered else None,
    )


def _litert(phone: Phone, binary: str, model: str, job: Job) -> Measurement:
    threads = job.threads or job.manifest.threads
    words = [binary, f"--graph={model}", f"--num_threads={threads}"]
    words += [f"--num_runs={_RUNS}", f"--warmup_runs={_WARMUP_RUNS}"]
    job.progress.step("Timing inferences")
    plain = benchmark_model.read_output(phone.shell(*words, timeout_s=_RUN_TIMEOUT_S))
    hooked = None
    if job.hooks:
        job.progress.step("Timing operators")
        text = phone.shell(*words, "--enable_op_profiling=true", timeout_s=_RUN_TIMEOUT_S)
        hooked = benchmark_model.read_output(text)
    return litert_measurement(job, plain, hooked, measured_by=program_name("adb"))


def litert_measurement(
    job: Job,
    plain: benchmark_model.Printed,
    hooked: benchmark_model.Printed | None,
    *,
    measured_by: str,
) -> Measurement:
    """Return the measurement in what benchmark_model printed, without and with its profiler."""
    notes = ["p90_ms and p99_ms: benchmark_model prints neither"]
    if hooked is not None and not hooked.ops:
        notes.append("per_op: benchmark_model printed no table of operators")
    return Measurement(
        artifact_sha256=sha256_of(inside(job.folder, job.manifest.files[0])),
        device=job.device or job.manifest.device,
        identity=_identity(job, threads=plain.threads),
        batch_size=job.manifest.batch_size,
        warmup_runs=plain.warmup_runs,
        runs=plain.runs,
        load_ms=plain.load_ms,
        first_ms=plain.first_ms,
        minimum_ms=plain.minimum_ms,
        p50_ms=plain.median_ms,
        measured_by=measured_by,
        measured_at=now(),
        per_op=_per_op(plain, hooked) if hooked and hooked.ops else None,
        notes=tuple(notes),
    )


def _per_op(plain: benchmark_model.Printed, hooked: benchmark_model.Printed) -> PerOp:
    """Return the operators' times on the scale of the run without the profiler."""
    scale = plain.median_ms / hooked.median_ms
    return PerOp(
        ops=tuple(
            OpTime(op=name, layer=None, ms=ms * scale, count=count)
            for name, ms, count in hooked.ops
        ),
        hooked_ms=hooked.median_ms,
        source="benchmark_model --enable_op_profiling",
    )


def _executorch(phone: Phone, binary: str, model: str, job: Job) -> Measurement:
    threads = job.threads or job.manifest.threads
    job.progress.step("Timing inferences")
    words = [binary, f"--model_path={model}", f"--num_executions={_WARMUP_RUNS + _RUNS}"]
    words += [f"--cpu_threads={threads}", "--print_output=none"]
    text = phone.shell(*words, timeout_s=_RUN_TIMEOUT_S)
    # Built for Android the program logs to the system's log, built for a plain shell to stderr.
    log = phone.tell("logcat", "-d", "-s", "ExecuTorch:I") or ""
    load_ms, times = executor_runner.read_output(f"{log}\n{text}")
    timed = times[_WARMUP_RUNS:]
    return Measurement(
        artifact_sha256=sha256_of(inside(job.folder, job.manifest.files[0])),
        device=job.device or job.manifest.device,
        identity=_identity(job, threads=threads),
        batch_size=job.manifest.batch_size,
        warmup_runs=len(times) - len(timed),
        runs=len(timed),
        load_ms=load_ms,
        first_ms=times[0],
        minimum_ms=min(timed),
        p50_ms=percentile(timed, 0.5),
        p90_ms=percentile(timed, 0.9),
        p99_ms=percentile(timed, 0.99),
        measured_by=program_name("adb"),
        measured_at=now(),
        notes=("per_op: the ETDump of executor_runner is not read from a device",),
    )


def _identity(job: Job, *, threads: int | None) -> RuntimeIdentity:
    """Return who ran it; the programs tell no version of their runtime."""
    return RuntimeIdentity(
        runtime=job.manifest.runtime,
        version="unknown",
        platform="android",
        unit="cpu",
        threads=threads or job.threads or job.manifest.threads,
    )


def now() -> str:
    """Return this moment in UTC, as a measurement has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
