"""Do jobs on a Ray cluster that exists already; Ray is imported when one is asked for.

What crosses to the cluster is a job's parcel and its items, as bytes: JSON and safetensors. The
task itself does not cross; every node loads it from the same reference in the same folder.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import torch

from edgesdk.errors import TargetUnavailable, UsageError, WorkerError, first_line
from edgesdk.running.wire import error_message
from edgesdk.workers.answering import Answerer, Reply, answer_in
from edgesdk.workers.job import Done, Job, digest_of, kind_of
from edgesdk.workers.parcel import Parcel

AUTO = "ray:auto"
_FORMS = f"ray://HOST:PORT, or {AUTO} for the cluster that this machine belongs to"
_CONNECT_S = 5.0
_TRIES = 3


class RayCluster:
    """An existing cluster, by its address; connected to when it is entered.

    Ray starts a job again, up to three times, where its worker or its node dies.
    """

    def __init__(self, address: str) -> None:
        self._server = None if address == AUTO else _server(address)
        self._address = "auto" if address == AUTO else address
        self._ray: Any = None
        self._do: Any = None

    def threads(self, job: Job) -> int:
        """Return 1, and for work done alone what this process has, or the largest node if less."""
        return min(torch.get_num_threads(), self._largest) if job.alone else 1

    def map(self, job: Job, items: Sequence[Parcel], done: Done) -> None:
        """Do the items wherever the cluster has cores free.

        Raises ``WorkerError`` where a worker died again and again, or the cluster went away.
        """
        kind, packed = kind_of(job), job.pack().to_bytes()
        threads = self.threads(job)
        do = partial(
            self._do.options(num_cpus=threads).remote,
            folder=os.getcwd(),
            kind=kind,
            digest=digest_of(kind, packed),
            packed=self._ray.put(packed),
            threads=threads,
        )
        asked = {do(item=item.to_bytes()): number for number, item in enumerate(items)}
        try:
            self._collect(asked, done)
        except BaseException:
            for each in asked:
                with suppress(Exception):  # it may be done, or the cluster gone
                    self._ray.cancel(each, force=True)
            raise

    def _collect(self, asked: dict[Any, int], done: Done) -> None:
        """Tell of the answers; of the items that raise, raise the first one's error."""
        pending = list(asked)
        raised: dict[int, Exception] = {}
        while pending:
            (ready,), pending = self._ray.wait(pending, num_returns=1)
            try:
                answer = answer_in(self._reply(ready), "a worker of the Ray cluster")
            except WorkerError:
                raise
            except Exception as problem:  # noqa: BLE001 - raised below, once the earlier are done
                raised[asked[ready]] = problem
                pending = [each for each in pending if asked[each] < min(raised)]
                continue
            done(asked[ready], answer)
        if raised:
            raise raised[min(raised)]

    def _reply(self, ready: Any) -> Reply:
        try:
            reply: Reply = self._ray.get(ready)
        except self._ray.exceptions.RayError as problem:
            raise WorkerError(
                f"a worker of the Ray cluster was lost: {first_line(problem)}",
                next_step="run the same command again: what is done is kept",
            ) from problem
        return reply

    @property
    def _largest(self) -> int:
        """The cores of the largest node."""
        cores = [
            int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]
        ]
        return max([1, *cores])

    def __enter__(self) -> Self:
        """Connect; raises ``TargetUnavailable`` without Ray, ``WorkerError`` without a cluster."""
        self._ray = _imported_ray()
        if self._server is not None:
            _check_reachable(*self._server)
        with _own_signals():
            self._connect(_TRIES)
        self._do = self._ray.remote(do_on_node)
        return self

    def _connect(self, tries: int) -> None:
        """Connect; where the cluster could not start the process that serves us, again.

        That process dies now and then as it is forked: github.com/ray-project/ray/issues/63202.
        """
        try:
            self._ray.init(
                self._address, log_to_driver=False, logging_level="ERROR", configure_logging=False
            )
        except ConnectionAbortedError as problem:
            if tries == 1:
                raise self._refusal(problem) from problem
            self._connect(tries - 1)
        except Exception as problem:
            raise self._refusal(problem) from problem

    def _refusal(self, problem: Exception) -> WorkerError:
        return WorkerError(
            f"the Ray cluster {self._address!r} does not take us: {_reason(problem)}",
            expected=_FORMS,
            next_step="check its address, and that Ray and Python there have the versions that "
            "they have here; where its servers fail to start, start the cluster with "
            "GRPC_ENABLE_FORK_SUPPORT=0 in its environment",
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect; the cluster ends the processes that worked for us."""
        with _own_signals():
            self._ray.shutdown()


_answerer = Answerer()


def do_on_node(
    *, folder: str, kind: str, digest: str, packed: bytes, threads: int, item: bytes
) -> Reply:
    """Return the reply to an item, computed in this process of the cluster."""
    try:
        os.chdir(folder)
    except OSError as problem:
        missing = WorkerError(
            f"a node of the Ray cluster has no folder {folder}: {problem.strerror}",
            expected="every node to see the task's file and data where this machine has them",
            next_step="start edgesdk in a folder that all nodes share",
        )
        return {**error_message(missing), "traceback": ""}, b""
    return _answerer.answer(kind, digest, packed, threads, item)


def _server(address: str) -> tuple[str, int]:
    """Return host and port of a ``ray://`` address; ``UsageError`` for anything else."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not address.startswith("ray://") or not host or not port:
        raise UsageError(f"{address!r} is no Ray cluster", expected=_FORMS)
    return host, port


def _check_reachable(host: str, port: int) -> None:
    """Raise ``WorkerError`` within seconds where nothing listens: Ray itself tries for longer."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as problem:
        raise WorkerError(
            f"no Ray cluster answers at {host}:{port}: {problem}",
            expected="the port of its client server, 10001 unless it was started with another",
            next_step="'ray start --head' on the cluster's first machine starts one",
        ) from problem


def _reason(problem: Exception) -> str:
    """Return what went wrong: where Ray passes a traceback of the cluster's on, its last line."""
    return str(problem).strip().rpartition("\n")[-1] or first_line(problem)


def _imported_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as problem:
        raise TargetUnavailable(
            f"--workers names a Ray cluster, and Ray cannot be imported: {problem}",
            next_step="pip install 'edgesdk[ray]'",
        ) from problem


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what signals mean here: Ray puts handlers of its own in their place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
