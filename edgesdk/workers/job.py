"""Jobs and those who do them: the seam between what is computed and where."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ClassVar, Protocol, Self

from edgesdk.workers.parcel import Parcel


class Job(Protocol):
    """Work on many items, each done alone and with the same answer wherever that is.

    A job crosses to a worker once, as a parcel, and is opened there; its items follow.
    ``alone`` says that one item keeps every core busy, as training does.
    """

    alone: ClassVar[bool]

    def pack(self) -> Parcel:
        """Return all that a worker needs to do the job."""

    @classmethod
    def unpack(cls, parcel: Parcel) -> Self:
        """Return the job that ``pack`` packed, in the process that will do it."""

    def run(self, item: Parcel) -> Parcel:
        """Return the answer for one item."""


Done = Callable[[int, Parcel], None]
"""Told of each item's answer by its place, in the order in which they are done."""


class Workers(Protocol):
    """Those who do jobs; a context manager, whose end leaves no process behind.

    Nobody computes outside of ``map``: what is clocked between two calls has the machine for
    itself.
    """

    def threads(self, job: Job) -> int:
        """Return how many threads of torch an item of the job is computed with.

        Sums of floats depend on it in their last digits; whatever else differs between workers
        does not change an answer.
        """

    def map(self, job: Job, items: Sequence[Parcel], done: Done) -> None:
        """Do every item, calling ``done`` for each, and return when the last one is done.

        What an item raises is raised here, as it would be in this process: where several raise,
        the first one's in the order of the items. Items that are done by then were told of.
        """

    def __enter__(self) -> Self:
        """Return the workers, ready."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End what was started."""


def kind_of(job: Job) -> str:
    """Return the name by which ``open_job`` finds a job's class."""
    return f"{type(job).__module__}:{type(job).__qualname__}"


def digest_of(kind: str, packed: bytes) -> str:
    """Return what tells a packed job from every other one."""
    return hashlib.sha256(kind.encode() + b"\0" + packed).hexdigest()


def open_job(kind: str, packed: bytes) -> Job:
    """Return the job of that kind that those bytes are the parcel of."""
    module, _, name = kind.partition(":")
    found: type[Job] = getattr(importlib.import_module(module), name)
    return found.unpack(Parcel.from_bytes(packed))
