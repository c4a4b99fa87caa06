"""How long one artifact takes beside another, on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from edgesdk.running.process import ArtifactProcess
from edgesdk.running.timing import measure_alternating
from edgesdk.task import Tensors

Open = Callable[[], ArtifactProcess]


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
