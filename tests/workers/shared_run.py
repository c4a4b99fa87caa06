"""What ``torchrun`` starts in the test of shared training: rank 0 trains, the others serve."""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from planned import plan_of

from edgesdk.budget import Budget
from edgesdk.cache import Cache
from edgesdk.effort import Effort
from edgesdk.plan import Distil, Equalize, Prune, PrunedGroup, Qat
from edgesdk.progress import Silent
from edgesdk.stages.compression import compress
from edgesdk.stages.request import resolve
from edgesdk.task_source import load_task
from edgesdk.workers.choice import find_workers
from edgesdk.workers.distributed import rank, serve
from edgesdk.workers.job import Workers

GROUP = PrunedGroup(layer="0", width_before=96, removed=tuple(range(64)))
PRUNE = Prune(ratio=0.3, channel_multiple=4, importance="taylor", groups=(GROUP,))
STEPS = {
    "distil": (
        PRUNE,
        Distil(epochs=3, learning_rate=0.01, temperature=4.0, alpha=0.5, patience=3),
    ),
    "qat": (
        PRUNE,
        Equalize(),
        Qat(epochs=2, learning_rate=0.001, temperature=4.0, alpha=0.5, patience=2),
    ),
}


def train_all(reference: str, folder: Path, workers: Workers) -> None:
    """Write to a folder the weights that each kind of training starts from and ends in."""
    for name, steps in STEPS.items():
        request = resolve(
            load_task(reference),
            device="samsung_galaxy_s24",
            target="tflite",
            budget=Budget(),
            effort=Effort(),
            accelerator="cpu",
            cache=Cache(folder / "cache"),
            progress=Silent(),
            needs_toolchain=False,
            workers=workers,
        )
        module = compress(request, plan_of(*steps)).module
        safetensors.torch.save_file(module.state_dict(), folder / f"{name}.safetensors")
        before = compress(request, plan_of(*steps), recovered=False).module
        safetensors.torch.save_file(before.state_dict(), folder / f"{name}_before.safetensors")


def main() -> None:
    """Train as rank 0, or serve."""
    torch.set_num_threads(1)
    if rank():
        serve()
        return
    with find_workers(1) as workers:
        train_all(sys.argv[1], Path(sys.argv[2]), workers)


if __name__ == "__main__":
    main()
