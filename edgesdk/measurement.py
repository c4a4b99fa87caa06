"""A measurement: the distribution of an artifact's latency on a runtime, and its conditions.

``edgesdk.measurement_file`` reads one from JSON, whoever wrote it; docs/concepts/measurement.md
says what each field holds.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from edgesdk.errors import MeasurementError
from edgesdk.figure import Figure

Milliseconds = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Celsius = Annotated[float, Field(ge=-90, le=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# 2026-11-21T16:30:00Z: UTC, to the second.
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]

# Operators run within the inference. Medians of parts may add up to somewhat more than the median
# of the whole; twice as much means that a container was counted beside what it contains.
_COUNTED_TWICE = 1.5
# What a unit is called where the runtime chose among all there are.
_ALL_UNITS = "all"


@dataclass(frozen=True, kw_only=True)
class RuntimeIdentity:
    """What executed the artifact: runtime, version, build ("linux-x86_64"), unit and threads."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    runtime: str
    version: str
    platform: str
    unit: str
    threads: AtLeastOne

    def departures(self, *, runtime: str, unit: str, threads: int) -> tuple[str, ...]:
        """Return in words in what this is not that runtime on that unit and so many threads.

        LiteRT in a browser runs the same file, but it is another runtime; a phone's CPU says
        nothing of its NPU. Core ML chooses among "all" units, and what is said of any is about
        what it chooses. Threads are the CPU's.
        """
        pairs = [("with", self.runtime, runtime)]
        if self.unit != _ALL_UNITS:
            pairs.append(("on the", self.unit, unit))
        if self.unit == unit == "cpu":
            pairs.append(("on", _threads(self.threads), _threads(threads)))
        return tuple(f"{word} {told}, not {meant}" for word, told, meant in pairs if told != meant)


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the device says of itself: its model, processor and operating system; null: not told."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str | None = None
    processor: str | None = None
    system: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The state the device was in, as far as it can be read; null: not told.

    ``temperature_before_c`` and ``temperature_after_c`` are the hottest sensor's at the first and
    last timed inference. ``is_throttled``: whether the system said so at the end. ``power_mode``
    is the system's own word ("performance", "low power", "MAXN").
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    temperature_before_c: Celsius | None = None
    temperature_after_c: Celsius | None = None
    is_throttled: bool | None = None
    power_source: Literal["mains", "battery"] | None = None
    power_mode: str | None = None


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One piece of a sustained run: ``runs`` inferences that began ``start_s`` after its start."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    start_s: Seconds
    median_ms: Milliseconds
    runs: AtLeastOne


@dataclass(frozen=True, kw_only=True)
class OpTime:
    """One of the runtime's operators: all its ``count`` calls in one inference take ``ms``.

    ``op`` is the runtime's own name for it, ``layer`` the module path in the model, null where
    nothing joins them.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    op: str
    layer: str | None
    ms: Milliseconds
    count: AtLeastOne = 1


@dataclass(frozen=True, kw_only=True)
class PerOp:
    """Times of the operators in the order in which they run, none inside another.

    A profiler slows down what it watches. ``hooked_ms`` is the median inference while it watched,
    and every ``ms`` is what it saw times ``p50_ms / hooked_ms``, so they are on the scale of the
    unwatched ``p50_ms``. ``source`` names the profiler ("ETDump").
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    ops: Annotated[tuple[OpTime, ...], Field(min_length=1)]
    hooked_ms: Annotated[float, Field(gt=0)]
    source: str
    scaled_to: Literal["p50_ms"] = "p50_ms"

    @property
    def total_ms(self) -> float:
        """The sum over the operators; what is left of ``p50_ms`` is between them."""
        return math.fsum(op.ms for op in self.ops)


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """The most bytes in use at once: of the whole process, or of the runtime's arena alone."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    bytes: Count
    counts: Literal["process", "arena"]


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Millijoules of one warm inference, and what metered them."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    inference_mj: Annotated[float, Field(ge=0)]
    source: str


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Whether the artifact answered its golden inputs as sealed, on the device.

    ``samples`` were compared; ``sqnr_db`` and ``maximum_error`` say how closely they agree (null
    where there is no such number) and ``detail`` says it in words: why it failed or was not run.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    status: Literal["passed", "failed", "not run"]
    samples: Count
    sqnr_db: float | None = None
    maximum_error: Annotated[float, Field(ge=0)] | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if (self.status == "not run") != (self.samples == 0):
            raise ValueError(f"a self-test is {self.status!r} after {self.samples} samples")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Warm latencies of one artifact in milliseconds, with everything needed to believe them.

    ``p50_ms`` is the median of ``runs`` timed inferences after ``warmup_runs`` untimed ones, all
    without a profiler; ``first_ms`` is the first inference after loading, ``load_ms`` the loading
    itself. ``artifact_sha256`` is the hash of the file that ran, ``device`` the name of the
    profile it stands for. ``measured_by`` names the program, ``notes`` are sentences that whoever
    shows the numbers has to show too. Null and absent both mean: not told.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    artifact_sha256: Sha256
    device: str
    identity: RuntimeIdentity
    batch_size: AtLeastOne
    warmup_runs: Count
    runs: AtLeastOne
    p50_ms: Milliseconds
    measured_by: str
    load_ms: Milliseconds | None = None
    first_ms: Milliseconds | None = None
    minimum_ms: Milliseconds | None = None
    p90_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    measured_at: Moment | None = None
    hardware: Hardware = Hardware()
    conditions: Conditions = Conditions()
    sustained: tuple[Slice, ...] = ()
    per_op: PerOp | None = None
    peak_memory: PeakMemory | None = None
    energy: Energy | None = None
    self_test: SelfTest | None = None
    notes: tuple[str, ...] = ()
    schema_version: Literal[1] = 1

    @property
    def answers_wrongly(self) -> bool:
        """Whether the self-test failed: then the times are those of something else."""
        return self.self_test is not None and self.self_test.status == "failed"

    def __post_init__(self) -> None:
        known = {
            name: value
            for name in ("minimum_ms", "p50_ms", "p90_ms", "p99_ms")
            if (value := getattr(self, name)) is not None
        }
        for (low, below), (high, above) in itertools.pairwise(known.items()):
            if not below <= above:  # also where one is no number
                raise ValueError(f"{low} is {below}, which is above {high}, {above}")
        for before, after in itertools.pairwise(self.sustained):
            if not before.start_s < after.start_s:
                raise ValueError(
                    f"the clock went backwards in the sustained run: from {before.start_s} s "
                    f"to {after.start_s} s"
                )
        if self.per_op is not None and self.per_op.total_ms > _COUNTED_TWICE * self.p50_ms:
            raise ValueError(
                f"per_op adds up to {self.per_op.total_ms:.4g} ms of an inference of "
                f"{self.p50_ms:.4g} ms: something is counted twice, or not scaled to p50_ms"
            )


def latency_figure(measurement: Measurement) -> Figure:
    """Return the measured median as a figure."""
    identity = measurement.identity
    return Figure(
        value=measurement.p50_ms,
        standing="measured",
        low=measurement.minimum_ms,
        high=measurement.p90_ms,
        source=f"median of {measurement.runs} runs, {identity.runtime} {identity.version}, "
        f"{identity.threads} thread(s)",
    )


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
