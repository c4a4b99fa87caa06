"""The clock: inferences timed one at a time, and over a long run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .problem import AgentError

WARMUP_MS = 200.0
TIMED_MS = 2000.0
FEWEST_RUNS = 100
LONGEST_MS = 20_000.0
SLICE_S = 1.0


def time_runs(infer: Callable[[], object], runs: int) -> list[float]:
    """Return the milliseconds of each of ``runs`` inferences."""
    samples = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        infer()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    if min(samples) < 0:
        raise AgentError(f"the clock went backwards: an inference took {min(samples)} ms")
    return samples


def time_for(
    infer: Callable[[], object], least_ms: float, longest_ms: float = LONGEST_MS, *, runs: int = 1
) -> list[float]:
    """Return the milliseconds of inferences that took ``least_ms`` together.

    They are ``runs`` at least, where those take no more than ``longest_ms``.
    """
    samples = time_runs(infer, 1)
    total = samples[0]
    while total < least_ms or (len(samples) < runs and total < longest_ms):
        samples += time_runs(infer, 1)
        total += samples[-1]
    return samples


def sustain(infer: Callable[[], object], seconds: float) -> list[dict[str, Any]]:
    """Return the medians of slices of about a second each, for that long."""
    slices = []
    start = time.monotonic()
    while (begun := time.monotonic() - start) < seconds:
        samples = time_runs(infer, 1)
        while time.monotonic() - start < begun + SLICE_S:
            samples += time_runs(infer, 1)
        median = float(np.median(samples))
        slices.append({"start_s": round(begun, 6), "median_ms": median, "runs": len(samples)})
        say(f"{begun:.0f}/{seconds:.0f} {median:.3f} ms")
    return slices


def say(text: str) -> None:
    """Tell whoever started this how far it is."""
    print(text, flush=True)  # noqa: T201 - this is a program by itself
