"""Run an artifact on its runtime in a process of its own; a native crash becomes an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from edgesdk.document import from_builtins, to_builtins
from edgesdk.errors import ArtifactError
from edgesdk.measurement import RuntimeIdentity
from edgesdk.running.child import ChildProcess
from edgesdk.running.wire import Array
from edgesdk.target import Arrays, Emission

_OPEN_TIMEOUT_S = 300.0
_RUN_TIMEOUT_S = 1800.0


class RuntimeProcess(ChildProcess):
    """A worker process, with nothing loaded yet; use as a context manager."""

    def __init__(self, *, host_runtime: str, threads: int) -> None:
        super().__init__("edgesdk.running.worker", threads=threads)
        self.host_runtime = host_runtime

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

    def _death(self, request: str, how: str, said: str) -> ArtifactError:
        return ArtifactError(
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
