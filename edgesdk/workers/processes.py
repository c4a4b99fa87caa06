"""Do jobs in several processes of this machine, each with its share of the cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
import torch

from edgesdk.errors import EdgeSDKError, WorkerError
from edgesdk.running.child import ChildProcess
from edgesdk.workers.answering import answer_in
from edgesdk.workers.job import Done, Job, digest_of, kind_of
from edgesdk.workers.parcel import Parcel


class Processes:
    """``count`` worker processes, started when the first job needs them and kept for the next.

    A task is loaded anew in each of them, from its reference.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()

    def threads(self, job: Job) -> int:
        """Return a worker's share of this process's threads, all of them for work done alone."""
        here = torch.get_num_threads()
        return here if job.alone else max(1, here // self.count)

    @property
    def computing(self) -> int:
        """How many workers are at work."""
        return len(self._workers) - self._idle.qsize()

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that are running."""
        return [worker.pid for worker in self._workers]

    def map(self, job: Job, items: Sequence[Parcel], done: Done) -> None:
        """Do the items, each in the worker that is free first.

        Raises ``WorkerError`` where a worker dies; its name says how. Then, and at Ctrl-C, the
        others are killed; where an item raises, those at work finish what they have.
        """
        opened = _Opened(job, self.threads(job))
        self._start(min(self.count, len(items)))
        # A thread per worker does nothing but wait for the worker's answers.
        with ThreadPoolExecutor(max(1, len(self._workers))) as waiting:
            asked = {waiting.submit(self._answer, opened, item): n for n, item in enumerate(items)}
            try:
                self._collect(asked, done)
            except BaseException as problem:
                for future in asked:
                    future.cancel()
                if isinstance(problem, WorkerError) or not isinstance(problem, Exception):
                    self._kill()
                raise

    def _collect(self, asked: dict[Future[Parcel], int], done: Done) -> None:
        """Tell of the answers; of the items that raise, raise the first one's error."""
        raised: dict[int, Exception] = {}
        for future in as_completed(asked):
            if future.cancelled():
                continue
            problem = future.exception()
            if problem is None:
                done(asked[future], future.result())
                continue
            if isinstance(problem, WorkerError) or not isinstance(problem, Exception):
                raise problem
            raised[asked[future]] = problem
            # Items are begun in order, so whatever comes before this one is at work or done.
            for other in asked:
                other.cancel()
        if raised:
            raise raised[min(raised)]

    def _answer(self, opened: _Opened, item: Parcel) -> Parcel:
        worker = self._idle.get()
        try:
            return worker.answer(opened, item)
        finally:
            self._idle.put(worker)

    def _start(self, count: int) -> None:
        """Have that many processes, at least; they import torch side by side."""
        while len(self._workers) < count:
            share = max(1, torch.get_num_threads() // self.count)
            worker = _Worker(len(self._workers) + 1, threads=share)
            self._workers.append(worker.__enter__())
            self._idle.put(worker)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def __enter__(self) -> Self:
        """Return itself; processes are started when there is work."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every process."""
        for worker in self._workers:
            worker.__exit__(None, None, None)
        self._workers.clear()
        self._idle = SimpleQueue()


class _Opened:
    """A job as it crosses: packed once, for whichever worker needs it."""

    def __init__(self, job: Job, threads: int) -> None:
        self.kind = kind_of(job)
        self.threads = threads
        self.packed = job.pack().to_bytes()
        self.digest = digest_of(self.kind, self.packed)


class _Worker(ChildProcess):
    """One process, with the job it has open."""

    def __init__(self, number: int, *, threads: int) -> None:
        super().__init__("edgesdk.workers.serving", threads=threads)
        self._number = number
        self._open: tuple[str, int] | None = None

    def answer(self, opened: _Opened, item: Parcel) -> Parcel:
        """Return the answer for an item; the job crosses before the first of them."""
        if self._open != (opened.digest, opened.threads):
            self._ask(
                {
                    "request": "open a job",
                    "kind": opened.kind,
                    "digest": opened.digest,
                    "threads": opened.threads,
                },
                [np.frombuffer(opened.packed, np.uint8)],
                None,
            )
            self._open = (opened.digest, opened.threads)
        sent = np.frombuffer(item.to_bytes(), np.uint8)
        reply, (answer,) = self._ask({"request": "do a job"}, [sent], None)
        return answer_in((reply["reply"], answer.tobytes()), f"worker {self._number}")

    def _death(self, request: str, how: str, said: str) -> EdgeSDKError:
        return WorkerError(
            f"worker {self._number} (process {self.pid}) {how} while asked to {request}{said}",
            next_step="run the same command again: what is done is kept; SIGKILL mostly means that "
            "memory ran out, and fewer --workers need less",
        )
