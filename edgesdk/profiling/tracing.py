"""A trace of one inference for Perfetto and chrome://tracing: operators, measured and predicted."""

from __future__ import annotations

import json
from typing import Any

from edgesdk.errors import MeasurementError
from edgesdk.profiling.profile import Profile


def trace_text(profile: Profile) -> str:
    """Return the trace in Chrome's JSON format (complete events, microseconds).

    One row holds the operators one behind the other, as long as measured; another the layers as
    long as predicted. Raises ``MeasurementError`` where no operator was timed.
    """
    per_op = profile.measurement.per_op
    if per_op is None:
        raise MeasurementError(
            "no operator was timed, so there is nothing to trace",
            expected=next(iter(profile.measurement.notes), "a runtime with a profiler"),
        )
    predicted = {item.layer: item.predicted_ms for item in profile.layers}
    measured = [
        (op.op, op.ms, {"layer": op.layer, "measured_ms": op.ms, "count": op.count,
                        "layer_predicted_ms": predicted.get(op.layer)})
        for op in per_op.ops
    ]  # fmt: skip
    expected = [
        (item.layer or "(no layer)", item.predicted_ms, {"predicted_ms": item.predicted_ms})
        for item in profile.layers
        if item.predicted_ms
    ]
    events = [_named(1, f"measured, scaled to p50 ({per_op.source})"), *_row(1, measured)]
    if expected:
        events += [_named(2, "predicted"), *_row(2, expected)]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=1) + "\n"


def _named(row: int, name: str) -> dict[str, Any]:
    return {"name": "thread_name", "ph": "M", "pid": 1, "tid": row, "args": {"name": name}}


def _row(row: int, pieces: list[tuple[str, float, dict[str, Any]]]) -> list[dict[str, Any]]:
    events, begun_us = [], 0.0
    for name, ms, about in pieces:
        events.append(
            {"name": name, "ph": "X", "pid": 1, "tid": row, "ts": begun_us, "dur": ms * 1000,
             "args": about}
        )  # fmt: skip
        begun_us += ms * 1000
    return events
