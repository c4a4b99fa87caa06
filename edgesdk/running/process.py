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
from typing import Any

from edgesdk import errors
from edgesdk.document import from_builtins, to_builtins
from edgesdk.measurement import RuntimeIdentity
from edgesdk.running.wire import Array, read_message, write_message
from edgesdk.target import Arrays, Emission

_OPEN_TIMEOUT_S = 300.0
_RUN_TIMEOUT_S = 1800.0


class ArtifactProcess:
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
        self._open_request: dict[str, Any] = {
            "request": "open",
            "target": target,
            "folder": str(folder.resolve()),
            "emission": to_builtins(emission),
            "host_runtime": host_runtime,
            "threads": threads,
        }
        self.host_runtime = host_runtime
        self.emission = emission
        self.folder = folder

    def __enter__(self) -> ArtifactProcess:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgesdk.running.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "OMP_NUM_THREADS": str(self._open_request["threads"])},
        )
        try:
            reply, _ = self._ask(self._open_request, [], _OPEN_TIMEOUT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.identity = from_builtins(RuntimeIdentity, reply["identity"], what="runtime identity")
        self.load_ms = reply["load_ms"]
        self.memory_bytes = reply["memory_bytes"]
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

    def run(self, stacked: Sequence[Array]) -> Arrays:
        """Return outputs ``[M, B, ...]`` for ``[M, B, ...]`` in the file's types."""
        return self._ask({"request": "run"}, stacked, _RUN_TIMEOUT_S)[1]

    def time(self, inputs: Sequence[Array], runs: int) -> list[float]:
        """Return the milliseconds of each of ``runs`` inferences of one batch ``[B, ...]``."""
        reply, _ = self._ask({"request": "time", "runs": runs}, inputs, _RUN_TIMEOUT_S)
        return list(reply["samples_ms"])

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


def _close_quietly(stream: Any) -> None:
    """Close a pipe whose other end may be gone: flushing what was never read is no error here."""
    try:
        stream.close()
    except BrokenPipeError:
        return
