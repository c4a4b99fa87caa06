"""A target whose runtimes misbehave, each in the way its name says; used in worker processes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgesdk.device import Runtime
from edgesdk.errors import ArtifactError, TargetUnavailable
from edgesdk.measurement import RuntimeIdentity
from edgesdk.target import Arrays, Emission


class StaleFileError(ArtifactError):
    """An error class of the target's own."""


class UnrulyTarget:
    name = "unruly"

    def open(self, folder: Path, emission: Emission, host_runtime: str, threads: int) -> Session:
        print("loading", folder)
        sys.stderr.write("about to open\n")
        sys.stderr.flush()
        if host_runtime == "crashes on open":
            ctypes.string_at(0)
        if host_runtime == "exits on open":
            os._exit(3)
        if host_runtime == "raises on open":
            raise RuntimeError("no such opcode")
        if host_runtime == "refuses on open":
            raise StaleFileError("built by 0.9", expected="1.0", next_step="emit it again")
        if host_runtime == "lacks a library":
            raise TargetUnavailable("no library", next_step="pip install library")
        return Session(host_runtime, threads)

    def capability(self, runtime: Runtime) -> Any: ...
    def toolchain(self) -> Any: ...
    def emit(self, model: Any, runtime: Runtime, folder: Path) -> Any: ...
    def operators(self, folder: Path, emission: Emission) -> Any: ...
    def checks(self, folder: Path, emission: Emission, model: Any) -> Any: ...
    def host_runtime(self, runtime: Runtime) -> Any: ...
    def simulate(self, model: Any) -> Any: ...


class Session:
    """Doubles its inputs, unless it misbehaves."""

    def __init__(self, host_runtime: str, threads: int) -> None:
        self._behaviour = host_runtime
        self.identity = RuntimeIdentity(
            runtime="unruly", version="1", platform=sys.platform, unit="cpu", threads=threads
        )

    def memory_bytes(self) -> int | None:
        return 4096

    def bind(self, inputs: Arrays) -> Callable[[], object]:
        return partial(self.run, inputs)

    def run(self, inputs: Arrays) -> Arrays:
        if self._behaviour == "is noisy":
            print("a line from Python")
            os.write(1, b"\x00\xff bytes from C\n" * 100)
            subprocess.run(["/bin/echo", "a child's line"], check=True)
        if self._behaviour == "crashes on run":
            ctypes.string_at(0)
        if self._behaviour == "hangs on run":
            time.sleep(600)
        if inputs[0].shape[-1] != 2:
            raise ValueError(f"bad shape {inputs[0].shape}")
        return [2 * array for array in inputs]


TARGET = UnrulyTarget()
