"""Clock emitted models on the request's bench, in turns, so that their latencies compare."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgesdk.artifact import MANIFEST
from edgesdk.document import to_json
from edgesdk.errors import ParityError
from edgesdk.measurement import Measurement
from edgesdk.profiling.bench import Bench
from edgesdk.profiling.job import Job
from edgesdk.profiling.profile import measure_in_turns
from edgesdk.stages.request import Request
from edgesdk.stages.runnable import Runnable, describe_runnable, write_runnable


def clock_on_bench(
    request: Request, bench: Bench, runnables: Sequence[Runnable]
) -> list[Measurement]:
    """Return one measurement per runnable, made on the bench in the same rounds if it can.

    Raises ``MeasurementError`` where the device cannot measure, and ``ParityError`` where it
    measures something that does not answer the golden vectors.
    """
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as name:
        jobs = [
            _job(request, bench, runnable, Path(name) / str(number))
            for number, runnable in enumerate(runnables)
        ]
        measurements = measure_in_turns(jobs)
    for job, measurement in zip(jobs, measurements, strict=True):
        if (test := measurement.self_test) is not None and measurement.answers_wrongly:
            scheme = job.manifest.scheme
            raise ParityError(
                f"{scheme} on {bench.on} does not answer the golden vectors: {test.detail}",
                next_step="try another --target, or another version of the runtime on the device",
            )
    return measurements


def _job(request: Request, bench: Bench, runnable: Runnable, folder: Path) -> Job:
    """Return the job of measuring a runnable, which lies in a folder of its own from now on."""
    folder.mkdir()
    write_runnable(runnable, folder)
    manifest = describe_runnable(request, runnable, folder)
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    return Job(
        folder=folder, manifest=manifest, progress=request.progress, bench=bench, hooks=False
    )
