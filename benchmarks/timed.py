"""How long one artifact takes beside another, on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from edgesdk.compressed import CompressedModel
from edgesdk.device_files import load_device
from edgesdk.running.process import ArtifactProcess
from edgesdk.running.timing import measure_alternating
from edgesdk.target import find_target
from edgesdk.task import Tensors

Open = Callable[[], ArtifactProcess]


def opened(model: CompressedModel, target_name: str, folder: Path) -> Open:
    """Return what runs the model, emitted into the folder for this machine, on one thread."""
    folder.mkdir(parents=True)
    target = find_target(target_name)
    runtime = load_device("host").runtime_for(target_name)
    host = target.host_runtime(runtime)
    assert host is not None
    emission = target.emit(model, runtime, folder)
    return lambda: ArtifactProcess(
        target=target_name, folder=folder, emission=emission, host_runtime=host.name, threads=1
    )


def latency_ratio(other: Open, base: Open, inputs: Tensors, *, rounds: int = 3) -> float:
    """Return the median ratio of two artifacts' latencies, over rounds in fresh processes.

    Within a round both are timed in turn, so that the machine's speed cancels out.
    """
    found = []
    for _ in range(rounds):
        with base() as first, other() as second:
            base_ms, other_ms = (
                item.p50_ms for item in measure_alternating([first, second], inputs, device="host")
            )
        found.append(other_ms / base_ms)
    return statistics.median(found)
