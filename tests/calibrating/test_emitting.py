"""Emitting microbenchmarks in processes of their own."""

import time
from pathlib import Path

import pytest

from edgesdk.cache import Cache
from edgesdk.calibrating.emitting import EmittedNetwork, Job, emit_all
from edgesdk.calibrating.host import packaged_host
from edgesdk.calibrating.microbenchmarks import microbenchmarks

JOBS = tuple(
    Job(
        benchmark=item.name,
        runtimes=(packaged_host().runtime_for("tflite"),),
        schemes=("fp32",),
    )
    for item in microbenchmarks()
)


@pytest.mark.slow
@pytest.mark.toolchain
def test_no_job_begins_after_the_time_and_what_was_made_is_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = list(emit_all(JOBS, cache, needed=0, until_s=time.monotonic()))
    # One for each process, and the few that were handed to one already.
    assert 1 <= len(made) < len(JOBS) / 2
    assert all(job in JOBS[: 2 * len(made)] for job, _ in made)
    [job, [network]] = made[0]
    assert isinstance(network, EmittedNetwork)
    files = {path: path.stat().st_mtime_ns for path in network.folder.iterdir()}
    assert files
    [(again, [found])] = emit_all([job], cache, needed=1, until_s=time.monotonic())
    assert (again, found) == (job, network)
    assert {path: path.stat().st_mtime_ns for path in network.folder.iterdir()} == files
