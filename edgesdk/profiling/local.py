"""``local``: this machine, measured by the agent in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgesdk.errors import UsageError
from edgesdk.measurement import Measurement
from edgesdk.measurement_file import read_measurement
from edgesdk.profiling.agent_file import NAME, agent_bytes
from edgesdk.profiling.agent_run import agent_arguments, explain, follow, program_name
from edgesdk.profiling.job import Job

HOST = "host"


def measure(place: str, job: Job) -> Measurement:
    """Return what this machine's own runtime takes; raises as ``measure_in_turns``."""
    return measure_in_turns(place, [job])[0]


def measure_in_turns(place: str, jobs: Sequence[Job]) -> list[Measurement]:
    """Return what this machine's own runtime takes for one artifact, or two in the same rounds.

    A native crash is a ``MeasurementError``. The numbers stand for ``host``, whatever device the
    artifacts were compiled for.
    """
    job = jobs[0]
    if place:
        raise UsageError(f"local takes no place, found {place!r}", expected="--on local")
    if job.device not in (None, HOST):
        raise UsageError(
            f"--on local measures this machine, which is not {job.device}",
            expected=f"--device {HOST}, or none",
        )
    options = agent_arguments(job, device=HOST, measured_by=program_name("local"))
    with tempfile.TemporaryDirectory(prefix="edgesdk.") as name:
        folder = Path(name)
        (folder / NAME).write_bytes(agent_bytes())
        outs = [folder / f"measurement{number}.json" for number in range(len(jobs))]
        words = [str(jobs[0].folder.resolve()), "-o", str(outs[0])]
        for other, out in zip(jobs[1:], outs[1:], strict=True):
            words += ["--beside", str(other.folder.resolve()), str(out)]
        _run_agent([sys.executable, "-P", str(folder / NAME), *words, *options], job)
        return [read_measurement(out) for out in outs]


def _run_agent(words: list[str], job: Job) -> None:
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - our own agent, a list of words
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                follow(line.decode(errors="replace").rstrip(), job.progress)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        if code:
            errors.seek(0)
            raise explain(code, errors.read().decode(errors="replace"), where="this machine")
