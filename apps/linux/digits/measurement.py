"""Times the model and tells it as a measurement that `edgesdk` reads."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .model import BATCH_SIZE, DEVICE, INPUTS, MODEL_SHA256, THREADS, Model
from .runtime import RUNTIME
from .self_test import golden, run_self_test

WARMUP_RUNS = 10
_NANOSECONDS = 1e-6  # of a millisecond


def measure(runs: int = 200, threads: int = THREADS, sustained_s: float = 0.0) -> dict[str, Any]:
    """Return a measurement (schema version 1): loading, first, warm and, on request, sustained."""
    start = time.perf_counter_ns()
    model = Model(threads)
    load_ms = (time.perf_counter_ns() - start) * _NANOSECONDS
    inputs, _ = golden()
    pairs = zip(inputs, INPUTS, strict=True)
    arrays = [tensor.encode(array[0], normalise=False) for array, tensor in pairs]
    # Feeding the inputs is not the runtime's time.
    model.session.set_inputs(arrays)
    first_ms = _time(model)
    before = _temperature_c()
    for _ in range(WARMUP_RUNS):
        _time(model)
    warm = np.array([_time(model) for _ in range(runs)])
    slices = list(_sustained(model, sustained_s))
    after = _temperature_c()
    test = run_self_test(model)
    return {
        "schema_version": 1,
        "artifact_sha256": MODEL_SHA256,
        "device": DEVICE,
        "identity": {
            "runtime": RUNTIME,
            "version": model.session.version,
            "platform": f"{sys.platform}-{platform.machine()}",
            "unit": "cpu",
            "threads": model.session.threads,
        },
        "measured_by": "edgesdk integrate --app linux",
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "batch_size": BATCH_SIZE,
        "warmup_runs": WARMUP_RUNS,
        "runs": runs,
        "load_ms": load_ms,
        "first_ms": first_ms,
        "minimum_ms": float(warm.min()),
        "p50_ms": float(np.median(warm)),
        "p90_ms": float(np.quantile(warm, 0.9)),
        "p99_ms": float(np.quantile(warm, 0.99)),
        "hardware": {"model": _board(), "processor": platform.processor() or None,
                     "system": platform.platform()},
        "conditions": {"temperature_before_c": before, "temperature_after_c": after},
        "sustained": slices,
        # Linux counts kilobytes.
        "peak_memory": {
            "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "counts": "process",
        },
        "self_test": {
            "status": "passed" if test.passed else "failed",
            "samples": test.samples,
            "sqnr_db": test.sqnr_db,
            "maximum_error": test.maximum_error if np.isfinite(test.maximum_error) else None,
        },
    }


def _time(model: Model) -> float:
    start = time.perf_counter_ns()
    model.session.invoke()
    return (time.perf_counter_ns() - start) * _NANOSECONDS


def _sustained(model: Model, seconds: float) -> Iterator[dict[str, float]]:
    """Yield the median of every second of a run that does not pause."""
    start = time.perf_counter()
    while (began := time.perf_counter() - start) < seconds:
        times = []
        while time.perf_counter() - start < min(began + 1, seconds) or not times:
            times.append(_time(model))
        yield {"start_s": began, "median_ms": float(np.median(times)), "runs": len(times)}


def _temperature_c() -> float | None:
    """Return the hottest thermal zone, None where the kernel shows none."""
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    found = [degrees for zone in zones if (degrees := _degrees(zone)) is not None]
    return max(found, default=None)


def _degrees(zone: Path) -> float | None:
    try:
        degrees = int(zone.read_text()) / 1000
    except (OSError, ValueError):  # a sensor that is switched off answers with an error
        return None
    return degrees if -90 <= degrees <= 200 else None


def _board() -> str | None:
    """Return what a device tree calls the board: Jetsons and Raspberry Pis have one."""
    try:
        return Path("/proc/device-tree/model").read_text().rstrip("\0\n") or None
    except OSError:
        return None
