"""Train in every process that ``torchrun`` started, with torch's own distributed data parallel.

The first process (rank 0) does everything; the others wait, and train with it when it trains.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

import numpy as np
import torch
import torch.distributed as dist

from edgesdk.errors import UsageError
from edgesdk.workers.answering import Answerer
from edgesdk.workers.job import Done, Job, digest_of, kind_of
from edgesdk.workers.parcel import Parcel

# The others wait as long as rank 0 plans and emits; in training nobody waits for long.
_PATIENCE = timedelta(days=30)
_TRAINING_PATIENCE = timedelta(minutes=10)


def rank() -> int | None:
    """Return this process's place among those that ``torchrun`` started, None where it did not."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        return None
    return int(os.environ["RANK"])


class Distributed:
    """The processes of ``torchrun``, led by this one, which has rank 0.

    Work done alone is done by all of them together; everything else by this process.
    """

    def __init__(self) -> None:
        if rank() != 0:
            raise UsageError(
                "the first process that torchrun started leads, and this is another one",
                next_step="let the others call edgesdk.workers.distributed.serve()",
            )
        self._at_work = False

    def threads(self, job: Job) -> int:
        """Return the threads that torch has."""
        return torch.get_num_threads()

    def map(self, job: Job, items: Sequence[Parcel], done: Done) -> None:
        """Do the items in order."""
        if not job.alone:
            for index, item in enumerate(items):
                done(index, job.run(item))
            return
        self._at_work = True
        _broadcast(Parcel(values={"kind": kind_of(job)}).to_bytes())
        _broadcast(job.pack().to_bytes())
        for index, item in enumerate(items):
            _broadcast(item.to_bytes())
            done(index, job.run(item))
        _broadcast(b"")
        self._at_work = False

    def __enter__(self) -> Self:
        """Meet the other processes."""
        _meet()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Send the others home; those in mid-work are ended by torchrun, as this process fails."""
        if not self._at_work:
            _broadcast(b"")
            dist.destroy_process_group()


def serve() -> None:
    """Train whenever rank 0 does, until it sends us home. Writes nothing to standard output."""
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _meet()
    answerer = Answerer()
    while announced := _broadcast(None):
        kind = Parcel.from_bytes(announced).values["kind"]
        packed = _broadcast(None)
        digest = digest_of(kind, packed)
        while item := _broadcast(None):
            # What all of them raise, rank 0 tells.
            answerer.answer(kind, digest, packed, torch.get_num_threads(), item)
    dist.destroy_process_group()


def _meet() -> None:
    dist.init_process_group("gloo", timeout=_PATIENCE)


def training_group() -> dist.ProcessGroup | None:
    """Return the processes that train together, None where this one trains by itself."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    group: dist.ProcessGroup = dist.new_group(timeout=_TRAINING_PATIENCE)
    return group


def _broadcast(data: bytes | None) -> bytes:
    """Return what rank 0 gave, in every process; the others give None."""
    length = torch.tensor([len(data or b"")])
    dist.broadcast(length, src=0)
    size = int(length)
    if size == 0:
        return b""
    content = torch.empty(size, dtype=torch.uint8)
    if data is not None:
        content.copy_(torch.from_numpy(np.frombuffer(data, np.uint8).copy()))
    dist.broadcast(content, src=0)
    return content.numpy().tobytes()
