"""Measure artifacts with a runtime that runs inside this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .artifact import read_golden
from .energy import Metering, find_meter
from .job import Findings, Job
from .machine import peak_bytes, temperature_c
from .operators import join, typical
from .problem import AgentError
from .self_test import replay
from .tensors import encode
from .timing import FEWEST_RUNS, LONGEST_MS, TIMED_MS, WARMUP_MS, say, sustain, time_for, time_runs

_ROUNDS = 10
_HOOKED_ROUNDS = 10
_HOOKED_RUNS = 10


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A loaded artifact, warm, and what getting there took."""

    job: Job
    session: Any
    inputs: Sequence[Any]
    infer: Callable[[], object]
    load_ms: float
    first_ms: float
    warmup_runs: int


def measure(kind: Any, jobs: Sequence[Job]) -> list[Findings]:
    """Return what loading, running and watching each artifact told.

    Several are timed in turns, in the same rounds: a machine that drifts does so for all.
    """
    ready = [_prepare(kind, job) for job in jobs]
    before = temperature_c()
    say("Timing inferences")
    with Metering(find_meter() if len(jobs) == 1 else None) as metering:
        begin = time.monotonic()
        samples = time_in_turns([one.infer for one in ready])
        end = time.monotonic()
    energy = metering.of_inference(begin, end, len(samples[0]))
    return [
        _finish(kind, one, times, before, energy, is_alone=len(jobs) == 1)
        for one, times in zip(ready, samples, strict=True)
    ]


def _prepare(kind: Any, job: Job) -> Ready:
    os.environ["OMP_NUM_THREADS"] = str(job.threads)
    session, load_ms = _load(kind, job)
    golden, _ = read_golden(job.folder / "golden.safetensors")
    first_batch = [value[: job.manifest["batch_size"]] for value in golden]
    inputs = encode(first_batch, job.manifest["inputs"])[0]
    infer = session.bind(inputs)
    [first_ms] = time_runs(infer, 1)
    warmup = time_for(infer, WARMUP_MS, runs=5)
    return Ready(
        job=job,
        session=session,
        inputs=inputs,
        infer=infer,
        load_ms=load_ms,
        first_ms=first_ms,
        warmup_runs=1 + len(warmup),
    )


def time_in_turns(infers: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Return the milliseconds of each one's inferences, all of them timed in every round."""
    samples: list[list[float]] = [[] for _ in infers]
    for _ in range(_ROUNDS):
        for infer, times in zip(infers, samples, strict=True):
            least_ms, longest_ms = TIMED_MS / _ROUNDS, LONGEST_MS / _ROUNDS
            times.extend(time_for(infer, least_ms, longest_ms, runs=FEWEST_RUNS // _ROUNDS))
    return samples


def _finish(
    kind: Any, ready: Ready, samples: list[float], before: float | None,
    energy: dict[str, Any] | None, *, is_alone: bool,
) -> Findings:  # fmt: skip
    job = ready.job
    if job.sustained_s:
        say("Running on to see whether it stays as fast")
    sustained = sustain(ready.infer, job.sustained_s) if job.sustained_s else []
    after = temperature_c()
    # Before golden vectors and profilers add theirs; of two artifacts it would be of both.
    peak = peak_bytes() if is_alone else None
    self_test = replay(ready.session.run, job.manifest, job.folder)
    per_op, notes = _watched(kind, job, ready.infer, ready.inputs, float(np.median(samples)))
    return Findings(
        unit="cpu",
        threads=ready.session.threads,
        load_ms=ready.load_ms,
        first_ms=ready.first_ms,
        warmup_runs=ready.warmup_runs,
        samples_ms=samples,
        sustained=sustained,
        per_op=per_op,
        peak_memory={"bytes": peak, "counts": "process"} if peak else None,
        energy=energy,
        self_test=self_test,
        temperature_before_c=before,
        temperature_after_c=after,
        notes=notes,
    )


def _load(kind: Any, job: Job) -> tuple[Any, float]:
    """Return a session and how long its loading took."""
    try:
        # The first load also imports the wheel, which an app does not do, so the second counts.
        kind(job.manifest, job.folder, job.threads)
        start = time.perf_counter_ns()
        session = kind(job.manifest, job.folder, job.threads)
    except (OSError, RuntimeError, ValueError, KeyError) as problem:
        raise AgentError(f"{kind.name} cannot load {job.model.name}: {problem}") from problem
    return session, (time.perf_counter_ns() - start) / 1e6


def _watched(
    kind: Any, job: Job, infer: Callable[[], object], inputs: Sequence[Any], p50_ms: float
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the times of operators where they are asked for and known, and what to say of them."""
    if not job.hooks:
        return None, []
    if kind.no_hooks:
        return None, [f"per_op: {kind.no_hooks}"]
    say("Timing operators")
    try:
        per_op = watch(kind, job, infer, inputs, p50_ms)
    except Exception as problem:  # noqa: BLE001 - it costs these figures, no others
        return None, [f"per_op: the profiler failed: {problem!r}"[:300]]
    told = "XNNPACK counts whole microseconds; its kernels are joined by kind and order"
    return per_op, [f"per_op: {told if per_op else 'the runtime left no events'}"]


def watch(
    kind: Any, job: Job, infer: Callable[[], object], inputs: Sequence[Any], p50_ms: float
) -> dict[str, Any] | None:
    """Return the times of operators, on the scale of ``p50_ms``; None where no event is kept.

    Watched and unwatched inferences take turns, so that a drift of the machine is in both.
    """
    session = kind(job.manifest, job.folder, job.threads, hooks=True)
    watched = session.bind(inputs)
    skipped = len(time_for(watched, WARMUP_MS / 4))
    hooked: list[float] = []
    plain: list[float] = []
    for _ in range(_HOOKED_ROUNDS):
        plain += time_runs(infer, _HOOKED_RUNS)
        hooked += time_runs(watched, _HOOKED_RUNS)
    events = session.events(skipped)
    if not events:
        return None
    hooked_ms = p50_ms * float(np.median(hooked) / np.median(plain))
    scale = p50_ms / float(np.median(hooked))
    layers = join([(name, delegated) for name, delegated, _ in events], job.folder)
    ops = [
        {"op": name, "layer": layer, "ms": typical(times) * scale, "count": 1}
        for (name, _, times), layer in zip(events, layers, strict=True)
    ]
    return {"ops": ops, "hooked_ms": hooked_ms, "source": "ETDump", "scaled_to": "p50_ms"}
