"""``import:FILE``: what an app or a benchmark program measured somewhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgesdk.artifact import inside, sha256_of, size_bytes
from edgesdk.errors import MeasurementError, UsageError
from edgesdk.measurement import Measurement, OpTime, PerOp, RuntimeIdentity, percentile
from edgesdk.measurement_file import LIMIT_BYTES, parse_measurement
from edgesdk.profiling import adb, benchmark_model, etdump
from edgesdk.profiling.agent import operators
from edgesdk.profiling.agent_run import program_name
from edgesdk.profiling.job import Job

_TIMINGS = b"Inference timings in us:"
# Of an ETDump, or the first half of a short one.
_WARMUP_RUNS = 10


def measure(place: str, job: Job) -> Measurement:
    """Return the measurement in a file: Measurement JSON, an ETDump, or what ``benchmark_model``
    printed.

    The printed text names no hash; the model's size in it has to be the artifact's, and a note
    says that only that was compared. An ETDump names nothing at all, and a note says that.
    """
    if not place:
        raise UsageError("import takes a file", expected="--on import:measurement.json")
    path = Path(place)
    try:
        with path.open("rb") as stream:
            content = stream.read(etdump.LIMIT_BYTES + 1)
    except OSError as problem:
        raise MeasurementError(f"{path} cannot be read: {problem.strerror}") from None
    if etdump.is_dump(content):
        return _dumped(content, path, job)
    if _TIMINGS in content and len(content) <= LIMIT_BYTES:
        return _printed(content.decode(errors="replace"), path, job)
    return parse_measurement(content, what=path.name)


def _printed(text: str, path: Path, job: Job) -> Measurement:
    found = benchmark_model.read_output(text)
    real_mb = size_bytes(job.folder, job.manifest.files[:1]) / 1e6
    if found.model_mb is None or f"{real_mb:.6g}" != found.model_mb:
        raise MeasurementError(
            f"{path.name} is about a model of {found.model_mb or 'unknown'} MB, the artifact's has "
            f"{real_mb:.6g} MB",
            next_step="measure the artifact's own file",
        )
    if found.ops:
        raise MeasurementError(
            f"{path.name} was measured with the operator profiler on, which slows every inference",
            next_step="run benchmark_model without --enable_op_profiling",
        )
    measured = adb.litert_measurement(job, found, None, measured_by=program_name("import"))
    note = "the output names no hash: only the model's size was compared"
    return replace(measured, measured_at=None, notes=(*measured.notes, note))


def _dumped(content: bytes, path: Path, job: Job) -> Measurement:
    manifest = job.manifest
    if manifest.runtime != "executorch":
        raise MeasurementError(
            f"{path.name} is an ETDump, which ExecuTorch writes; the artifact is for "
            f"{manifest.runtime}"
        )
    found = etdump.read_dump(content, what=path.name)
    skipped = min(_WARMUP_RUNS, len(found.inferences_ms) // 2)
    timed = found.inferences_ms[skipped:]
    p50_ms = percentile(timed, 0.5)
    return Measurement(
        artifact_sha256=sha256_of(inside(job.folder, manifest.files[0])),
        device=job.device or manifest.device,
        identity=RuntimeIdentity(
            runtime=manifest.runtime,
            version="unknown",
            platform="unknown",
            unit="cpu",
            threads=job.threads or manifest.threads,
        ),
        batch_size=manifest.batch_size,
        warmup_runs=skipped,
        runs=len(timed),
        load_ms=found.load_ms,
        first_ms=found.inferences_ms[0],
        minimum_ms=min(timed),
        p50_ms=p50_ms,
        p90_ms=percentile(timed, 0.9),
        p99_ms=percentile(timed, 0.99),
        measured_by=program_name("import"),
        per_op=_per_op(found, skipped, p50_ms, job) if job.hooks and found.operators else None,
        notes=(
            "an ETDump names no file: that it is of this one is the word of who imported it",
            "all times were taken while the profiler watched; unwatched inferences are faster",
            "the dump tells neither threads nor versions; the artifact's threads are assumed",
        ),
    )


def _per_op(found: etdump.Dumped, skipped: int, p50_ms: float, job: Job) -> PerOp:
    layers = operators.join(
        [(name, delegated) for name, delegated, _ in found.operators], job.folder
    )
    rows = zip(found.operators, layers, strict=True)
    return PerOp(
        ops=tuple(
            OpTime(op=name, layer=layer, ms=operators.typical(times[skipped:]))
            for (name, _, times), layer in rows
        ),
        hooked_ms=p50_ms,
        source="ETDump",
    )
