"""Requests for a task alone, without a budget or a toolchain."""

from __future__ import annotations

from pathlib import Path

from edgesdk.budget import Budget
from edgesdk.cache import Cache
from edgesdk.device import DeviceProfile
from edgesdk.effort import Effort
from edgesdk.progress import Silent
from edgesdk.stages.request import Request, resolve
from edgesdk.task import Task
from edgesdk.workers.job import Workers


def request_for(
    task: Task, device: DeviceProfile, root: Path, workers: Workers | None = None
) -> Request:
    """Return the request to look at a task for a device, with ``root`` for its cache."""
    return resolve(
        task,
        device=device,
        target=None,
        budget=Budget(),
        effort=Effort(),
        accelerator="cpu",
        cache=Cache(root),
        progress=Silent(),
        needs_toolchain=False,
        workers=workers,
    )
