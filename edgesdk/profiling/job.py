"""A profiling job: the artifact, and what is to be found out about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesdk.artifact import Manifest
from edgesdk.profiling.bench import Bench
from edgesdk.progress import Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What a runner is asked to measure, and on which bench.

    ``device`` names the profile that the numbers stand for and ``threads`` how many it may use;
    None is the artifact's own. ``sustained_s``: how long the run goes on to see whether it stays
    as fast. ``hooks``: whether to time operators too.
    """

    folder: Path
    manifest: Manifest
    progress: Progress
    bench: Bench
    device: str | None = None
    threads: int | None = None
    sustained_s: float = 0.0
    hooks: bool = True
