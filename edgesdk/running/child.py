"""A Python process of our own that answers messages; its crash becomes an error that names it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from edgesdk.errors import EdgeSDKError
from edgesdk.running.wire import Array, error_in, read_message, write_message
from edgesdk.target import Arrays


class ChildProcess(ABC):
    """A module of ours running in a process; use as a context manager.

    ``threads`` is what its environment grants the libraries it loads. Leaving kills it.
    """

    def __init__(self, module: str, *, threads: int) -> None:
        self._module = module
        self._threads = threads

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - a module of ours, named by its class
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                _close_quietly(stream)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def kill(self) -> None:
        """End the process now; whoever waits for its answer is told that it died."""
        self._process.kill()

    def _ask(
        self, header: dict[str, Any], arrays: Sequence[Array], timeout_s: float | None
    ) -> tuple[dict[str, Any], Arrays]:
        """Return the reply; raises what the process raised, or ``_death`` where it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._process.kill()

        watchdog = threading.Timer(timeout_s, give_up) if timeout_s is not None else None
        if watchdog is not None:
            watchdog.start()
        try:
            write_message(self._process.stdin, header, arrays)
            reply, results = read_message(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise self._died(header["request"], timed_out=timed_out.is_set()) from None
        finally:
            if watchdog is not None:
                watchdog.cancel()
        if "error" in reply:
            raise error_in(reply)
        return reply, results

    def _died(self, request: str, *, timed_out: bool) -> EdgeSDKError:
        code = self._process.wait()
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().splitlines()[-3:]
        if timed_out:
            how = "did not answer in time"
        elif code < 0:
            how = f"crashed with {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return self._death(request, how, f": {' | '.join(last)}" if last else "")

    @abstractmethod
    def _death(self, request: str, how: str, said: str) -> EdgeSDKError:
        """Return the error for a process that ended while asked for something.

        ``how`` says how it ended, ``said`` what it last wrote to standard error.
        """


def _close_quietly(stream: Any) -> None:
    """Close a pipe whose other end may be gone: flushing what was never read is no error here."""
    try:
        stream.close()
    except BrokenPipeError:
        return
