"""Jobs to try workers with; workers find them here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Self

import torch

from edgesdk.errors import TaskError
from edgesdk.workers.parcel import Parcel


class Squares:
    """Squares what it is given, plus an offset, and tells where and on how many threads.

    An item may also ask to raise, to crash, to wait for a file, or to take its time.
    """

    alone: ClassVar[bool] = False

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def pack(self) -> Parcel:
        return Parcel(values={"offset": self.offset})

    @classmethod
    def unpack(cls, parcel: Parcel) -> Self:
        return cls(parcel.values["offset"])

    def run(self, item: Parcel) -> Parcel:
        values = item.values
        if "began" in values:
            Path(values["began"]).write_text(str(os.getpid()))
        time.sleep(values.get("seconds", 0.0))
        if "raises" in values:
            raise TaskError(values["raises"], expected="a number", next_step="give one")
        if values.get("bug"):
            raise KeyError("a slip of ours")
        if values.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        numbers = item.tensors.get("numbers", torch.zeros(1))
        told = {"pid": os.getpid(), "threads": torch.get_num_threads()}
        return Parcel(values=told, tensors={"squares": numbers * numbers + self.offset})


class AloneSquares(Squares):
    """Squares that take a whole machine."""

    alone: ClassVar[bool] = True
