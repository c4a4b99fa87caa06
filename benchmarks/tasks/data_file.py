"""Where the benchmarks' data lie: in ``EDGESDK_DATA``, or in ``../shared/data`` by the checkout."""

from __future__ import annotations

import os
from pathlib import Path

from edgesdk.errors import TaskError


def data_file(name: str) -> Path:
    """Return the path of a data file, named as ``cifar10/images.npz``; ``TaskError`` without it."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("EDGESDK_DATA") or beside) / name
    if not path.is_file():
        raise TaskError(
            f"the benchmark's data is missing: {path} does not exist",
            expected=f"{name} in the folder EDGESDK_DATA names, or in {beside}",
            next_step=f"set EDGESDK_DATA to the folder that holds {Path(name).parts[0]}/",
        )
    return path
