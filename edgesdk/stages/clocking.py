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
from edgesdk.profiling.profile import measure_artifact
from edgesdk.stages.request import Request
from edgesdk.stages.runnable import Runnable, describe_runnable, write_runnable


def clock_on_bench(
    request: Request, bench: Bench, runnables: Sequence[Runnable]
) -> list[Measurement]:
    """Return one measurement per runnable, made on the bench one directly behind the other.

    Raises ``MeasurementError`` where the device cannot measure, and ``ParityError`` where it
    measures something that does not answer the golden vectors.
    """
    return [_clock(request, bench, runnable) for runnable in runnables]


def _clock(request: Request, bench: Bench, runnable: Runnable) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as name:
        folder = Path(name)
        write_runnable(runnable, folder)
        manifest = describe_runnable(request, runnable, folder)
        (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
        job = Job(
            folder=folder,
            manifest=manifest,
            progress=request.progress,
            bench=bench,
            hooks=False,
        )
        measurement = measure_artifact(job)
    test = measurement.self_test
    if test is not None and test.status == "failed":
        raise ParityError(
            f"{manifest.scheme} on {bench.on} does not answer the golden vectors: {test.detail}",
            next_step="try another --target, or another version of the runtime on the device",
        )
    return measurement
