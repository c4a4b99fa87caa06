"""A measurement: the distribution of an artifact's latency on a runtime, and its conditions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from edgesdk.errors import MeasurementError


@dataclass(frozen=True, kw_only=True)
class RuntimeIdentity:
    """What executed the artifact: runtime, version, build ("linux-x86_64"), unit and threads."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    runtime: str
    version: str
    platform: str
    unit: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Warm latencies of one artifact in milliseconds, with everything needed to believe them.

    ``p50_ms`` is the median of ``runs`` timed inferences after ``warmup_runs`` untimed ones;
    ``first_ms`` is the first inference after loading, ``load_ms`` the loading itself.
    ``artifact_sha256`` is the hash of the file that ran.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    artifact_sha256: str
    device: str
    identity: RuntimeIdentity
    batch_size: int
    warmup_runs: int
    runs: int
    load_ms: float
    first_ms: float
    minimum_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    schema_version: Literal[1] = 1


def percentile(samples: Sequence[float], fraction: float) -> float:
    """Return the ``fraction`` quantile of the samples, interpolated linearly between ranks.

    Raises ``MeasurementError`` without samples or for a clock that went backwards.
    """
    if not samples:
        raise MeasurementError("no inference was timed")
    ordered = sorted(samples)
    if ordered[0] < 0:
        raise MeasurementError(f"the clock went backwards: an inference took {ordered[0]} ms")
    if fraction == 0.5:
        return float(statistics.median(ordered))
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
