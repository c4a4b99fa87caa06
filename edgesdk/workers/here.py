"""Do jobs in this process, one item after the other."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch

from edgesdk.workers.job import Done, Job
from edgesdk.workers.parcel import Parcel


class Here:
    """This process: nothing is packed, so the task may be any object."""

    def threads(self, job: Job) -> int:
        """Return the threads that torch has."""
        return torch.get_num_threads()

    def map(self, job: Job, items: Sequence[Parcel], done: Done) -> None:
        """Do the items in order."""
        for index, item in enumerate(items):
            done(index, job.run(item))

    def __enter__(self) -> Self:
        """Return itself; nothing is started."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing; nothing was started."""
