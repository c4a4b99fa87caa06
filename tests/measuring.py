"""Measurements for tests: one example with every field, and a strategy of many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from edgesdk.measurement import (
    Conditions,
    Energy,
    Hardware,
    Measurement,
    OpTime,
    PeakMemory,
    PerOp,
    RuntimeIdentity,
    SelfTest,
    Slice,
)

EXAMPLE = Measurement(
    artifact_sha256="ab" * 32,
    device="raspberry_pi_5",
    identity=RuntimeIdentity(
        runtime="litert", version="2.3.0", platform="linux-aarch64", unit="cpu", threads=4
    ),
    batch_size=1,
    warmup_runs=50,
    runs=400,
    load_ms=8.0,
    first_ms=5.0,
    minimum_ms=1.9,
    p50_ms=2.0,
    p90_ms=2.2,
    p99_ms=3.1,
    measured_by="edgesdk 0.1.0, profile --on ssh",
    measured_at="2026-11-21T16:30:00Z",
    hardware=Hardware(
        model="Raspberry Pi 5 Model B Rev 1.0", processor="Cortex-A76", system="Linux 6.6.20"
    ),
    conditions=Conditions(
        temperature_before_c=41.0,
        temperature_after_c=63.5,
        is_throttled=False,
        power_source="mains",
        power_mode="performance",
    ),
    sustained=(
        Slice(start_s=0.0, median_ms=2.0, runs=480),
        Slice(start_s=1.0, median_ms=2.1, runs=470),
    ),
    per_op=PerOp(
        ops=(
            OpTime(op="CONV_2D:0", layer="stem.conv", ms=1.2),
            OpTime(op="SOFTMAX:1", layer=None, ms=0.3, count=2),
        ),
        hooked_ms=2.3,
        source="benchmark_model --enable_op_profiling",
    ),
    peak_memory=PeakMemory(bytes=31_000_000, counts="process"),
    energy=Energy(inference_mj=4.2, source="INA3221 rail VDD_IN"),
    self_test=SelfTest(status="passed", samples=64, sqnr_db=200.0, maximum_error=0.0),
    notes=("a note",),
)

_MS = st.floats(min_value=0, max_value=1e6)
_TEXT = st.text(max_size=5)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    """Draw a measurement that keeps the rules."""
    ordered = sorted(draw(st.lists(_MS, min_size=4, max_size=4)))
    starts = sorted(draw(st.sets(_MS, max_size=3)))
    changes: dict[str, Any] = dict(
        zip(("minimum_ms", "p50_ms", "p90_ms", "p99_ms"), ordered, strict=True)
    )
    for name in ("minimum_ms", "p90_ms", "p99_ms", "per_op", "energy", "self_test", "measured_at"):
        if name == "per_op" or draw(st.booleans()):
            changes[name] = None
    sustained = tuple(Slice(start_s=s, median_ms=draw(_MS), runs=1) for s in starts)
    notes = tuple(draw(st.lists(_TEXT, max_size=2)))
    return replace(EXAMPLE, sustained=sustained, notes=notes, device=draw(_TEXT), **changes)
