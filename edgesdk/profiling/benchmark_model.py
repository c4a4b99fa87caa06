"""Read what LiteRT's ``benchmark_model`` prints: timings, memory and times of operators."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgesdk.errors import MeasurementError

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_RUNS = re.compile(
    rf"count=(\d+) first={_NUMBER} curr={_NUMBER} min={_NUMBER} max={_NUMBER} avg={_NUMBER} "
    rf"std={_NUMBER}(?: p5={_NUMBER} median={_NUMBER} p95={_NUMBER})?"
)
_WARMUP = re.compile(r"count=(\d+) ")
_SUMMARY = re.compile(rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}")
_THREADS = re.compile(r"#threads used for CPU inference: \[(\d+)\]")
_SIZE = re.compile(rf"The input model file size \(MB\): {_NUMBER}")
_OPS = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_ROW = re.compile(
    r"\t\s*(?P<type>\S.*?)\t\s*[\d.]+\t\s*[\d.]+\t\s*(?P<ms>[\d.]+)\t\s*[\d.]+%\t\s*[\d.]+%"
    r"\t\s*[\d.]+\t\s*(?P<count>\d+)\t(?P<name>.*)"
)


@dataclass(frozen=True, kw_only=True)
class Printed:
    """What one run of the program printed; None where it did not.

    ``model_mb`` is the model's size in megabytes of 10^6 bytes, to the digits printed. ``ops`` are
    name, milliseconds and calls per inference.
    """

    runs: int
    warmup_runs: int
    load_ms: float
    first_ms: float
    minimum_ms: float
    median_ms: float
    threads: int | None
    model_mb: str | None
    ops: tuple[tuple[str, float, int], ...]


def read_output(text: str) -> Printed:
    """Return the figures in the program's output; ``MeasurementError`` where it holds none.

    Builds of some years ago print only the mean, and no median can be made of that.
    """
    plain = "\n".join(line.removeprefix("INFO: ") for line in text.replace("\r", "").splitlines())
    summary, timed = _SUMMARY.search(plain), list(_RUNS.finditer(plain.partition(_OPS)[0]))
    if not summary or not timed:
        last = (plain.strip().splitlines() or ["nothing"])[-1][:300]
        raise MeasurementError(
            f"benchmark_model printed no timings; it ended with: {last}",
            expected="its whole output, with the line 'Inference timings in us: ...'",
        )
    runs = timed[-1]
    if runs[9] is None:
        raise MeasurementError(
            "benchmark_model printed a mean and no median",
            expected="a line with 'median=', as newer builds print",
            next_step="take a newer benchmark_model",
        )
    before = [int(found[1]) for found in _WARMUP.finditer(plain[: runs.start()])]
    threads, size = _THREADS.search(plain), _SIZE.search(plain)
    return Printed(
        runs=int(runs[1]),
        warmup_runs=sum(before),
        load_ms=float(summary[1]) / 1000,
        first_ms=float(summary[2]) / 1000,
        minimum_ms=float(runs[4]) / 1000,
        median_ms=float(runs[9]) / 1000,
        threads=int(threads[1]) if threads else None,
        model_mb=size[1] if size else None,
        ops=_operators(plain),
    )


def _operators(text: str) -> tuple[tuple[str, float, int], ...]:
    """Return the rows of the table in run order."""
    table = text.partition(_OPS)[2].partition("Top by Computation Time")[0]
    rows = [_ROW.fullmatch(line.rstrip()) for line in table.splitlines()]
    return tuple(
        (row["name"].strip() or row["type"], float(row["ms"]), int(row["count"]))
        for row in rows
        if row
    )
