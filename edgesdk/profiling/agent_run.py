"""Following the agent while it measures: its progress, its answer, and what its failures mean."""

from __future__ import annotations

import re

from edgesdk.errors import MeasurementError
from edgesdk.profiling.job import Job
from edgesdk.progress import Progress
from edgesdk.target import installed_version

_STEP = re.compile(r"(\d+)/(\d+) (.*)")
_COULD_NOT = 9


def program_name(runner: str) -> str:
    """Return what a measurement says that it was measured by."""
    return f"edgesdk {installed_version('edgesdk') or 'unknown'}, profile --on {runner}"


def agent_arguments(job: Job, *, device: str, measured_by: str) -> list[str]:
    """Return the options of the agent for a job."""
    words = ["--device", device, "--measured-by", measured_by]
    if job.threads is not None:
        words += ["--threads", str(job.threads)]
    if job.sustained_s:
        words += ["--sustained", str(job.sustained_s)]
    return words if job.hooks else [*words, "--no-hooks"]


def follow(line: str, progress: Progress) -> None:
    """Show one line of what the agent says."""
    if counted := _STEP.fullmatch(line):
        progress.advance(int(counted[1]), int(counted[2]), counted[3])
    elif line:
        progress.step(line[:200])


def explain(code: int, errors: str, *, where: str) -> MeasurementError:
    """Return the error for an agent that ended with ``code`` after saying ``errors``."""
    said = [line for line in errors.strip().splitlines() if line.strip()]
    last = said[-1][:500] if said else "it said nothing"
    if code == _COULD_NOT:
        return MeasurementError(f"{where}: {last.removeprefix('error: ')}")
    if code < 0 or code > 128:
        signal = -code if code < 0 else code - 128
        return MeasurementError(f"{where}: the runtime crashed with signal {signal}: {last}")
    return MeasurementError(f"{where}: the agent ended with exit code {code}: {last}")
