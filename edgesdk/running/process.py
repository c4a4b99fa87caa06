"""Run an artifact on its runtime in a process of its own; a native crash becomes an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgesdk import errors
from edgesdk.document import from_builtins, to_builtins
from edgesdk.measurement import RuntimeIdentity
from edgesdk.running.wire import Array, read_message, write_message
from edgesdk.target import Arrays, Emission

_OPEN_TIMEOUT_S = 300.0
_RUN_TIMEOUT_S = 1800.0


class RuntimeProcess:
    """A worker process, with nothing loaded yet; use as a context manager."""

    def __init__(self, *, host_runtime: str, threads: int) -> None:
        self.host_runtime = host_runtime
        self._threads = threads

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgesdk.running.worker"],
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

    def _open(
        self, *, target: str, folder: Path, emission: Emission, slot: int = 0
    ) -> dict[str, Any]:
        request = {
            "request": "open",
            "slot": slot,
            "target": target,
            "folder": str(folder.resolve()),
            "emission": to_builtins(emission),
            "host_runtime": self.host_runtime,
            "threads": self._threads,
        }
        return self._ask(request, [], _OPEN_TIMEOUT_S)[0]

    def _time(self, inputs: Sequence[Array], runs: int, slot: int = 0) -> list[float]:
        request = {"request": "time", "slot": slot, "runs": runs}
        return list(self._ask(request, inputs, _RUN_TIMEOUT_S)[0]["samples_ms"])

    def _ask(
        self, header: dict[str, Any], arrays: Sequence[Array], timeout_s: float
    ) -> tuple[dict[str, Any], Arrays]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._process.kill()

        watchdog = threading.Timer(timeout_s, give_up)
        watchdog.start()
        try:
            write_message(self._process.stdin, header, arrays)
            reply, results = read_message(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise self._died(header["request"], timed_out=timed_out.is_set()) from None
        finally:
            watchdog.cancel()
        if "error" in reply:
            error = reply["error"]
            error_class: type[errors.EdgeSDKError] = getattr(errors, error["class"])
            raise error_class(
                error["found"], expected=error["expected"], next_step=error["next_step"]
            )
        return reply, results

    def _died(self, request: str, *, timed_out: bool) -> errors.ArtifactError:
        code = self._process.wait()
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().splitlines()[-3:]
        if timed_out:
            how = "did not answer in time"
        elif code < 0:
            how = f"crashed with {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        said = f": {' | '.join(last)}" if last else ""
        return errors.ArtifactError(
            f"the runtime {self.host_runtime!r} {how} while asked to {request} the artifact{said}"
        )


class ArtifactProcess(RuntimeProcess):
    """An artifact loaded in a worker process; use as a context manager.

    Entering starts the process and loads the file. ``identity``, ``load_ms`` and
    ``memory_bytes`` (None where the runtime does not tell) are then known. Raises
    ``ArtifactError`` when the runtime refuses the file, crashes or does not answer.
    """

    identity: RuntimeIdentity
    load_ms: float
    memory_bytes: int | None

    def __init__(
        self, *, target: str, folder: Path, emission: Emission, host_runtime: str, threads: int = 1
    ) -> None:
        super().__init__(host_runtime=host_runtime, threads=threads)
        self.target = target
        self.emission = emission
        self.folder = folder

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            reply = self._open(target=self.target, folder=self.folder, emission=self.emission)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.identity = from_builtins(RuntimeIdentity, reply["identity"], what="runtime identity")
        self.load_ms = reply["load_ms"]
        self.memory_bytes = reply["memory_bytes"]
        return self

    def run(self, stacked: Sequence[Array]) -> Arrays:
        """Return outputs ``[M, B, ...]`` for ``[M, B, ...]`` in the file's types."""
        return self._ask({"request": "run"}, stacked, _RUN_TIMEOUT_S)[1]

    def time(self, inputs: Sequence[Array], runs: int) -> list[float]:
        """Return the milliseconds of each of ``runs`` inferences of one batch ``[B, ...]``."""
        return self._time(inputs, runs)


class SharedProcess(RuntimeProcess):
    """A worker process that holds many artifacts of one target, to time them in turn.

    Starting a process for each would take longer than timing it. A native crash ends them all.
    """

    def __init__(self, *, target: str, host_runtime: str, threads: int) -> None:
        super().__init__(host_runtime=host_runtime, threads=threads)
        self.target = target
        self._opened = 0

    def open(self, folder: Path, emission: Emission) -> int:
        """Load another artifact and return its number; ``ArtifactError`` where it is refused."""
        self._open(target=self.target, folder=folder, emission=emission, slot=self._opened)
        self._opened += 1
        return self._opened - 1

    def time(self, number: int, inputs: Sequence[Array], runs: int) -> list[float]:
        """Return the milliseconds of each of ``runs`` inferences of that artifact."""
        return self._time(inputs, runs, slot=number)


def _close_quietly(stream: Any) -> None:
    """Close a pipe whose other end may be gone: flushing what was never read is no error here."""
    try:
        stream.close()
    except BrokenPipeError:
        return
