"""Read what ExecuTorch's ``executor_runner`` logs: the time of every execution."""

from __future__ import annotations

import re

from edgesdk.errors import MeasurementError

_ITERATION = re.compile(r"Iteration (\d+) of (\d+): ([\d.]+) ms")
_LOADED = re.compile(r"Model loaded in ([\d.]+) ms")


def read_output(text: str) -> tuple[float | None, list[float]]:
    """Return the loading time (None where not logged) and the milliseconds of each execution.

    A log may hold earlier runs of the program; the last one counts. Raises ``MeasurementError``
    where executions are missing: older builds log one total for all, and no median can be made of
    that.
    """
    iterations = list(_ITERATION.finditer(text))
    runs = int(iterations[-1][2]) if iterations else 0
    last_run = iterations[-runs:]
    times = [float(found[3]) for found in last_run]
    if not times or [int(found[1]) for found in last_run] != list(range(1, runs + 1)):
        last = (text.strip().splitlines() or ["nothing"])[-1][:300]
        raise MeasurementError(
            f"executor_runner logged no times of executions; it ended with: {last}",
            expected="lines such as 'Iteration 1 of 100: 3.2 ms'",
            next_step="build it from ExecuTorch 1.5 or newer, with logging",
        )
    loaded = list(_LOADED.finditer(text, 0, last_run[0].start()))
    return (float(loaded[-1][1]) if loaded else None), times
