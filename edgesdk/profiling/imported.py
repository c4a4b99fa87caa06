"""``import:FILE``: what an app or a benchmark program measured somewhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgesdk.artifact import size_bytes
from edgesdk.errors import MeasurementError, UsageError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import LIMIT_BYTES, parse_measurement
from edgesdk.profiling import adb, benchmark_model
from edgesdk.profiling.agent_run import program_name
from edgesdk.profiling.job import Job

_TIMINGS = b"Inference timings in us:"


def measure(place: str, job: Job) -> Measurement:
    """Return the measurement in a file: Measurement JSON, or what ``benchmark_model`` printed.

    The printed text names no hash; the model's size in it has to be the artifact's, and a note
    says that only that was compared.
    """
    if not place:
        raise UsageError("import takes a file", expected="--on import:measurement.json")
    path = Path(place)
    try:
        with path.open("rb") as stream:
            content = stream.read(LIMIT_BYTES + 1)
    except OSError as problem:
        raise MeasurementError(f"{path} cannot be read: {problem.strerror}") from None
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
