"""Measure the latency of artifacts on their runtimes, alternating so that they can be compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgesdk.artifact import sha256_of
from edgesdk.measurement import Measurement, percentile
from edgesdk.running.adapter import encode_inputs
from edgesdk.running.process import ArtifactProcess
from edgesdk.target import Arrays
from edgesdk.task import Tensors

# A round lasts about this long for each artifact, so that alternation is faster than drift.
_ROUND_MS = 60.0
_WARMUP_MS = 200.0
_MINIMUM_ROUNDS = 8
_MAXIMUM_ROUNDS = 60
_TIME_LIMIT_S = 10.0
# The medians of the first and second half of the rounds agree within this share when stable.
_STABLE = 0.02


@dataclass(kw_only=True)
class _Series:
    """One artifact's samples as they come in."""

    process: ArtifactProcess
    inputs: Arrays
    first_ms: float
    warmup_runs: int
    round_runs: int
    rounds: list[list[float]] = field(default_factory=list)

    def is_stable(self) -> bool:
        medians = [statistics.median(samples) for samples in self.rounds]
        half = len(medians) // 2
        before, after = statistics.median(medians[:half]), statistics.median(medians[half:])
        return abs(before - after) <= _STABLE * max(before, after)


def measure_alternating(
    processes: Sequence[ArtifactProcess], example_inputs: Tensors, *, device: str
) -> list[Measurement]:
    """Return one ``Measurement`` per process, timed in turn in the same rounds.

    Each round times every artifact once for about 60 ms; rounds continue until every median is
    stable (the two halves of the rounds agree within 2 %), at least 8 and at most 60 rounds or
    10 s. Ratios between the returned medians hold although the machine's speed drifts.
    """
    series = [_warm_up(process, example_inputs) for process in processes]
    deadline = time.monotonic() + _TIME_LIMIT_S
    for done in range(_MAXIMUM_ROUNDS):
        enough = done >= _MINIMUM_ROUNDS and all(item.is_stable() for item in series)
        if enough or (done > 2 and time.monotonic() > deadline):
            break
        for item in series:
            item.rounds.append(item.process.time(item.inputs, item.round_runs))
    return [_measurement(item, device) for item in series]


def _warm_up(process: ArtifactProcess, example_inputs: Tensors) -> _Series:
    stacked, _ = encode_inputs(example_inputs, process.emission.inputs)
    inputs = [array[0] for array in stacked]
    [first_ms] = process.time(inputs, 1)
    warmup_runs = 1
    elapsed_ms = first_ms
    while elapsed_ms < _WARMUP_MS:
        elapsed_ms += sum(process.time(inputs, warmup_runs))
        warmup_runs *= 2
    typical_ms = statistics.median(process.time(inputs, 5))
    return _Series(
        process=process,
        inputs=inputs,
        first_ms=first_ms,
        warmup_runs=warmup_runs + 5,
        round_runs=max(1, round(_ROUND_MS / max(typical_ms, 1e-3))),
    )


def _measurement(series: _Series, device: str) -> Measurement:
    samples = [sample for samples in series.rounds for sample in samples]
    process = series.process
    return Measurement(
        artifact_sha256=sha256_of(process.folder / process.emission.files[0]),
        device=device,
        identity=process.identity,
        batch_size=process.emission.inputs[0].shape[0],
        warmup_runs=series.warmup_runs,
        runs=len(samples),
        measured_by="edgesdk",
        load_ms=process.load_ms,
        first_ms=series.first_ms,
        minimum_ms=min(samples),
        p50_ms=percentile(samples, 0.5),
        p90_ms=percentile(samples, 0.9),
        p99_ms=percentile(samples, 0.99),
    )
