"""What a worker does, in whichever process: open the job once, answer its items, tell of errors."""

from __future__ import annotations

import traceback
from typing import Any

import torch

from edgesdk.errors import EdgeSDKError
from edgesdk.running.wire import error_in, error_message
from edgesdk.workers.job import Job, open_job
from edgesdk.workers.parcel import Parcel

Reply = tuple[dict[str, Any], bytes]
"""A header that is empty or tells what was raised, and the answer as the bytes of a parcel."""


class Answerer:
    """One worker's side of the work: the latest job stays open for its next items."""

    def __init__(self) -> None:
        self._identity: tuple[str, int] | None = None
        self._job: Job | None = None

    def answer(self, kind: str, digest: str, packed: bytes, threads: int, item: bytes) -> Reply:
        """Return the reply to an item of a job; ``digest`` tells whether it is the open one.

        Never raises: an exception of a class that the other side lacks could not be told.
        """
        try:
            if self._job is None or self._identity != (digest, threads):
                self._job = None  # frees the last one's memory first
                torch.set_num_threads(threads)
                self._job = open_job(kind, packed)
                self._identity = (digest, threads)
            return {}, self._job.run(Parcel.from_bytes(item)).to_bytes()
        except EdgeSDKError as problem:
            return {**error_message(problem), "traceback": traceback.format_exc()}, b""
        except Exception as problem:  # noqa: BLE001 - a bug, told as one on the other side
            bug = f"{type(problem).__name__}: {problem}"
            return {"bug": bug, "traceback": traceback.format_exc()}, b""


def answer_in(reply: Reply, worker: str) -> Parcel:
    """Return the answer, or raise what the worker raised; its traceback is a note for ``--debug``.

    Raises ``RuntimeError`` for what is a bug of ours.
    """
    header, packed = reply
    if not header:
        return Parcel.from_bytes(packed)
    problem: Exception = (
        error_in(header) if "error" in header else RuntimeError(f"{header['bug']} (in {worker})")
    )
    problem.add_note(f"Raised in {worker}:\n{header['traceback']}")
    raise problem
