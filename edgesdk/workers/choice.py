"""What ``--workers`` says: how many processes, or which cluster."""

from __future__ import annotations

from edgesdk.errors import UsageError
from edgesdk.workers.distributed import Distributed, rank
from edgesdk.workers.here import Here
from edgesdk.workers.job import Workers
from edgesdk.workers.processes import Processes

_FORMS = "a number of processes, as 4, or ray://HOST:PORT, or ray:auto"


def find_workers(text: str | int) -> Workers:
    """Return who does the jobs: this process for 1, else that many, or a Ray cluster's.

    Where ``torchrun`` started this process and others, 1 means all of them. Nothing is started or
    connected to before they are entered. Raises ``UsageError`` for anything else.
    """
    said = str(text).strip()
    if rank() is not None:
        if said != "1":
            raise UsageError(
                f"torchrun started the processes that train, and --workers says {said!r}",
                next_step="leave --workers out, or start edgesdk without torchrun",
            )
        return Distributed()
    if said.startswith("ray:"):
        from edgesdk.workers.ray_cluster import RayCluster

        return RayCluster(said)
    if not said.isdecimal() or int(said) < 1:
        raise UsageError(f"{said!r} says nothing about workers", expected=_FORMS)
    count = int(said)
    return Here() if count == 1 else Processes(count)
